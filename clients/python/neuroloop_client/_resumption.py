"""Where a client is in a session's stream, so that another connection goes on there: no input, no output, no clock.

It asks for the newest bin that it knows again and leaves out what it has of it: a bin may have several messages, the
connection may have broken between two, and the answers of shadows may come after newer bins.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any, cast

from neuroloop_client._http import Map, NeuroloopClientError
from neuroloop_client.messages import Message, NewRun

IDENTITY = ("type", "seq", "decoder", "encoder", "event", "time")
KNOWN_LENGTH = 4096  # messages; more than come between the first two messages of neighbouring bins
FIRST_DELAY_S = 0.1
LONGEST_DELAY_S = 2.0


class Resumption:
    """The run, the newest bin, and the last messages by what tells them apart."""

    def __init__(self) -> None:
        self.run: str | None = None
        self._seq: int | None = None
        self._known: dict[tuple[Any, ...], None] = {}
        self._resumes = False
        self._new_run: NewRun | None = None

    def query(self) -> Map:
        """What to ask the server for."""
        return {} if self._seq is None else {"resume_from": self._seq, "run": self.run}

    def opened(self, run: str) -> None:
        """There is a connection to this run of the session."""
        self._resumes = self._seq is not None
        if self.run is not None and self.run != run:
            self._new_run = {"type": "new_run", "run": run, "previous_run": self.run}
            self._forget()
        self.run = run

    def may_try_again(self, error: NeuroloopClientError) -> bool:
        """Whether another attempt can succeed; after 409, one without the bin."""
        if error.status == 409:
            self._forget()
        return error.status in (None, 409, 503)

    def take_new_run(self) -> NewRun | None:
        """What comes before the first message of another run."""
        told, self._new_run = self._new_run, None
        return told

    def take(self, message: Map) -> Message | None:
        """The message, or None if it is known already."""
        if message["type"] == "lagged" and self._resumes and self._seq is not None:
            missed = message["oldest_seq"] - self._seq - 1  # of bin `_seq`, something is known
            return cast(Message, message | {"missed": missed}) if missed > 0 else None
        seq: Any = message.get("seq")
        if seq is None:
            return cast(Message, message)
        if self._seq is None or seq > self._seq:
            self._seq, self._resumes = seq, False
        key = tuple(message.get(member) for member in IDENTITY)
        if self._resumes and key in self._known:
            return None
        self._known[key] = None
        if len(self._known) > KNOWN_LENGTH:
            del self._known[next(iter(self._known))]
        return cast(Message, message)

    def _forget(self) -> None:
        self._seq, self._known, self._resumes = None, {}, False


def delays(patience_s: float) -> Iterator[float]:
    """Seconds to wait before each attempt, until there is no patience left."""
    end, delay = time.monotonic() + patience_s, 0.0
    while time.monotonic() + delay < end:
        yield delay
        delay = min(2 * delay or FIRST_DELAY_S, LONGEST_DELAY_S)
