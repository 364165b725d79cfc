"""The application: its routes, its errors, and the sessions that live as long as it does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import Depends, FastAPI

from neuroloop import __version__, notify, tracing
from neuroloop.api import (
    audit,
    decoders,
    encoders,
    errors,
    fits,
    info,
    labels,
    loading,
    metrics,
    models,
    open_inference,
    predictions,
    recordings,
    rereference,
    schema,
    sessions,
    stream,
)
from neuroloop.api.access import Access, authorise
from neuroloop.api.activation import activate_in
from neuroloop.api.audit import Audit, AuditLog
from neuroloop.api.guard import Guard
from neuroloop.api.live import LiveSessions
from neuroloop.api.sharing import Sharing
from neuroloop.engine import executor_of, launcher_of
from neuroloop.inference.process import Inference
from neuroloop.registry.fitted import register_in
from neuroloop.registry.registry import Registry
from neuroloop.server_config import ServerSettings, is_loopback
from neuroloop.session.adoption import RunFolder
from neuroloop.session.launching import SESSION_PROGRAM
from neuroloop.session.streams import configure_lsl
from neuroloop.tokens import TokenFile
from neuroloop.training.jobs import FitJobs


def create_app(
    settings: ServerSettings,
    session_program: Sequence[str] = SESSION_PROGRAM,
    run_folder: RunFolder | None = None,
) -> FastAPI:
    """The ASGI application of a server.

    session_program: the command line of a session process, without its endpoints and its log level. run_folder: where
    sessions are recorded that go on if this process dies; without one they end with it. Whoever runs the application
    sets `state.registry` before, and closes it after.
    """
    requests = AuditLog(settings.folder)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        requests.start()
        registry: Registry = app.state.registry
        configure_lsl(settings.lsl)
        launcher = launcher_of(settings, session_program, ("--log-level", settings.log_level))
        records = run_folder if settings.engine == "local" else None
        live = app.state.sessions = LiveSessions(
            settings.lsl, launcher, records, settings.outlive_s, app.state.recordings, settings.supervision
        )
        loading.install(app, live, registry)
        await live.adopt()
        for session in settings.sessions:
            if session.name not in live:
                await live.create(session)
        jobs = app.state.fits = FitJobs(
            settings.folder / "fits",
            register_in(registry),
            activate_in(live, registry),
            executor_of(settings),
            **settings.fits.model_dump(),
        )
        await jobs.open()
        inference = app.state.inference = Inference()
        sharing = asyncio.create_task(Sharing(registry, live).keep(), name="sharing")
        alive = asyncio.create_task(notify.keep_alive(), name="watchdog")
        try:
            yield
        finally:
            notify.tell(notify.STOPPING)
            sharing.cancel()
            alive.cancel()
            await asyncio.gather(sharing, alive, return_exceptions=True)
            await inference.close()
            await jobs.close()
            await live.close()
            requests.close()
            await asyncio.to_thread(end_traces)

    app = FastAPI(title="neuroloop", version=__version__, lifespan=lifespan, responses={"default": errors.DESCRIPTION})
    errors.install(app)
    app.state.audit = requests
    app.state.engine = settings.engine
    app.state.recordings = settings.folder / "recordings"
    app.state.version_users = []  # see `models`
    app.state.alias_followers = []
    for module in (
        info,
        metrics,
        sessions,
        labels,
        predictions,
        rereference,
        stream,
        schema,
        decoders,
        encoders,
        models,
        fits,
        recordings,
        open_inference,
        audit,
    ):
        app.include_router(module.router, dependencies=[Depends(authorise)])
    is_local = is_loopback(settings.host)
    app.add_middleware(Access, tokens=TokenFile(settings.folder), required=not is_local)
    app.add_middleware(Guard, host_names=settings.host_names if is_local or settings.host_names else None)
    app.add_middleware(Audit, audit=requests)  # the outermost: it sees what the others refuse
    end_traces = tracing.install(app)
    return app
