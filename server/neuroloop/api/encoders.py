"""The encoders of a session: put versions of the registry in, as the active one or beside it, and go back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from neuroloop.api.errors import JsonResponse
from neuroloop.api.live import Session
from neuroloop.api.loading import EncoderLoad, Promotion, change, load_version
from neuroloop.api.models import Models
from neuroloop.config import Name

router = APIRouter(prefix="/v1/sessions/{session}/encoder", tags=["encoders"])


@router.put("")
async def put_encoder(session: Session, registry: Models, load: EncoderLoad) -> JsonResponse:
    """Load a version beside the loop and exchange it between two bins; the answer is the receipt.

    409 where the session has no stimulus; 422 for a bank of other frames, or of cells that are none of its channels.
    """
    return JsonResponse(await load_version(session, registry, load))


@router.post("/rollback")
async def roll_back_encoder(session: Session) -> JsonResponse:
    """Return to what was active before, as it was then."""
    return JsonResponse(await change(session, "encoder_rollback"))


@router.post("/promote")
async def promote_encoder(session: Session, promotion: Promotion) -> JsonResponse:
    """Make a shadow the active encoder; a rollback makes it a shadow again."""
    return JsonResponse(await change(session, "encoder_promote", name=promotion.name))


@router.delete("/{name}")
async def remove_shadow_encoder(session: Session, name: Annotated[Name, Path()]) -> JsonResponse:
    """Let a shadow go."""
    return JsonResponse(await change(session, "encoder_remove", name=name))
