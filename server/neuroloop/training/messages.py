"""What a fit process says on its standard output, one JSON map per line, and `Moved`, which its executor says."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError

from neuroloop.errors import ModelError


class Progress(BaseModel):
    """How much is done, and the loss at that point."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["progress"] = "progress"
    progress: float = Field(ge=0, le=1)
    loss: float | None = None


class Resumed(BaseModel):
    """It goes on from a checkpoint, at this progress. What was told until then is told again."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["resumed"] = "resumed"
    progress: float = Field(ge=0, le=1)


class Moved(BaseModel):
    """Its node was lost, and it is on another: it begins anew there, unless `Resumed` follows."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["moved"] = "moved"


class Failed(BaseModel):
    """Why there will be no result: something that whoever asked can put right."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["failed"] = "failed"
    detail: str


PARTED = 4  # exit code


class Parted(ModelError):
    """The process of a shared fit lost another one, which can say more. It ends with the exit code `PARTED`."""


Message = Progress | Resumed | Moved | Failed
_MESSAGE: TypeAdapter[Message] = TypeAdapter(Message)


def parse(line: bytes) -> Message | None:
    """The message in a line; None for anything else."""
    try:
        return _MESSAGE.validate_json(line)
    except ValidationError:
        return None


def write(message: Message) -> bytes:
    return message.model_dump_json().encode() + b"\n"
