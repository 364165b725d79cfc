"""How well an encoder's rates fit the spikes that came, bin by bin: running scores of each cell that forget.

A bin that lies k bins back weighs d^k, d = 2^(-1 / half-life): the scores are those of about the last half-life, and
there is no window to keep. With r the expected and n the counted spikes of a bin, and means weighted likewise:

    correlation      cov(r, n) / sqrt(var(r) var(n))
    bits per spike   sum(n log2(r / mean(n)) - (r - mean(n)) / log 2) / sum(n), over the mean rate as a baseline
    residual         mean(n - r)

Means and products of deviations are updated as West (1979) does, so that a long stretch of a nearly constant rate loses
no digits. Cost: about 20 vector operations over the cells per bin.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models.lnp_losses import EPS

F64 = NDArray[np.float64]

LEAST_BINS = 2  # before there is a correlation
SUMS = ("weight", "rate", "count", "rate_square", "count_square", "product", "log")
LEAST_VARIANCE = 1e-24  # relative to the square of the mean; less is rounding


class EncoderScores:
    """Scores of a bank of cells. half_life: bins after which one counts half; infinity to forget nothing."""

    def __init__(self, cells: int, half_life: float) -> None:
        if not half_life > 0:
            raise ModelError(f"encoder scores: half_life: expected a number of bins above 0, got {half_life}")
        self.bins = 0
        self._cells = cells
        self._decay = 0.5 ** (1.0 / half_life)
        self._weight = 0.0
        self._rate, self._count = np.zeros(cells), np.zeros(cells)  # means
        self._rate_square, self._count_square, self._product = np.zeros(cells), np.zeros(cells), np.zeros(cells)
        self._log = np.zeros(cells)  # sum of n log r

    def add(self, rates: NDArray[Any], counts: NDArray[Any]) -> None:
        """A bin: expected spikes and spikes, (cells,) each. Raises ModelError, and counts nothing, for other shapes."""
        r, n = np.asarray(rates, np.float64), np.asarray(counts, np.float64)
        if r.shape != (self._cells,) or n.shape != (self._cells,):
            raise ModelError(f"encoder scores: expected ({self._cells},) rates and counts, got {r.shape} and {n.shape}")
        decay = self._decay
        self._weight = weight = decay * self._weight + 1.0
        off_rate, off_count = r - self._rate, n - self._count
        self._rate += off_rate / weight
        self._count += off_count / weight
        new_off_count = n - self._count
        self._rate_square = decay * self._rate_square + off_rate * (r - self._rate)
        self._count_square = decay * self._count_square + off_count * new_off_count
        self._product = decay * self._product + off_rate * new_off_count
        self._log = decay * self._log + n * np.log(r + EPS)
        self.bins += 1

    def state_dict(self) -> dict[str, Any]:
        """All that the scores of bins to come depend on, but for the half-life."""
        return {name: np.copy(getattr(self, f"_{name}")) for name in SUMS} | {"bins": self.bins}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another one of as many cells was. Raises ModelError, and changes nothing, for another size."""
        sums = {name: np.array(state[name], np.float64) for name in SUMS}
        shapes = {name: np.shape(getattr(self, f"_{name}")) for name in SUMS}
        for name, values in sums.items():
            if values.shape != shapes[name]:
                raise ModelError(f"encoder scores: {name}: expected shape {shapes[name]}, got {values.shape}")
        self.bins = int(state["bins"])
        for name, values in sums.items():
            setattr(self, f"_{name}", values if values.ndim else float(values))

    @property
    def correlation(self) -> F64:
        """Of each cell, (cells,); NaN where either did not vary."""
        rate_square, count_square = self._rate_square / self._scale, self._count_square / self._scale
        varies = (rate_square > LEAST_VARIANCE * self._rate**2) & (count_square > LEAST_VARIANCE * self._count**2)
        if self.bins < LEAST_BINS:
            varies[:] = False
        spread = np.sqrt(np.where(varies, self._rate_square * self._count_square, 1.0))
        return np.asarray(np.where(varies, self._product / spread, np.nan))

    @property
    def bits_per_spike(self) -> F64:
        """Of each cell, (cells,); NaN for one that was silent."""
        rates, spikes = self._weight * self._rate, self._weight * self._count
        gain = self._log - spikes * np.log(self._count + EPS) - rates + spikes
        silent = spikes <= 0
        return np.asarray(np.where(silent, np.nan, gain / np.where(silent, 1.0, spikes) / np.log(2)))

    @property
    def residual(self) -> F64:
        """Spikes per bin more than expected, of each cell, (cells,); NaN before the first bin."""
        return self._count - self._rate if self.bins else np.full(self._cells, np.nan)

    @property
    def _scale(self) -> float:
        return max(self._weight, 1.0)
