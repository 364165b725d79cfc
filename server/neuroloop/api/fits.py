"""Fit jobs: ask for one, follow it, cancel it, resume it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Query, Request
from pydantic import ValidationError
from pydantic_core import from_json
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile
from starlette.requests import HTTPConnection

from neuroloop.api import activation, live_data
from neuroloop.api.access import CurrentUser
from neuroloop.api.errors import JsonResponse, Malformed
from neuroloop.api.live import LiveSessions, Sessions
from neuroloop.api.models import Models
from neuroloop.api.schemas import inline_schema
from neuroloop.config import explain
from neuroloop.errors import ConfigError
from neuroloop.training import arrays, settings
from neuroloop.training.job import INPUT, RECORDING, Job, link_name
from neuroloop.training.jobs import FitJobs, Gather
from neuroloop.training.recording_files import find
from neuroloop.training.request import Activation, FitRequest

DOCUMENT, ARRAYS = "document", "arrays"  # the parts of a form
CHUNK = 1 << 20
_SCHEMA = inline_schema(FitRequest)
BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": _SCHEMA},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": [DOCUMENT, ARRAYS],
                    "properties": {DOCUMENT: _SCHEMA, ARRAYS: {"type": "string", "format": "binary"}},
                }
            },
        },
    }
}

router = APIRouter(prefix="/v1/fits", tags=["fits"])


def _jobs(connection: HTTPConnection) -> FitJobs:
    jobs: FitJobs = connection.app.state.fits
    return jobs


Jobs = Annotated[FitJobs, Depends(_jobs)]


@router.post("", status_code=202, openapi_extra=BODY)
async def start_fit(
    jobs: Jobs,
    sessions: Sessions,
    registry: Models,
    user: CurrentUser,
    request: Request,
    activate: Annotated[Activation, Query(description="as what a session is to use the result")] = "none",
    session: Annotated[str | None, Query(description="which; that of a live source by default")] = None,
) -> JsonResponse:
    """Fit a model: its settings and source as JSON, or a form of that `document` and the data as an NPZ, `arrays`."""
    async with _parts(request) as (document, upload):
        asked = _request(document, upload)
        settings.check(asked)
        activation.check(asked.kind, activate)
        if asked.parent is not None:
            await run_in_threadpool(registry.get, asked.name, asked.parent)
        user_session = _session_of(asked, activate, session)
        if user_session is not None:
            sessions[user_session]
        gather, beforehand = _gather(asked, upload, sessions, request.app.state.recordings)
        job = await jobs.submit(
            asked, gather, beforehand=beforehand, activate=activate, session=user_session, by=user.name
        )
    return JsonResponse(describe(job), 202, {"Location": f"/v1/fits/{job.id}"})


@router.get("")
async def list_fits(jobs: Jobs) -> JsonResponse:
    """Every fit job that is kept, oldest first, without its curve."""
    return JsonResponse({"fits": [{k: v for k, v in describe(job).items() if k != "curve"} for job in jobs.all()]})


@router.get("/{fit}")
async def get_fit(jobs: Jobs, fit: str) -> JsonResponse:
    """A fit job: its state, progress, loss curve, held-out metrics, the version that it made."""
    return JsonResponse(describe(jobs[fit]))


@router.delete("/{fit}")
async def cancel_fit(jobs: Jobs, fit: str) -> JsonResponse:
    """Cancel a fit job that waits or runs; answers when its process has ended."""
    return JsonResponse(describe(await jobs.cancel(fit)))


@router.post("/{fit}/resume", status_code=202)
async def resume_fit(jobs: Jobs, fit: str) -> JsonResponse:
    """Have a fit job go on that was interrupted, or whose process died: from its checkpoint if it has one."""
    job = await jobs.resume(fit)
    return JsonResponse(describe(job), 202, {"Location": f"/v1/fits/{job.id}"})


def describe(job: Job) -> dict[str, Any]:
    return job.model_dump(mode="json", by_alias=True, exclude={"has_data"})


@asynccontextmanager
async def _parts(request: Request) -> AsyncIterator[tuple[bytes, UploadFile | None]]:
    """The JSON document, and the file of arrays where the body is a form."""
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        yield await request.body(), None
        return
    async with request.form(max_files=2, max_fields=2) as form:
        document, upload = form.get(DOCUMENT), form.get(ARRAYS)
        if document is None or not isinstance(upload, UploadFile):
            names = ", ".join(form) or "nothing"
            raise Malformed(f"the form: expected {DOCUMENT!r} (JSON) and {ARRAYS!r} (an NPZ file), got {names}")
        yield (await document.read() if isinstance(document, UploadFile) else document.encode()), upload


def _request(document: bytes, upload: UploadFile | None) -> FitRequest:
    try:
        content = from_json(document, allow_inf_nan=False)
    except ValueError as error:
        raise Malformed(f"the {'document' if upload else 'body'} is not JSON: {error}") from error
    if upload is not None and isinstance(content, dict):
        content.setdefault("source", {"arrays": upload.filename or "upload.npz"})
    try:
        asked = FitRequest.model_validate(content)
    except ValidationError as error:
        raise ConfigError(explain(error)) from error
    if (asked.source.arrays is not None) != (upload is not None):
        raise Malformed(f"source: arrays are uploaded as {ARRAYS!r} in a form beside the {DOCUMENT!r}; see /docs")
    return asked


def _session_of(asked: FitRequest, activate: Activation, session: str | None) -> str | None:
    """The session that is to use the result."""
    if activate == "none":
        return None
    live = asked.source.live
    if session is None and live is None:
        raise ConfigError(f"activate: {activate} in which session? Name it: ?activate={activate}&session=...")
    return session or (live.session if live else None)


def _gather(
    asked: FitRequest, upload: UploadFile | None, sessions: LiveSessions, recordings: Path
) -> tuple[Gather, bool]:
    """What fetches the data, and whether they are at hand, so that whoever asks is told what is wrong with them."""
    live = asked.source.live
    if live is not None:
        form = live_data.ENCODERS if asked.kind == "lnp" else live_data.DECODERS
        return partial(live_data.gather, sessions[live.session], live, form=form), live.which == "last"
    if asked.source.recording is not None:
        return partial(_link, recordings, {RECORDING: asked.source.recording.name}), True
    if asked.source.recordings is not None:
        names = {link_name(index): one.name for index, one in enumerate(asked.source.recordings)}
        return partial(_link, recordings, names), True
    assert upload is not None
    return partial(_store, asked.kind, upload), True


async def _link(recordings: Path, names: dict[str, str], folder: Path) -> None:
    """names: of the links, without suffix, and of the recordings."""
    for link, name in names.items():
        path = await run_in_threadpool(find, recordings, name)
        await run_in_threadpool((folder / f"{link}{path.suffix.lower()}").symlink_to, path.absolute())


async def _store(kind: str, upload: UploadFile, folder: Path) -> None:
    await run_in_threadpool(_copy_checked, kind, upload, folder / INPUT)


def _copy_checked(kind: str, upload: UploadFile, path: Path) -> None:
    """Put the uploaded arrays there. Raises ModelError for such that the kind cannot learn from."""
    with path.open("wb") as file:
        while chunk := upload.file.read(CHUNK):
            file.write(chunk)
    arrays.check(kind, arrays.read_headers(path))
