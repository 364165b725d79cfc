"""The commands that start, stop and annotate a session's recording."""

from __future__ import annotations

from typing import Any

from pydantic import Field, FiniteFloat

from neuroloop.session.command_arguments import Arguments, check
from neuroloop.session.inbox import Command
from neuroloop.session.loop import Loop


class _Annotation(Arguments):
    text: str = Field(min_length=1, max_length=4096)
    time: FiniteFloat | None = None


def start(loop: Loop, command: Command) -> None:
    loop.recordings.start(command.reply)


def stop(loop: Loop, command: Command) -> None:
    loop.recordings.stop(command.reply)


def annotate(loop: Loop, command: Command) -> dict[str, Any]:
    given = check(_Annotation, command)
    return loop.recordings.annotate(given.text, loop.clock() if given.time is None else given.time)
