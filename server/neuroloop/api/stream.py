"""The live stream of a session over a WebSocket: results out, labels in.

What the hub has goes into the connection at once; one task per connection sends what could not, another takes what
comes in. A client that goes away ends both quietly.
"""

from __future__ import annotations

import asyncio

from fastapi import APIRouter, WebSocket, WebSocketDisconnect

from neuroloop.api.access import SUBPROTOCOL, CurrentUser, User
from neuroloop.api.audit import record_reply
from neuroloop.api.errors import Malformed
from neuroloop.api.frames import FrameProtocol, frame_connection
from neuroloop.api.incoming import answer
from neuroloop.api.live import LiveSession, Session
from neuroloop.api.message import TOPICS, Message
from neuroloop.api.subscriber import Policy, Subscriber, Write

FORMATS = ("json", "msgpack")
RUN_HEADER = b"neuroloop-run"
LATEST_BUFFER = 4096  # bytes of a client that wants no old data, before it counts as slow

router = APIRouter()


@router.websocket("/v1/sessions/{session}/stream")
async def stream(
    websocket: WebSocket,
    session: Session,
    user: CurrentUser,
    topics: str = "predictions",
    format: str = "json",
    policy: str = "all",
    resume_from: str | None = None,
    run: str | None = None,
) -> None:
    wanted = _choices("topic", topics.split(","), TOPICS)
    [binary] = [name == "msgpack" for name in _choices("format", [format], FORMATS)]
    policy_wanted = _policy(policy)
    seq = None if resume_from is None else _number("resume_from", resume_from, least=0)
    session.check_resumption(seq, run)
    subprotocol = SUBPROTOCOL if SUBPROTOCOL in websocket.scope["subprotocols"] else None
    await websocket.accept(subprotocol, [(RUN_HEADER, session.process.run.encode())])
    connection = frame_connection(websocket)
    if connection is not None and policy_wanted.name == "latest":
        connection.hold_little(LATEST_BUFFER)
    with session.hub.subscribe(wanted, policy_wanted, seq, _writer(connection, binary)) as subscriber:
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


def _policy(given: str) -> Policy:
    name, _, number = given.partition("=")
    if name == "every":
        return Policy("every", _number("policy every", number, least=1))
    match given:
        case "all" | "latest":
            return Policy(given)
    raise Malformed(f"unknown policy {given!r}; there are: all, latest, every=N")


def _number(what: str, given: str, least: int) -> int:
    """A whole number. Raises Malformed."""
    if not (given.isascii() and given.isdigit() and len(given) <= 18 and int(given) >= least):
        raise Malformed(f"{what}: expected a whole number of at least {least}, got {given!r}")
    return int(given)


def _writer(connection: FrameProtocol | None, binary: bool) -> Write | None:
    if connection is None:
        return None
    write_frame = connection.write_frame
    return lambda message: write_frame(message.frame(binary))


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
        await websocket.send_text(message.json.decode())


async def _answer_messages(websocket: WebSocket, session: LiveSession, user: User, binary: bool) -> None:
    try:
        while True:
            incoming = await websocket.receive()
            if incoming["type"] == "websocket.disconnect":
                return
            reply = await answer(session, user, incoming)
            if reply["type"] != "pong":
                record_reply(websocket, reply)
            await _send(websocket, Message.of("reply", reply), binary)
    except (WebSocketDisconnect, RuntimeError):
        return
