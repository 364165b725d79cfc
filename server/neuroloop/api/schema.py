"""The documents that describe the stream's messages, for people and for generators of clients."""

from __future__ import annotations

from fastapi import APIRouter

from neuroloop.api.errors import JsonResponse
from neuroloop.api.message_schema import asyncapi, message_schema

router = APIRouter(prefix="/v1/schema", tags=["server"])


@router.get("/messages.json")
async def get_message_schema() -> JsonResponse:
    """The JSON Schema of the messages that a session's stream sends."""
    return JsonResponse(message_schema())


@router.get("/asyncapi.json")
async def get_asyncapi() -> JsonResponse:
    """The stream as an AsyncAPI 3 document."""
    return JsonResponse(asyncapi())
