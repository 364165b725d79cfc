"""The commands that load, roll back, promote and remove encoders."""

from __future__ import annotations

from typing import Literal

from neuroloop.config import Name
from neuroloop.session.command_arguments import Arguments, ModelArgument, Named, check
from neuroloop.session.encoder_loading import EncoderRequest
from neuroloop.session.inbox import Command
from neuroloop.session.loop import Loop
from neuroloop.session.running import ModelVersion


class _Load(Arguments):
    model: ModelArgument
    weights: bytes
    role: Literal["active", "shadow"] = "active"
    encoder: Name | None = None


def load(loop: Loop, command: Command) -> None:
    given = check(_Load, command)
    model = ModelVersion(given.model.name, given.model.version, given.model.digest)
    request = EncoderRequest(model, given.weights, given.role, given.encoder, given.model.alias)
    loop.encoders.load(request, command.reply)


def rollback(loop: Loop, command: Command) -> None:
    loop.encoders.rollback(command.reply)


def promote(loop: Loop, command: Command) -> None:
    loop.encoders.promote(check(Named, command).name, command.reply)


def remove(loop: Loop, command: Command) -> None:
    loop.encoders.remove(check(Named, command).name, command.reply)
