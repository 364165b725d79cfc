"""Sessions: list, create, delete, start, stop, status, events."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Response

from neuroloop.api.access import requires
from neuroloop.api.errors import JsonResponse
from neuroloop.api.hub import EVENT_COUNT
from neuroloop.api.live import Session, Sessions
from neuroloop.config import SessionSettings

router = APIRouter(prefix="/v1/sessions", tags=["sessions"])


@router.get("")
async def list_sessions(sessions: Sessions) -> JsonResponse:
    """Every session with its state (starting, running, stopped, failed) and settings."""
    return JsonResponse([session.describe() for session in sessions.all()])


@router.post("", status_code=201)
@requires("admin")
async def create_session(sessions: Sessions, settings: SessionSettings) -> JsonResponse:
    """A new session, from settings of the form that the configuration file has under `sessions`."""
    session = await sessions.create(settings)
    return JsonResponse(session.describe(), 201, {"Location": f"/v1/sessions/{session.name}"})


@router.get("/{session}")
async def get_session(session: Session) -> JsonResponse:
    """One session, with its state and settings."""
    return JsonResponse(session.describe())


@router.delete("/{session}", status_code=204)
@requires("admin")
async def delete_session(sessions: Sessions, session: Session) -> Response:
    """End the session and its process; its subscribers are disconnected."""
    await sessions.delete(session.name)
    return Response(status_code=204)


@router.post("/{session}/start")
async def start_session(session: Session) -> JsonResponse:
    """Run the loop."""
    return JsonResponse(await session.switch("start"))


@router.post("/{session}/stop")
async def stop_session(session: Session) -> JsonResponse:
    """Stop the loop; models and weights stay as they are."""
    return JsonResponse(await session.switch("stop"))


@router.get("/{session}/status")
async def get_status(session: Session) -> JsonResponse:
    """Stream health, bins, missed bins, gaps, latency by stage, models and their versions."""
    return JsonResponse(await session.status())


@router.get("/{session}/events")
async def get_events(session: Session, limit: Annotated[int, Query(ge=1, le=EVENT_COUNT)] = 50) -> JsonResponse:
    """The last events, oldest first."""
    return JsonResponse({"events": list(session.hub.events)[-limit:]})
