"""Classes from covariances as points of a curved space: logistic regression in the tangent space at their mean.

    logit = readout( tangent at M of C + ridge ),    C the covariance of a band over the window, M the geometric mean

`riemannian` has the geometry, `riemann_fit` the fit. Features are those of the front end `covariance`, as for `csp`,
which looks along a few directions; here all of the covariance counts, and nothing is lost that mixing the channels by
any matrix could bring back (but for the ridge, which is the same on every channel).

Cost: an eigendecomposition per band, O(channels^3), by LAPACK; 63 microseconds for 4 channels in 2 bands, 0.15 ms for
32 channels in one, 0.42 ms for 64.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.models.fitted import FittedDecoder
from neuroloop.models.fitted_settings import RiemannSettings
from neuroloop.models.fitted_state import Arrays
from neuroloop.models.riemannian import loaded, tangent

F64 = NDArray[np.float64]


class Riemann(FittedDecoder):
    """Answers by where a covariance lies relative to the mean of those that it was fitted on."""

    kind = "riemann"
    settings_model = RiemannSettings
    settings: RiemannSettings

    def _compile(self, dtype: type[np.floating[Any]] = np.float64) -> None:
        super()._compile(dtype)

    def _prepare(self, arrays: Arrays) -> None:
        self._whiten = np.ascontiguousarray(arrays["whiten"])
        bands, channels, _ = self._whiten.shape
        self._rows, self._columns = np.triu_indices(channels)
        self._matrices = np.zeros((bands, channels, channels))

    def inputs(self, rates: NDArray[Any]) -> F64:
        """Coordinates in the tangent spaces, (bands * pairs,)."""
        if not np.isfinite(rates).all():
            return np.full(self.features, np.nan)  # LAPACK might never end
        triangles = np.reshape(rates, (len(self._matrices), -1))
        self._matrices[:, self._rows, self._columns] = self._matrices[:, self._columns, self._rows] = triangles
        return tangent(loaded(self._matrices, self.settings.ridge), self._whiten).reshape(-1)

    def _why_not(self, sample: NDArray[Any]) -> str:
        if np.isfinite(sample).all():
            return "no evidence: these are no covariances with power in every band; are channels flat?"
        return super()._why_not(sample)
