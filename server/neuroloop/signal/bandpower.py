"""Power per channel and band: each band's causal band-pass (`band_filters`), then the sum of squares."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuroloop.compiled import kernel
from neuroloop.signal.band_filters import BandFilters

F32 = NDArray[np.float32]


@kernel
def _sum_of_squares(block: Any, band: int, total: Any) -> None:
    """block: (n, channels) float32; total: (channels, bands) float64, column `band` written."""
    for c in range(block.shape[1]):
        total[c, band] = 0.0
    for t in range(block.shape[0]):
        for c in range(block.shape[1]):
            x = np.float64(block[t, c])
            total[c, band] += x * x


class BandPower:
    """Sums of squares of the band-passed samples of each block.

    bands: name -> low and high edge in hertz; the order of the mapping is that of the result's columns.
    order, notch: as in `design_bandpass`; notches are applied once, before the bands part.
    """

    def __init__(
        self,
        bands: Mapping[str, tuple[float, float]],
        order: int,
        nominal_srate: float,
        channels: int,
        notch: Sequence[float] = (),
    ) -> None:
        self._filters = BandFilters(bands, order, nominal_srate, channels, notch)
        self.bands = self._filters.names
        self._total = np.zeros((channels, len(self.bands)))
        self._out: F32 = np.zeros((channels, len(self.bands)), np.float32)
        _sum_of_squares(np.empty((0, channels), np.float32), 0, self._total)  # compiles it now

    def __call__(self, block: F32) -> F32:
        """(channels, bands) float32, in squared units of the samples, valid until the next call.

        Sums, so that a bin adds those of its blocks and divides by its samples.
        """
        for number, filtered in enumerate(self._filters(block)):
            _sum_of_squares(filtered, number, self._total)
        self._out[:] = self._total
        return self._out

    def prime(self, sample: F32) -> None:
        """Start as if the channels had stood at these values for ever; see `SosFilter.prime`. sample: (channels,)."""
        self._filters.prime(sample)

    def reset(self) -> None:
        self._filters.reset()

    def state_dict(self) -> dict[str, Any]:
        return self._filters.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._filters.load_state_dict(state)


def scale_power(power: F32, scale: Literal["power", "relative", "log"]) -> F32:
    """Features from mean power, never negative.

    power: (channels, bands). relative: each band over the sum of the bands, 0 where that is 0. log: log(1 + power).
    """
    if scale == "power":
        return power
    features: F32 = np.zeros_like(power)
    if scale == "log":
        np.log1p(power, out=features)
    else:
        total = power.sum(axis=-1, keepdims=True)
        np.divide(power, total, out=features, where=total > 0)
    return features
