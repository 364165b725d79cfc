"""The application: its routes, its errors, and the sessions that live as long as it does."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import FastAPI

from neuroloop import __version__
from neuroloop.api import errors, info, labels, predictions, rereference, sessions, stream
from neuroloop.api.guard import Guard
from neuroloop.api.live import LiveSessions
from neuroloop.config import ServerSettings
from neuroloop.session.streams import configure_lsl
from neuroloop.session.supervisor import SESSION_PROGRAM


def create_app(settings: ServerSettings, session_program: Sequence[str] = SESSION_PROGRAM) -> FastAPI:
    """The ASGI application of a server.

    session_program: the command line of a session process, without its endpoints and its log level.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        configure_lsl(settings.lsl)
        program = (*session_program, "--log-level", settings.log_level)
        live = app.state.sessions = LiveSessions(settings.lsl, program)
        for session in settings.sessions:
            await live.create(session)
        try:
            yield
        finally:
            await live.close()

    app = FastAPI(title="neuroloop", version=__version__, lifespan=lifespan, responses={"default": errors.DESCRIPTION})
    errors.install(app)
    for module in (info, sessions, labels, predictions, rereference, stream):
        app.include_router(module.router)
    app.add_middleware(Guard)
    return app
