"""Power per channel and band: each band's causal band-pass, then the sum of squares.

Filters run in float64 state: EEG rides on offsets and slow drifts thousands of times larger than a narrow band of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuroloop.compiled import kernel
from neuroloop.signal.filters import SosFilter, design_bandpass, design_notch

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
        self.bands = tuple(bands)
        self._notch = SosFilter(design_notch(notch, nominal_srate), channels, "double") if notch else None
        self._filters = [
            SosFilter(design_bandpass(band, order, nominal_srate), channels, "double") for band in bands.values()
        ]
        self._total = np.zeros((channels, len(self._filters)))
        self._out: F32 = np.zeros((channels, len(self._filters)), np.float32)
        _sum_of_squares(np.empty((0, channels), np.float32), 0, self._total)  # compiles it now

    def __call__(self, block: F32) -> F32:
        """(channels, bands) float32, in squared units of the samples, valid until the next call.

        Sums, so that a bin adds those of its blocks and divides by its samples.
        """
        if self._notch is not None:
            block = self._notch(block)
        for number, band in enumerate(self._filters):
            _sum_of_squares(band(block), number, self._total)
        self._out[:] = self._total
        return self._out

    def prime(self, sample: F32) -> None:
        """Start as if the channels had stood at these values for ever; see `SosFilter.prime`. sample: (channels,)."""
        if self._notch is not None:
            self._notch.prime(sample)  # passes a constant unchanged
        for band in self._filters:
            band.prime(sample)

    def reset(self) -> None:
        for band in self._all_filters():
            band.reset()

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {}
        for number, band in enumerate(self._all_filters()):
            state |= {f"{number}.{key}": value for key, value in band.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for number, band in enumerate(self._all_filters()):
            band.load_state_dict({"state": state[f"{number}.state"]})

    def _all_filters(self) -> list[SosFilter]:
        return self._filters if self._notch is None else [self._notch, *self._filters]


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
