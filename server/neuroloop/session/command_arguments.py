"""The arguments that commands for decoders and for encoders have in common, checked."""

from __future__ import annotations

from typing import TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neuroloop.config import Name, explain
from neuroloop.errors import ModelError
from neuroloop.session.inbox import Command


class Arguments(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class ModelArgument(Arguments):
    """A version of the registry; alias: the one that is followed."""

    name: Name
    version: int = Field(ge=1)
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    alias: str | None = None


class Named(Arguments):
    name: Name


Checked = TypeVar("Checked", bound=Arguments)


def check(kind: type[Checked], command: Command) -> Checked:
    """Raises ModelError."""
    try:
        return kind.model_validate(command.arguments)
    except ValidationError as error:
        raise ModelError(f"{command.name}: {explain(error)}") from error
