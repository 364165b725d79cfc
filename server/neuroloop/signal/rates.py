"""The rate vector: mean of the last bins."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]


class RateWindow:
    """Mean over the last `window` bins of each feature; over fewer at first.

    A running sum in float64, taken anew each time the window has gone round, so that rounding never builds up:
    O(features) per bin, and O(features * window) once per window.
    """

    def __init__(self, features: int, window: int) -> None:
        self.features = features
        self.window = window
        self._ring: F32 = np.zeros((window, features), np.float32)
        self._sum = np.zeros(features)
        self._scratch = np.zeros(features)
        self._mean: F32 = np.zeros(features, np.float32)
        self._pushed = 0

    @property
    def filled(self) -> int:
        """Bins that the mean covers."""
        return min(self._pushed, self.window)

    @property
    def mean(self) -> F32:
        """The mean as it stands, (features,) float32, valid until the next push; 0 before the first."""
        return self._mean

    def push(self, values: F32) -> F32:
        """Take a bin's values in, (features,); returns the mean, (features,) float32, valid until the next call."""
        row = self._pushed % self.window
        if self._pushed >= self.window:
            self._sum -= self._ring[row]
        self._ring[row] = values
        self._sum += self._ring[row]
        self._pushed += 1
        if row == self.window - 1:
            np.sum(self._ring, axis=0, dtype=np.float64, out=self._sum)
        np.divide(self._sum, self.filled, out=self._scratch)
        self._mean[:] = self._scratch
        return self._mean

    def reset(self) -> None:
        """Forget the bins."""
        self._ring[:] = 0
        self._sum[:] = 0
        self._mean[:] = 0
        self._pushed = 0

    def state_dict(self) -> dict[str, Any]:
        return {"ring": self._ring.copy(), "sum": self._sum.copy(), "pushed": self._pushed}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._ring[:] = state["ring"]
        self._sum[:] = state["sum"]
        self._pushed = int(state["pushed"])
        self._mean[:] = self._sum / max(self.filled, 1)
