"""Rereferencing (LRR) of a session: its state, its mode, its weights as files, fits from live data."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import numpy as np
from fastapi import APIRouter, Query, Request, Response
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import UploadFile

from neuroloop.api.errors import JsonResponse, Malformed
from neuroloop.api.live import Session
from neuroloop.signal.weight_files import MEDIA_TYPES, Format, read_weights, write_weights

LOAD_TIMEOUT_S = 15.0
UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            media_type: {"schema": {"type": "string", "format": "binary"}} for media_type in MEDIA_TYPES.values()
        },
    }
}

router = APIRouter(prefix="/v1/sessions/{session}/rereference", tags=["rereference"])


class ModeChange(BaseModel):
    """What is to change; the rest stays."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["frozen", "incremental", "forgetting"] | None = None
    half_life_s: Annotated[FiniteFloat, Field(gt=0)] | None = None
    ridge: Annotated[FiniteFloat, Field(ge=0)] | None = None

    @model_validator(mode="after")
    def _changes_something(self) -> ModeChange:
        if not self.model_fields_set:
            raise ValueError("give at least one of mode, half_life_s, ridge")
        return self


class FitRequest(BaseModel):
    """A fit from the seconds of data to come."""

    model_config = ConfigDict(extra="forbid")

    seconds: float = Field(30.0, gt=0, le=3600)
    ridge: Annotated[FiniteFloat, Field(ge=0)] | None = None


@router.get("")
async def get_rereference(session: Session) -> JsonResponse:
    """Mode, version and source of the weights, clusters, dead channels, warnings."""
    return JsonResponse(await session.process.command("rereference"))


@router.put("", openapi_extra=UPLOAD)
async def put_weights(session: Session, request: Request) -> JsonResponse:
    """Load W from a CSV, NPZ or safetensors file (the body, or one file of a form) and freeze it."""
    matrix, channels = await run_in_threadpool(read_weights, await _uploaded(request))
    result = await session.process.command(
        "rereference_load",
        timeout=LOAD_TIMEOUT_S,
        weights=matrix.tobytes(),
        shape=list(matrix.shape),
        channels=channels,
    )
    return JsonResponse(result)


@router.patch("")
async def change_mode(session: Session, change: ModeChange) -> JsonResponse:
    """Change how the weights adapt."""
    return JsonResponse(await session.process.command("rereference_mode", **change.model_dump(exclude_none=True)))


@router.post("/fit", status_code=202)
async def start_fit(session: Session, request: FitRequest) -> JsonResponse:
    """Begin a fit from live data; the event `fit_done` or `fit_failed` says how it ended, and so does its page."""
    state = await session.fit(request.model_dump())
    return JsonResponse(state, 202, {"Location": f"/v1/sessions/{session.name}/rereference/fits/{state['fit']}"})


@router.get("/fits/{fit_id}")
async def get_fit(session: Session, fit_id: str) -> JsonResponse:
    """A fit: running, done (with the version it made) or failed (with the reason)."""
    return JsonResponse(session.fit_state(fit_id))


@router.get("/weights", response_class=Response)
async def get_weights(
    session: Session,
    format: Format = "csv",
    version: Annotated[
        int | None, Query(ge=0, lt=2**63, description="one of the last versions; by default the one in use")
    ] = None,
) -> Response:
    """The weights of a version, as a file that PUT takes."""
    used = await session.process.command("rereference_weights", timeout=LOAD_TIMEOUT_S, version=version)
    matrix = np.frombuffer(used["weights"]).reshape(used["shape"])
    body = await run_in_threadpool(write_weights, format, matrix, used["channels"], used["version"])
    name = f"{session.name}-rereference-{used['version']}.{format}"
    headers = {"Content-Disposition": f'attachment; filename="{name}"', "ETag": f'"{used["version"]}"'}
    return Response(body, media_type=MEDIA_TYPES[format], headers=headers)


async def _uploaded(request: Request) -> bytes:
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await request.body()
    async with request.form(max_files=1) as form:
        files = [value for value in form.values() if isinstance(value, UploadFile)]
        if len(files) != 1:
            raise Malformed("the form has no file; expected one with the weights")
        return await files[0].read()
