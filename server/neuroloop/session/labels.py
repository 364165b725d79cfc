"""Labels: a class and an interval of LSL time. Rates are kept for the last 60 s, so a label may arrive late.

A label covers the bins whose centre lies in [start, end). When the last of them is complete, the online decoders learn
the mean of those bins that can be trusted (no gap, filters settled): one labelled sample per label, between two bins.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError

F32 = NDArray[np.float32]

HISTORY_S = 60.0
AHEAD_S = 60.0
PENDING = 256
REMEMBERED = 1024  # labels


@dataclass(frozen=True, slots=True)
class Label:
    """`label` holds from start to end, LSL seconds. request_id: of the request that said so, if any."""

    label: str
    index: int
    start: float
    end: float
    request_id: str | None = None


@dataclass(frozen=True, slots=True)
class Lesson:
    """What a label teaches: rates (features,), the mean over the bins of these `seq`. None: it cannot be learned."""

    label: Label
    rates: F32
    seqs: NDArray[np.int64]

    @property
    def bins(self) -> int:
        """How many."""
        return len(self.seqs)

    @property
    def refusal(self) -> str | None:
        """Why it cannot be learned, or None."""
        if self.bins:
            return None
        why = "gap, filters settling or thresholds calibrating"
        return f"label {self.label.label!r}: no bin of its interval can be trusted ({why})"


@dataclass(frozen=True, slots=True)
class Bins:
    """Consecutive bins: the first one's number, their values (bins, features), times of their centre, and trust."""

    first: int
    values: F32
    centers: NDArray[np.float64]
    usable: NDArray[np.bool_]


class RateHistory:
    """The values of the last 60 s of bins, by the time of their centre."""

    def __init__(self, features: int, bin_s: float) -> None:
        self.bin_s = bin_s
        self.size = max(2, math.ceil(HISTORY_S / bin_s))
        self._values = np.zeros((self.size, features), np.float32)
        self._centers = np.full(self.size, -np.inf)
        self._seqs = np.zeros(self.size, np.int64)
        self._usable = np.zeros(self.size, np.bool_)
        self.added = 0
        self.end = -np.inf

    @property
    def features(self) -> int:
        return self._values.shape[1]

    def rows(self, number: int, count: int) -> tuple[NDArray[Any], ...]:
        """Copies of so many bins from this number on, in any thread: numbers, `seq`, values, centres, trust.

        The loop may overwrite them meanwhile: those that are older than `first` afterwards count for nothing.
        """
        numbers = np.arange(number, number + count)
        rows = numbers % self.size
        return numbers, self._seqs[rows], self._values[rows], self._centers[rows], self._usable[rows]

    def restore(
        self,
        seqs: NDArray[np.int64],
        values: F32,
        centers: NDArray[Any],
        usable: NDArray[Any],
        end: float,
        number: int = 0,
    ) -> None:
        """These were the last bins, and nothing else is known. number: of the first of them."""
        count = min(len(seqs), self.size)
        number += len(seqs) - count
        rows = np.arange(number, number + count) % self.size
        self._centers[:], self._usable[:] = -np.inf, False
        for column, kept in (
            (self._seqs, seqs),
            (self._values, values),
            (self._centers, centers),
            (self._usable, usable),
        ):
            column[rows] = kept[len(kept) - count :]
        self.added, self.end = number + count, end

    def add(self, seq: int, end: float, values: F32, usable: bool) -> None:
        """A complete bin that ended at this LSL time."""
        row = self.added % self.size
        self._values[row] = values
        self._centers[row] = end - self.bin_s / 2
        self._seqs[row] = seq
        self._usable[row] = usable
        self.added += 1
        self.end = end

    @property
    def start(self) -> float:
        """LSL time from which on bins are kept."""
        if self.added == 0:
            return self.end
        oldest = self.added % self.size if self.added > self.size else 0
        return float(self._centers[oldest]) - self.bin_s / 2

    @property
    def first(self) -> int:
        """Number of the oldest bin that is kept; bins are counted from 0."""
        return max(0, self.added - self.size)

    def since(self, number: int, limit: int) -> Bins:
        """Copies of at most `limit` bins from this number on, or from the oldest that is kept."""
        first = max(number, self.first)
        rows = np.arange(first, max(first, min(first + limit, self.added))) % self.size
        return Bins(first, self._values[rows], self._centers[rows], self._usable[rows])

    def mean(self, start: float, end: float) -> tuple[F32, NDArray[np.int64]]:
        """Mean of the usable bins whose centre lies in [start, end), and their `seq`."""
        chosen = np.flatnonzero((self._centers >= start) & (self._centers < end) & self._usable)
        if len(chosen) == 0:
            return np.zeros(self._values.shape[1], np.float32), chosen
        mean: F32 = self._values[chosen].mean(axis=0, dtype=np.float64).astype(np.float32)
        return mean, self._seqs[chosen]


class Labels:
    """The labels of one session that wait for their last bin."""

    def __init__(self, classes: tuple[str, ...], window_s: float) -> None:
        self.learned = 0
        self.refused = 0
        self.recent: deque[Label] = deque(maxlen=REMEMBERED)
        self._classes = classes
        self._window_s = window_s
        self.waiting: list[Label] = []

    @property
    def pending(self) -> int:
        return len(self.waiting)

    @property
    def tally(self) -> dict[str, int]:
        """How many came to what."""
        return {"learned": self.learned, "refused": self.refused, "pending": self.pending}

    def submit(
        self,
        history: RateHistory,
        label: Any,
        start: float | None,
        end: float | None,
        request_id: str | None = None,
    ) -> Label:
        """Take a label in; without times it is for the window that just ended.

        Raises ModelError, and counts it as refused, for a label that is no class or an interval that cannot be learned.
        """
        try:
            checked = replace(self._check(history, label, start, end), request_id=request_id)
        except ModelError:
            self.refused += 1
            raise
        self.waiting.append(checked)
        self.recent.append(checked)
        return checked

    def _check(self, history: RateHistory, label: Any, start: float | None, end: float | None) -> Label:
        if label not in self._classes:
            raise ModelError(
                f"label: {label!r} is no class of this session; its classes are {', '.join(self._classes)}"
            )
        if start is None and end is None:
            if math.isinf(history.end):
                raise ModelError("label: no bin is complete yet, so no window has ended; wait for the stream")
            start, end = history.end - self._window_s, history.end
        if start is None or end is None:
            raise ModelError("label: expected both start and end in LSL seconds, or neither")
        if not (math.isfinite(start) and math.isfinite(end) and start < end):
            raise ModelError(f"label: expected start before end, both finite; got start {start}, end {end}")
        if end - start > HISTORY_S:
            raise ModelError(f"label: expected at most {HISTORY_S:g} s, got {end - start:.3f} s")
        if math.isfinite(history.end) and start < history.start - history.bin_s / 2:
            raise ModelError(
                f"label: starts at {start:.3f} s, but rates are kept from {history.start:.3f} s on "
                f"(the last {HISTORY_S:g} s at most)"
            )
        if math.isfinite(history.end) and end > history.end + AHEAD_S:
            raise ModelError(
                f"label: ends at {end:.3f} s, more than {AHEAD_S:g} s after the newest bin ({history.end:.3f} s)"
            )
        if len(self.waiting) >= PENDING:
            raise ModelError(f"label: {PENDING} labels wait for their last bin already")
        return Label(label, self._classes.index(label), float(start), float(end))

    def complete(self, history: RateHistory) -> list[Lesson]:
        """The labels whose last bin is complete, in the order of their ends."""
        if not self.waiting:
            return []
        done = [label for label in self.waiting if self._is_complete(history, label)]
        if done:
            self.waiting = [label for label in self.waiting if not self._is_complete(history, label)]
        lessons = [
            Lesson(label, *history.mean(label.start, label.end)) for label in sorted(done, key=lambda label: label.end)
        ]
        for lesson in lessons:
            if lesson.bins:
                self.learned += 1
            else:
                self.refused += 1
        return lessons

    def take_back(self) -> None:
        """A lesson of `complete` could not be learned."""
        self.learned -= 1
        self.refused += 1

    @staticmethod
    def _is_complete(history: RateHistory, label: Label) -> bool:
        """No bin to come can have its centre before the label's end."""
        return history.end + history.bin_s / 2 >= label.end

    def clear(self) -> list[Label]:
        """Forget the labels that wait; returns them."""
        forgotten, self.waiting = self.waiting, []
        self.refused += len(forgotten)
        return forgotten
