"""What a client may send over the stream of a session: labels and pings, as JSON or MessagePack, each answered."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgpack
import pylsl
from pydantic import BaseModel, Field, TypeAdapter, ValidationError
from pydantic_core import from_json
from starlette.types import Message as AsgiMessage

from neuroloop.api.access import User
from neuroloop.api.errors import Malformed, explain_faults, plain_problem, problem
from neuroloop.api.labels import Label, send_label
from neuroloop.api.live import LiveSession
from neuroloop.errors import NeuroloopError

Id = Annotated[int, Field(ge=-(2**63), lt=2**63)] | str | None  # what MessagePack can carry


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


async def answer(session: LiveSession, user: User, incoming: AsgiMessage) -> dict[str, Any]:
    """The answer to a message; one that can't be read or obeyed is answered with an error."""
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
