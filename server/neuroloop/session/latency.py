"""Latencies of the last minute of bins."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

KEPT = 3000


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
