"""The front end for spatial filters: EEG -> the covariance between its channels in each band, per bin.

Features are the upper triangles of the matrices, band by band (`C3*C4:alpha`), so that their mean over the session's
window is the covariance of that window, and a spatial filter is a decoder like any other: fitted, swapped, rolled back.
They may be negative. There is no rereference: whatever it did to the channels, a spatial filter would undo.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.config import CovarianceSettings, SessionSettings, bin_samples
from neuroloop.errors import ConfigError
from neuroloop.signal.band_covariance import BandCovariance, covariance_features, pair_count
from neuroloop.signal.filter_design import settle_seconds

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

MOST_FEATURES = 1 << 16  # 60 s of them at 10 bins per second are 150 MB


class CovarianceFrontEnd:
    """A `front_ends.FrontEnd`."""

    rereference = None
    calibrated = True
    device = "cpu"
    gpu_memory_bytes = 0

    def __init__(
        self, session: SessionSettings, settings: CovarianceSettings, nominal_srate: float, channels: tuple[str, ...]
    ) -> None:
        """Raises ConfigError for more channels than there can be features of pairs."""
        count = len(settings.bands) * pair_count(len(channels))
        if count > MOST_FEATURES:
            raise ConfigError(
                f"front_end: covariance of {len(channels)} channels in {len(settings.bands)} bands is {count} "
                f"features; at most {MOST_FEATURES}: name fewer channels (stream.channels) or bands"
            )
        self.features = covariance_features(channels, tuple(settings.bands))
        self.settle_s = max(settle_seconds(band) for band in settings.bands.values())
        self._covariance = BandCovariance(settings.bands, settings.order, nominal_srate, len(channels), settings.notch)
        self._per_sample = 1.0 / bin_samples(session, nominal_srate)
        self._values = np.zeros(count, np.float32)
        self._fresh = True

    def step(self, block: F32, valid: bool) -> None:
        if self._fresh:
            self._covariance.prime(block[0])
            self._fresh = False
        self._covariance.add(block)

    def finish_bin(self) -> F32:
        self._covariance.take(self._per_sample, self._values)
        return self._values

    def accumulate(self) -> None:
        """Nothing is left to do."""

    def scale(self, factor: F64) -> None:
        """Nothing here depends on a rereference."""

    def interrupt(self) -> None:
        """The filters run on over what was filled in."""

    def reset(self) -> None:
        self._covariance.drop()
        self._fresh = True

    def state_dict(self) -> dict[str, Any]:
        return {"covariance": self._covariance.state_dict(), "fresh": self._fresh}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._covariance.load_state_dict(state["covariance"])
        self._fresh = bool(state["fresh"])
