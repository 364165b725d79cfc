"""The commands that load, roll back, promote and remove decoders."""

from __future__ import annotations

from typing import Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neuroloop.config import Name, explain
from neuroloop.errors import ModelError
from neuroloop.session.inbox import Command
from neuroloop.session.loading import LoadRequest
from neuroloop.session.loop import Loop
from neuroloop.session.recent import BINS
from neuroloop.session.running import Loaded, ModelVersion


class _Arguments(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class _Model(_Arguments):
    name: Name
    version: int = Field(ge=1)
    digest: str = Field(pattern=r"^sha256:[0-9a-f]{64}$")
    alias: str | None = None


class _Load(_Arguments):
    model: _Model
    weights: bytes
    role: Literal["active", "shadow"] = "active"
    decoder: Name | None = None
    state: Literal["carry", "reprime", "cold"] = "carry"
    reprime_bins: int = Field(50, ge=1, le=BINS)


class _Named(_Arguments):
    name: Name


Checked = TypeVar("Checked", bound=_Arguments)


def _check(kind: type[Checked], command: Command) -> Checked:
    try:
        return kind.model_validate(command.arguments)
    except ValidationError as error:
        raise ModelError(f"{command.name}: {explain(error)}") from error


def load(loop: Loop, command: Command) -> None:
    given = _check(_Load, command)
    model = ModelVersion(given.model.name, given.model.version, given.model.digest)
    loaded = Loaded(given.model.alias, given.state, given.reprime_bins)
    request = LoadRequest(model, given.weights, given.role, given.decoder, loaded)
    loop.swaps.load(request, command.reply)


def rollback(loop: Loop, command: Command) -> None:
    loop.swaps.rollback(command.reply)


def promote(loop: Loop, command: Command) -> None:
    loop.swaps.promote(_check(_Named, command).name, command.reply)


def remove(loop: Loop, command: Command) -> dict[str, Any]:
    removed = loop.swaps.remove(_check(_Named, command).name)
    return {"decoder": removed.name, "model": removed.identity()}
