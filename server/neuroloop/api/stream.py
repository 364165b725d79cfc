"""The live stream of a session over a WebSocket: results out, labels in.

One task per connection sends what the hub has for it, another takes what comes in. A client that goes away ends both
quietly; a message that can't be read is answered with an error, and the connection goes on.
"""

from __future__ import annotations

import asyncio
from typing import Annotated, Any, Literal

import msgpack
import pylsl
from fastapi import APIRouter, WebSocket, WebSocketDisconnect
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import from_json
from starlette.types import Message as AsgiMessage

from neuroloop.api.access import SUBPROTOCOL, CurrentUser, User
from neuroloop.api.errors import Malformed, explain_faults, plain_problem, problem
from neuroloop.api.hub import TOPICS, Message, Subscriber
from neuroloop.api.labels import Label, send_label
from neuroloop.api.live import LiveSession, Session
from neuroloop.errors import NeuroloopError

FORMATS = ("json", "msgpack")
Id = Annotated[int, Field(ge=-(2**63), lt=2**63)] | str | None  # what MessagePack can carry

router = APIRouter()


class LabelMessage(Label):
    type: Literal["label"]
    id: Id = None


class PingMessage(BaseModel):
    type: Literal["ping"]
    id: Id = None


ID: TypeAdapter[int | str | None] = TypeAdapter(Id)
INCOMING: TypeAdapter[LabelMessage | PingMessage] = TypeAdapter(
    Annotated[LabelMessage | PingMessage, Field(discriminator="type")]
)


@router.websocket("/v1/sessions/{session}/stream")
async def stream(
    websocket: WebSocket, session: Session, user: CurrentUser, topics: str = "predictions", format: str = "json"
) -> None:
    wanted = _choices("topic", topics.split(","), TOPICS)
    [binary] = [name == "msgpack" for name in _choices("format", [format], FORMATS)]
    await websocket.accept(subprotocol=SUBPROTOCOL if SUBPROTOCOL in websocket.scope["subprotocols"] else None)
    with session.hub.subscribe(wanted) as subscriber:
        sender = asyncio.create_task(_send_results(websocket, subscriber, binary))
        try:
            await _answer_messages(websocket, session, user, binary)
        finally:
            sender.cancel()
            await asyncio.gather(sender, return_exceptions=True)


def _choices(what: str, given: list[str], known: tuple[str, ...]) -> list[str]:
    """The choices given, each once. Raises Malformed, which refuses the connection before it is accepted."""
    for choice in given:
        if choice not in known:
            raise Malformed(f"unknown {what} {choice!r}; there are: {', '.join(known)}")
    return list(dict.fromkeys(given))


async def _send_results(websocket: WebSocket, subscriber: Subscriber, binary: bool) -> None:
    try:
        while (message := await subscriber.get()) is not None:
            await _send(websocket, message, binary)
        await websocket.close(1001, "the session was deleted")
    except (WebSocketDisconnect, RuntimeError):
        return  # the client has gone; uvicorn raises RuntimeError if it gave it up itself


async def _send(websocket: WebSocket, message: Message, binary: bool) -> None:
    if binary:
        await websocket.send_bytes(message.packed)
    else:
        await websocket.send_text(message.json)


async def _answer_messages(websocket: WebSocket, session: LiveSession, user: User, binary: bool) -> None:
    try:
        while True:
            incoming = await websocket.receive()
            if incoming["type"] == "websocket.disconnect":
                return
            await _send(websocket, Message.of("reply", await _answer(session, user, incoming)), binary)
    except (WebSocketDisconnect, RuntimeError):
        return


async def _answer(session: LiveSession, user: User, incoming: AsgiMessage) -> dict[str, Any]:
    reply_id: dict[str, Any] = {}
    try:
        content = _parse(incoming)
        reply_id = _reply_id(content)
        message = INCOMING.validate_python(content)
        if isinstance(message, PingMessage):
            return {"type": "pong", "time": pylsl.local_clock()} | reply_id
        user.check("operator", "a label")
        return {"type": "label_accepted"} | await send_label(session, message) | reply_id
    except ValidationError as error:
        document = plain_problem(422, explain_faults(error.errors()))
    except NeuroloopError as error:
        document = problem(error)
    return {"type": "error"} | {key: document[key] for key in ("status", "title", "detail")} | reply_id


def _reply_id(content: dict[str, Any]) -> dict[str, Any]:
    """The id that the answer carries, even one that refuses the rest of the message."""
    try:
        return {"id": ID.validate_python(content["id"])} if "id" in content else {}
    except ValidationError:
        return {}  # what is wrong with it is said of the whole message


def _parse(incoming: AsgiMessage) -> dict[str, Any]:
    text = incoming.get("text")
    name = "JSON" if text is not None else "MessagePack"
    try:
        content = from_json(text, allow_inf_nan=False) if text is not None else msgpack.unpackb(incoming["bytes"])
    except ValueError as error:
        raise Malformed(f"the message is not {name}: {error}") from error
    if not isinstance(content, dict):
        raise Malformed(f"expected a map such as {{'type': 'label', 'label': ...}}, got {type(content).__name__}")
    return content
