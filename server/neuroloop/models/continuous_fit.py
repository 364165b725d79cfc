"""Fits of ridge regression, by scikit-learn, and of the Kalman filter.

The filter's model is linear and Gaussian (Wu and others, 2003), of standardised features x and targets z about their
mean:

    z_t = A z_t-1 + w,  w ~ (0, W)        x_t = H z_t + q,  q ~ (0, Q)

all by least squares, Q shrunk towards its diagonal. The covariance P of the state before a bin is seen solves the
discrete Riccati equation; with the gain K = P H' (H P H' + Q)^-1 the state is

    z_t = (A - K H A) z_t-1 + K x_t.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from neuroloop.errors import ModelError
from neuroloop.models.continuous_settings import KalmanSettings, RidgeSettings
from neuroloop.models.fitted_state import Arrays
from neuroloop.models.linear_fit import sklearn, standardise

F64 = NDArray[np.float64]
Bins = NDArray[np.bool_]

PENALTIES = np.logspace(-2, 6, 17)
LEAST_NOISE = 1e-6  # of the mean variance, so that targets that follow from others have an inverse


def fit_ridge(settings: RidgeSettings, features: F64, targets: F64, follows: Bins) -> Arrays:
    """The arrays of `continuous_state` but the number of samples.

    features: (bins, features), targets: (bins, targets), both finite. follows: (bins,), a bin comes right after the
    one before it.
    """
    x, scale, mean = standardise(features)
    linear = sklearn("linear_model")
    if settings.penalty == "auto":
        selection = sklearn("model_selection")
        found = selection.GridSearchCV(linear.Ridge(), {"alpha": PENALTIES}, cv=selection.KFold(5)).fit(x, targets)
        model = found.best_estimator_
    else:
        model = linear.Ridge(alpha=settings.penalty).fit(x, targets)
    matrix = np.atleast_2d(model.coef_).T * scale[:, None]
    bias = np.atleast_1d(model.intercept_) - mean @ matrix
    return {"matrix": matrix, "bias": bias, "mean": np.zeros(targets.shape[1])}


def fit_kalman(settings: KalmanSettings, features: F64, targets: F64, follows: Bins) -> Arrays:
    """See `fit_ridge`. Raises ModelError where too few bins follow each other."""
    centre = targets.mean(axis=0)
    states = targets - centre
    if settings.velocity:
        change = np.diff(states, axis=0, prepend=states[:1])
        states, known = np.concatenate([states, change], axis=1), follows.copy()
    else:
        known = np.ones(len(states), np.bool_)
    after = np.flatnonzero(follows[1:] & known[1:] & known[:-1]) + 1
    if len(after) < 2 * states.shape[1]:
        raise ModelError(
            f"kalman: expected {2 * states.shape[1]} bins or more that follow on another one, got {len(after)}"
        )
    x, scale, mean = standardise(features)
    movement, drift = _regress(states[after - 1], states[after])
    drift[np.diag_indices_from(drift)] += LEAST_NOISE * np.trace(drift) / len(drift)
    observe, _ = _regress(states[known], x[known])
    noise = _shrunk(x[known] - states[known] @ observe.T, settings)
    before = linalg.solve_discrete_are(movement.T, observe.T, drift, noise)
    gain = linalg.solve(observe @ before @ observe.T + noise, observe @ before, assume_a="pos").T
    matrix = gain.T * scale[:, None]
    return {
        "matrix": matrix,
        "bias": -mean @ matrix,
        "mean": centre,
        "follow": movement,
        "correct": movement - gain @ observe @ movement,
    }


def _regress(inputs: F64, outputs: F64) -> tuple[F64, F64]:
    """Least squares through the origin: outputs = inputs @ matrix.T; the matrix, and the residual's covariance."""
    matrix = np.asarray(np.linalg.lstsq(inputs, outputs, rcond=None)[0].T, np.float64)
    return matrix, _covariance(outputs - inputs @ matrix.T)


def _shrunk(residual: F64, settings: KalmanSettings) -> F64:
    covariance = sklearn("covariance")
    found: F64
    if settings.shrinkage == "auto":
        found, _ = covariance.ledoit_wolf(residual, assume_centered=True)
    else:
        found = covariance.shrunk_covariance(_covariance(residual), settings.shrinkage)
    found[np.diag_indices_from(found)] += LEAST_NOISE * np.trace(found) / len(found)
    return found


def _covariance(residual: F64) -> F64:
    found: F64 = residual.T @ residual / len(residual)
    return found
