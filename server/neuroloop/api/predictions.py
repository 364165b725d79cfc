"""Predictions of the last minute, for those who ask instead of subscribing."""

from __future__ import annotations

import asyncio
from typing import Annotated

from fastapi import APIRouter, Query, Response

from neuroloop.api.live import Session
from neuroloop.errors import NotFound

Model = Annotated[str | None, Query(description="name of a decoder of the session")]

AT_ONCE = 64

router = APIRouter(prefix="/v1/sessions/{session}/predictions", tags=["predictions"])


@router.get("/latest")
async def get_latest_prediction(session: Session, model: Model = None) -> Response:
    """The newest prediction of the active decoder, or of `model`."""
    message = session.hub.latest(model)
    if message is None:
        raise NotFound(f"session {session.name!r} has no prediction{f' of {model!r}' if model else ''} yet")
    return Response(message.json, media_type="application/json")


@router.get("")
async def get_predictions(
    session: Session,
    since: Annotated[int, Query(description="the last bin that is known already")] = -1,
    limit: Annotated[int, Query(ge=1, le=10_000, description="bins")] = 1000,
    model: Model = None,
) -> Response:
    """The predictions after bin `since`, active and shadow, oldest first, and which bins are still kept."""
    predictions = []
    for number, message in enumerate(session.hub.since(since, limit, model), 1):
        predictions.append(message.json.decode())
        if number % AT_ONCE == 0:
            await asyncio.sleep(0)  # a minute of bins takes 40 ms: live messages go first
    oldest, newest = session.hub.seq_range() or ("null", "null")
    body = f'{{"oldest_seq":{oldest},"newest_seq":{newest},"predictions":[{",".join(predictions)}]}}'
    return Response(body, media_type="application/json")
