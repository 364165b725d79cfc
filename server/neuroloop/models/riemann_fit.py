"""Fitting `riemann`: the geometric mean of each band's covariances, and logistic regression in the tangent space there.

Coordinates are not standardised: their lengths are distances, and those of all bands are alike. Each covariance has a
ridge, a share of its own mean power on every channel, since a window of band-passed samples says little about the
directions in which there is the least power. 1e-2 and a penalty of 1 did best, or as well as any, on recordings of
flicker and of imagined movement, leaving out one run of those to learn from at a time (0.990 and 0.967).
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models.csp_fit import matrices
from neuroloop.models.fitted_settings import RiemannSettings
from neuroloop.models.fitted_state import Arrays
from neuroloop.models.linear_fit import fit_logistic_as_it_is
from neuroloop.models.riemannian import geometric_mean, inverse_root, loaded, tangent

F64 = NDArray[np.float64]
Indices = NDArray[np.intp]


def fit_riemann(settings: RiemannSettings, features: F64, labels: Indices, classes: int) -> Arrays:
    """whiten, matrix and bias of `fitted_state`.

    features: (trials, bands * pairs), finite; labels: of two classes or more. Raises ModelError for features that are
    no covariances.
    """
    assert settings.bands is not None
    whiten, coordinates = [], []
    for band in loaded(matrices(features, settings.bands, "riemann"), settings.ridge):
        try:
            mean = geometric_mean(band)
        except ModelError as error:
            raise ModelError(f"riemann: {error}; are channels flat?") from error
        whiten.append(inverse_root(mean))
        coordinates.append(tangent(band, whiten[-1]))
    readout = fit_logistic_as_it_is(settings, np.concatenate(coordinates, axis=1), labels, classes)
    return {"whiten": np.stack(whiten)} | readout
