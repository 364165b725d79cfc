"""The decoders of a session: put versions of the registry in, as the active one or beside it, and go back."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path

from neuroloop.api.errors import JsonResponse
from neuroloop.api.live import Session
from neuroloop.api.loading import DecoderLoad, Promotion, change, load_version
from neuroloop.api.models import Models
from neuroloop.config import Name

router = APIRouter(prefix="/v1/sessions/{session}/decoder", tags=["decoders"])


@router.put("")
async def put_decoder(session: Session, registry: Models, load: DecoderLoad) -> JsonResponse:
    """Load a version beside the loop and exchange it between two bins; the answer is the receipt."""
    return JsonResponse(await load_version(session, registry, load))


@router.post("/rollback")
async def roll_back(session: Session) -> JsonResponse:
    """Return to what was active before, as it was then."""
    return JsonResponse(await change(session, "decoder_rollback"))


@router.post("/promote")
async def promote(session: Session, promotion: Promotion) -> JsonResponse:
    """Make a shadow the active decoder; a rollback makes it a shadow again."""
    return JsonResponse(await change(session, "decoder_promote", name=promotion.name))


@router.delete("/{name}")
async def remove_shadow(session: Session, name: Annotated[Name, Path()]) -> JsonResponse:
    """Let a shadow go."""
    return JsonResponse(await change(session, "decoder_remove", name=name))
