"""The journal of a replay: it answers the loop with what the journal of the live session noted."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable, Sequence
from concurrent.futures import Future, wait
from math import nan
from typing import Any

import numpy as np

from neuroloop.errors import ModelError
from neuroloop.session.journal import Journal, Note
from neuroloop.session.recorder_streams import plain

SOLVE_S = 120.0
PLACED = ("command", "marker_label", "call", "stream", "overrun", "shed", "due")
IN_BLOCK = ("job", "update")  # work that comes into use inside a turn; all else is between two


class ReplayJournal(Journal):
    """Everything happens where it happened. to_come: what does, in its order.

    is_exact: between the same two blocks; otherwise after the same sample.
    """

    is_exact = True
    has_threads = False

    def __init__(self, notes: Iterable[Note]) -> None:
        super().__init__()
        notes = list(notes)
        self.to_come = deque(note for note in notes if note["kind"] in PLACED)
        self.weights: dict[int, str] = {}  # version of the rereference -> digest, as replayed
        self._offsets = deque((note["seq"], note["offset"]) for note in notes if note["kind"] == "clock_offset")
        self._steps = [note for note in notes if note["kind"] == "clock_step"]
        self._stale = {note["bin"] for note in notes if note["kind"] == "stale"}
        self._slow = {note["bin"] for note in notes if note["kind"] == "too_slow"}
        missed = [run for note in notes if note["kind"] == "encoders_missed" for run in note["bins"]]
        self._encoders_missed = {bin for first, after in missed for bin in range(first, after)}
        self._dropped: dict[int, deque[Note]] = defaultdict(deque)
        for note in notes:
            if note["kind"] == "shadow_dropped":
                self._dropped[note["shadow"]].append(note)
        self._now = 0.0

    def next_between_turns(self) -> Note | None:
        """The next note that a turn does not meet by itself."""
        return next((note for note in self.to_come if not _is_in_block(note)), None)

    def note(self, kind: str, **facts: Any) -> None:
        if kind == "rereference":
            self.weights[facts["version"]] = plain(np.asarray(facts["weights"]))["sha256"]

    def arrived(self, measured: float) -> float:
        return nan

    def clock_steps(self, ring: int) -> list[tuple[int, float]]:
        """Those that were found among the samples of a ring: count and corrected time."""
        return [(note["count"], note["time"]) for note in self._steps if note["ring"] == ring]

    def clock_offset(self, measured: float) -> float:
        while self._offsets and self._offsets[0][0] <= self._reached():
            self._now = self._offsets.popleft()[1]
        return self._now

    def _reached(self) -> int:
        return self.place.seq

    def is_due(self, what: str, number: int, block: int, result: Future[Any]) -> bool:
        head = self.to_come[0] if self.to_come else None
        if head is None or head["kind"] != "due":
            return False
        if (head["what"], head["number"], head["block"]) != (what, number, block):
            return False
        self.to_come.popleft()
        _await(result)
        return True

    def drops(self, shadow: int, given: int, is_full: bool) -> bool:
        noted = self._dropped[shadow]
        return len(noted) > 0 and noted[0]["items"] == given

    def dropped(self, shadow: int, given: int, waiting: Sequence[int]) -> None:
        if self.drops(shadow, given, False):
            self._dropped[shadow].popleft()

    def holds(self, shadow: int, number: int) -> bool:
        noted = self._dropped[shadow]
        return len(noted) > 0 and any(first <= number < after for first, after in noted[0]["waiting"])

    def encoders_miss(self, number: int) -> bool:
        return number in self._encoders_missed

    def is_stale(self, number: int, found: bool) -> bool:
        return number in self._stale

    def sheds(self, what: str, is_shed: bool) -> bool:
        return False  # when it is noted, and not by this machine's load

    def too_slow(self, number: int, found: bool) -> bool:
        return number in self._slow


class FreeJournal(ReplayJournal):
    """Of a session with other settings: work beside the loop comes into use at the first moment that is asked for."""

    is_exact = False

    def __init__(self, notes: Iterable[Note], keeps_decoder: bool) -> None:
        """keeps_decoder: nothing takes the place of the one that is active at the start."""
        notes = [note for note in notes if note["kind"] not in ("due", "too_slow", "shadow_dropped")]
        if keeps_decoder:
            notes = [
                note for note in notes if note["kind"] != "call" and not note.get("name", "").startswith("decoder_")
            ]
        super().__init__(notes)
        self._offsets = deque((note["given"], note["offset"]) for note in notes if note["kind"] == "clock_offset")

    def is_stale(self, number: int, found: bool) -> bool:
        return False

    def _reached(self) -> int:
        return self.place.given  # bins may be others, samples are the same

    def is_due(self, what: str, number: int, block: int, result: Future[Any]) -> bool:
        _await(result)
        return True


def _is_in_block(note: Note) -> bool:
    return note["kind"] == "due" and note["what"] in IN_BLOCK


def _await(result: Future[Any]) -> None:
    if wait([result], SOLVE_S).not_done:
        raise ModelError(f"replay: weights were not solved within {SOLVE_S:g} s")
