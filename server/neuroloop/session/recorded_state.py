"""The state of a session whose recording began while it ran: taken at a quiet moment, so that a replay begins there.

A note in the recording is at that moment's place, and another one, as soon as it has been put together beside the loop,
has the content. Where nothing can be taken for a while the reason is told; it is taken when it can be.
"""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

from neuroloop.errors import ModelError, Unavailable
from neuroloop.session import checkpoint
from neuroloop.session.inbox import Call
from neuroloop.session.loop_state import LoopState, lacking
from neuroloop.session.priority import Level, step_back

if TYPE_CHECKING:
    from neuroloop.session.loop import Loop

PATIENCE_S = 3.0
AGAIN_S = 1.0

Event = tuple[str, str, dict[str, Any]]


class RecordedState:
    """Of one recording. Called by the loop, unless noted. replays_from: the bin from which on it can be replayed."""

    def __init__(self, loop: Loop, recording: str) -> None:
        self.replays_from: int | None = None
        self.taken_ms = 0.0  # of the loop's time
        self._loop = loop
        self._recording = recording
        self._begun = loop.clock()
        self._due: float | None = self._begun  # None while one is put together, and when there is one
        self._lacks = "it has just begun"
        self._is_told = False
        self._number = 0  # of the last one
        self._has_ended = False

    def turn(self, now: float, more: bool) -> None:
        """Take it, if this is the moment. more: samples wait for the loop."""
        if self._due is None or now < self._due:
            return
        lacks = "samples wait for the loop" if more else lacking(self._loop)
        if lacks is None:
            self._take()
            return
        self._lacks = lacks
        if now > self._begun + PATIENCE_S:
            self._tell()

    def _take(self) -> None:
        began = time.perf_counter()
        state = LoopState(self._loop, self._loop.checkpoints.known)
        self.taken_ms = round(1000 * (time.perf_counter() - began), 3)
        self._due = None
        self._number += 1
        self._loop.journal.note("state", number=self._number)
        arguments = state, self._number
        threading.Thread(target=self._put_together, args=arguments, name="recorded-state", daemon=True).start()

    def _put_together(self, state: LoopState, number: int) -> None:
        """Beside the loop."""
        step_back(Level.BESIDE)
        try:
            content = b"".join(checkpoint.pack(state.tree()))
        except (ModelError, ValueError, TypeError, KeyError) as error:
            why = str(error) if isinstance(error, ModelError) else f"{type(error).__name__}: {error}"
            then = partial(self._fail, why)
        else:
            then = partial(self._keep, state.seq, number, content)
        with suppress(Unavailable):  # the session has ended
            self._loop.inbox.put(Call(then))

    def _keep(self, seq: int, number: int, content: bytes) -> None:
        if self._has_ended:
            return
        self.replays_from = seq
        self._loop.journal.note("state_content", number=number, content=content)
        detail = f"recording {self._recording!r} can be replayed from bin {seq} on"
        facts: dict[str, Any] = {"recording": self._recording, "first_seq": seq, "taken_ms": self.taken_ms}
        self._loop.event("recording_replayable", detail, **facts)

    def _fail(self, why: str) -> None:
        self._lacks, self._due = why, self._loop.clock() + AGAIN_S
        if not self._has_ended:
            self._tell()

    def _tell(self) -> None:
        """Once."""
        if not self._is_told:
            self._is_told = True
            detail = f"recording {self._recording!r} can't be replayed so far: {self._lacks}; it goes on trying"
            self._loop.event("recording_not_replayable", detail, recording=self._recording, why=self._lacks)

    def describe(self) -> dict[str, Any]:
        return {"replays_from": self.replays_from, "lacks": None if self.replays_from is not None else self._lacks}

    def end(self) -> None:
        """The recording takes nothing more."""
        self._has_ended, self._due = True, None
