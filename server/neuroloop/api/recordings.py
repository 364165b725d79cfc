"""Recordings: of running sessions, and as files in the server's folder."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat
from starlette.requests import HTTPConnection
from starlette.responses import FileResponse

from neuroloop.api.errors import JsonResponse
from neuroloop.api.live import LiveSessions, Session, Sessions
from neuroloop.api.loading import change
from neuroloop.errors import Conflict, NotFound

SUFFIX = ".xdf"
STOP_S = 35.0  # the session's own patience, and a little more

router = APIRouter(prefix="/v1", tags=["recordings"])


class Annotation(BaseModel):
    """A remark, for an LSL time; by default for now."""

    model_config = ConfigDict(extra="forbid")

    text: str = Field(min_length=1, max_length=4096)
    time: FiniteFloat | None = None


def _folder(connection: HTTPConnection) -> Path:
    folder: Path = connection.app.state.recordings
    return folder


Folder = Annotated[Path, Depends(_folder)]


def _file(folder: Folder, recording: str) -> Path:
    path = folder / f"{recording}{SUFFIX}"
    if path.parent != folder or "\0" in recording or not path.is_file():
        raise NotFound(f"no recording {recording!r}; GET /v1/recordings says what there is")
    return path


File = Annotated[Path, Depends(_file)]


@router.post("/sessions/{session}/recording/start")
async def start_recording(session: Session) -> JsonResponse:
    """Record everything from now on, as an XDF file in the server's folder."""
    return JsonResponse(await change(session, "recording_start", timeout=STOP_S))


@router.post("/sessions/{session}/recording/stop")
async def stop_recording(session: Session) -> JsonResponse:
    """Close the file; the answer says what is on the disk."""
    return JsonResponse(await change(session, "recording_stop", timeout=STOP_S))


@router.post("/sessions/{session}/recording/annotations")
async def annotate_recording(session: Session, annotation: Annotation) -> JsonResponse:
    """Write a remark into the recording, as a marker."""
    arguments = annotation.model_dump(exclude_none=True)
    return JsonResponse(await session.process.command("recording_annotate", **arguments))


@router.get("/recordings")
def list_recordings(folder: Folder, sessions: Sessions) -> JsonResponse:
    """Every recording, the newest first."""
    growing = _growing(sessions)
    found = [(path.stat(), path) for path in folder.glob(f"*{SUFFIX}")]
    listed = [
        {
            "name": path.stem,
            "bytes": facts.st_size,
            "modified": datetime.fromtimestamp(facts.st_mtime, UTC).isoformat(timespec="seconds"),
            "recorded_by": growing.get(path.stem),
        }
        for facts, path in sorted(found, key=lambda one: -one[0].st_mtime)
    ]
    return JsonResponse({"recordings": listed})


@router.get("/recordings/{recording}", response_class=Response)
def get_recording(path: File) -> FileResponse:
    """The file, or the ranges of it that are asked for; of one that grows, what it is now."""
    return FileResponse(path, media_type="application/octet-stream", filename=path.name)


@router.get("/recordings/{recording}/description")
def describe_recording(path: File) -> JsonResponse:
    """Its streams, the session's configuration, and what it lacks."""
    from neuroloop.recording.description import describe

    return JsonResponse(describe(path))


@router.delete("/recordings/{recording}", status_code=204)
def delete_recording(path: File, sessions: Sessions) -> Response:
    """Delete the file; refused while a session records into it."""
    session = _growing(sessions).get(path.stem)
    if session is not None:
        raise Conflict(f"recording {path.stem!r} is being recorded by session {session!r}; stop it first")
    path.unlink(missing_ok=True)
    return Response(status_code=204)


def _growing(sessions: LiveSessions) -> dict[str, str]:
    """The recordings that grow, and the session of each, by the sessions' last status."""
    statuses: list[dict[str, Any]] = [session.hub.status or {} for session in sessions.all()]
    told = [(status["session"], status.get("recording")) for status in statuses if status]
    return {recording["name"]: name for name, recording in told if recording and recording["state"] == "recording"}
