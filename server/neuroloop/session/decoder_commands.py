"""The commands that load, roll back, promote and remove decoders."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from neuroloop.config import Name
from neuroloop.session.command_arguments import Arguments, ModelArgument, Named, check
from neuroloop.session.inbox import Command
from neuroloop.session.loading import LoadRequest
from neuroloop.session.loop import Loop
from neuroloop.session.recent import BINS
from neuroloop.session.running import Loaded, ModelVersion


class _Load(Arguments):
    model: ModelArgument
    weights: bytes
    role: Literal["active", "shadow"] = "active"
    decoder: Name | None = None
    state: Literal["carry", "reprime", "cold"] = "carry"
    reprime_bins: int = Field(50, ge=1, le=BINS)


def load(loop: Loop, command: Command) -> None:
    given = check(_Load, command)
    model = ModelVersion(given.model.name, given.model.version, given.model.digest)
    loaded = Loaded(given.model.alias, given.state, given.reprime_bins)
    request = LoadRequest(model, given.weights, given.role, given.decoder, loaded)
    loop.swaps.load(request, command.reply)


def rollback(loop: Loop, command: Command) -> None:
    loop.swaps.rollback(command.reply)


def promote(loop: Loop, command: Command) -> None:
    loop.swaps.promote(check(Named, command).name, command.reply)


def remove(loop: Loop, command: Command) -> dict[str, Any]:
    removed = loop.swaps.remove(check(Named, command).name)
    return {"decoder": removed.name, "model": removed.identity()}
