"""The rate vectors and the labels that decoders have just seen, for one that comes in later."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.session.running import Taught

F32 = NDArray[np.float32]

BINS = 512
LESSONS = 1024


class RecentBins:
    """The last 512 rate vectors since the last reset; each is counted."""

    def __init__(self, features: int) -> None:
        self.added = 0
        self._first = 0
        self._rates = np.zeros((BINS, features), np.float32)

    def add(self, rates: F32) -> None:
        self._rates[self.added % BINS] = rates
        self.added += 1

    def clear(self) -> None:
        """What comes next does not follow what came last."""
        self._first = self.added

    def since(self, number: int) -> F32:
        """A copy of those from this number on, oldest first, as far as they are kept: (bins, features)."""
        first = max(number, self._first, self.added - BINS)
        return self._rates[np.arange(first, self.added) % BINS]

    def state_dict(self) -> dict[str, Any]:
        return {"added": self.added, "first": self._first, "rates": self.since(0)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.added, self._first = int(state["added"]), int(state["first"])
        rows = np.arange(self.added - len(state["rates"]), self.added) % BINS
        self._rates[rows] = state["rates"]


class RecentLessons:
    """The last 1024 labels that were learned; each is counted."""

    def __init__(self) -> None:
        self.added = 0
        self._lessons: deque[Taught] = deque(maxlen=LESSONS)

    @property
    def first(self) -> int:
        """Number of the oldest that is kept."""
        return self.added - len(self._lessons)

    def restore(self, lessons: list[Taught], added: int) -> None:
        """These are the last of so many."""
        self._lessons.clear()
        self._lessons.extend(lessons)
        self.added = added

    def add(self, lesson: Taught) -> None:
        self._lessons.append(lesson)
        self.added += 1

    def since(self, number: int) -> list[Taught]:
        """Those from this number on, oldest first, as far as they are kept."""
        return list(self._lessons)[max(0, number - self.first) :]
