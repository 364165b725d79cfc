"""Whether the server lives and is ready, what it is, and which LSL streams it sees."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import pylsl
from fastapi import APIRouter, Query, Request

from neuroloop import __version__
from neuroloop.api.errors import JsonResponse, plain_problem, problem_response
from neuroloop.api.live import Sessions
from neuroloop.session.streams import find_all

router = APIRouter(tags=["server"])


@router.get("/healthz")
async def healthz() -> JsonResponse:
    """The server lives."""
    return JsonResponse({"status": "ok"})


@router.get("/readyz")
async def readyz(request: Request, sessions: Sessions) -> JsonResponse:
    """The process of every autostarted session answers; 503 with the reasons until then."""
    reasons = sessions.not_ready()
    if reasons:
        return problem_response(request, plain_problem(503, "; ".join(reasons)) | {"reasons": reasons})
    return JsonResponse({"status": "ready"})


@router.get("/v1/info")
async def info(request: Request) -> JsonResponse:
    """Version, device, engine, and the LSL clock now, for clients that have no LSL."""
    engine = request.app.state.engine
    return JsonResponse({"version": __version__, "device": "cpu", "engine": engine, "clock": pylsl.local_clock()})


@router.get("/v1/streams")
def streams(timeout: Annotated[float, Query(ge=0, le=10, description="seconds to listen")] = 1.0) -> JsonResponse:
    """The LSL streams that answer within `timeout` seconds."""
    return JsonResponse([asdict(description) for description in find_all(timeout)])
