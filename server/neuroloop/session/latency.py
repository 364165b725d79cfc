"""Latencies: those of the last minute of bins, and how often each was how long since the session's process began."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any

import numpy as np

KEPT = 3000
EDGES_MS = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0, 1000.0, 5000.0)
"""Each the longest latency of its range; the last range, of all that are longer, has none."""


class Latency:
    """The last 3000 values of some figures that come together, in milliseconds."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._values = np.zeros((KEPT, len(names)))
        self.added = 0

    def add(self, *values: float) -> None:
        self._values[self.added % KEPT] = values
        self.added += 1

    def summary(self) -> dict[str, dict[str, float | None]]:
        """p50, p99 and max of each figure; None before the first."""
        values = self._values[: min(self.added, KEPT)]
        if len(values) == 0:
            return {name: {"p50": None, "p99": None, "max": None} for name in self._names}
        p50, p99, most = np.percentile(values, [50, 99, 100], axis=0).round(3).tolist()
        return {name: {"p50": p50[i], "p99": p99[i], "max": most[i]} for i, name in enumerate(self._names)}


class Histogram:
    """How many latencies fell into each range of `EDGES_MS`. An addition takes 0.2 microseconds, and no memory."""

    def __init__(self) -> None:
        self._counts = [0] * (len(EDGES_MS) + 1)
        self._sum_ms = 0.0

    def add(self, milliseconds: float) -> None:
        self._counts[bisect_left(EDGES_MS, milliseconds)] += 1
        self._sum_ms += milliseconds

    def describe(self) -> dict[str, Any]:
        return {"counts": list(self._counts), "sum_ms": round(self._sum_ms, 3)}
