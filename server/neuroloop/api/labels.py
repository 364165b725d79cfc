"""Labels: what was really meant, named by class, for an interval of LSL time."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter
from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

from neuroloop.api.errors import JsonResponse
from neuroloop.api.live import LiveSession, Session

router = APIRouter(prefix="/v1/sessions/{session}", tags=["labels"])


class Label(BaseModel):
    """A class and the interval that it names, in LSL seconds; without times, the window that just ended."""

    model_config = ConfigDict(extra="forbid")

    label: str = Field(min_length=1, max_length=256)
    start: FiniteFloat | None = None
    end: FiniteFloat | None = None


@router.post("/labels")
async def post_label(session: Session, label: Label) -> JsonResponse:
    """Learn that an interval belongs to a class; pending until the last bin of the interval is complete."""
    return JsonResponse(await send_label(session, label))


async def send_label(session: LiveSession, label: Label) -> dict[str, Any]:
    result: dict[str, Any] = await session.process.command(
        "label", **label.model_dump(include={"label", "start", "end"}, exclude_none=True)
    )
    return result
