"""Common spatial patterns: filters over the channels whose power tells the classes apart, and LDA on its logarithm.

    logit = LDA( log w' C w ),    C the covariance of a band over the window, w its filters

Features are those of the front end `covariance`, whose mean over a window is C; so one decoder covers what is elsewhere
a pipeline of its own, and can be fitted, swapped and rolled back like any other. `csp_fit` finds filters and LDA.

Cost: bands x filters x channels^2 / 2 multiply-adds: 12 filters of 64 channels take 25 000.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.models.csp_kernels import log_powers
from neuroloop.models.fitted import FittedDecoder
from neuroloop.models.fitted_settings import CSPSettings
from neuroloop.models.fitted_state import Arrays

F64 = NDArray[np.float64]


class CSP(FittedDecoder):
    """Answers by the power behind spatial filters."""

    kind = "csp"
    settings_model = CSPSettings
    settings: CSPSettings

    def _compile(self, dtype: type[np.floating[Any]] = np.float64) -> None:
        super()._compile(dtype)
        log_powers(np.ones(1, np.float32), np.ones((1, 1, 1)), np.empty(1))

    def _prepare(self, arrays: Arrays) -> None:
        self._spatial = np.ascontiguousarray(arrays["spatial"])

    def inputs(self, rates: NDArray[Any]) -> F64:
        """Log-power behind each filter, (bands * filters,)."""
        powers = np.empty(self._spatial.shape[0] * self._spatial.shape[1])
        log_powers(rates, self._spatial, powers)
        return powers

    def _why_not(self, sample: NDArray[Any]) -> str:
        if np.isfinite(sample).all():
            return "no evidence: there is no power behind a spatial filter; are channels flat?"
        return super()._why_not(sample)
