"""A block as it is in each of several bands: notches once, then each band's causal band-pass.

Filters run in float64 state: EEG rides on offsets and slow drifts thousands of times larger than a narrow band of it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.signal.filter_design import design_bandpass, design_notch
from neuroloop.signal.filters import SosFilter

F32 = NDArray[np.float32]


class BandFilters:
    """bands: name -> low and high edge in hertz. order, notch: as in `design_bandpass`."""

    def __init__(
        self,
        bands: Mapping[str, tuple[float, float]],
        order: int,
        nominal_srate: float,
        channels: int,
        notch: Sequence[float] = (),
    ) -> None:
        self.names = tuple(bands)
        designs = [design_bandpass(band, order, nominal_srate) for band in bands.values()]
        self._bands = [SosFilter(design, channels, "double") for design in designs]
        self._notch = SosFilter(design_notch(notch, nominal_srate), channels, "double") if notch else None
        self._all = self._bands if self._notch is None else [self._notch, *self._bands]

    def __call__(self, block: F32) -> Iterator[F32]:
        """The block, (n, channels), in each band; one is valid until the next call."""
        if self._notch is not None:
            block = self._notch(block)
        for band in self._bands:
            yield band(block)

    def prime(self, sample: F32) -> None:
        """Start as if the channels had stood at these values for ever; see `SosFilter.prime`. sample: (channels,)."""
        for one in self._all:  # a notch passes a constant unchanged
            one.prime(sample)

    def reset(self) -> None:
        for one in self._all:
            one.reset()

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {}
        for number, one in enumerate(self._all):
            state |= {f"{number}.{key}": value for key, value in one.state_dict().items()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for number, one in enumerate(self._all):
            one.load_state_dict({"state": state[f"{number}.state"]})
