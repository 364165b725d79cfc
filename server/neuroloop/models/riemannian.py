"""The geometry of covariance matrices: symmetric, positive definite, as points of a curved space.

    distance(A, B) = | log(A^-1/2 B A^-1/2) |            the same of W A W' and W B W' for any W that has an inverse
    geometric mean = the point whose squared distances to all add up to the least
    tangent(C)     = upper triangle of log(M^-1/2 C M^-1/2), off the diagonal times sqrt(2)

In the tangent space at M, lengths are distances to M, so that what is linear there respects the geometry. The mean has
no formula of its own, but where all matrices commute: then its eigenvalues are the geometric means of theirs. It is
found as the fixed point of

    M <- M^1/2 exp(s mean log(M^-1/2 C M^-1/2)) M^1/2,

from the arithmetic mean on, with s = 1, and half of it wherever a step would make that mean larger (Moakher, 2005;
Barachant and others, 2012).
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError

F64 = NDArray[np.float64]

TOLERANCE = 1e-9  # of the mean logarithm, per root of the size
MOST_STEPS = 100


def apply(function: Callable[[F64], F64], matrices: F64) -> F64:
    """A function of the eigenvalues of symmetric matrices, (..., channels, channels)."""
    values, vectors = np.linalg.eigh(matrices)
    found: F64 = (vectors * function(values)[..., None, :]) @ np.swapaxes(vectors, -1, -2)
    return found


def inverse_root(matrices: F64) -> F64:
    """M^-1/2 of positive definite matrices."""
    return apply(lambda values: 1.0 / np.sqrt(values), matrices)


def logarithm(matrices: F64) -> F64:
    """Of positive definite matrices; NaN or infinite where one is not."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return apply(np.log, matrices)


def distance(one: F64, other: F64) -> float:
    """Between two positive definite matrices."""
    whiten = inverse_root(one)
    return float(np.linalg.norm(logarithm(whiten @ other @ whiten)))


def geometric_mean(matrices: F64) -> F64:
    """Of positive definite matrices, (count, channels, channels).

    Raises ModelError where one is not positive definite, or none is found.
    """
    least = float(np.linalg.eigvalsh(matrices).min())
    if not least > 0:
        raise ModelError(f"geometric mean: expected positive definite matrices, got an eigenvalue of {least:g}")
    mean: F64 = matrices.mean(axis=0)
    step, before = 1.0, np.inf
    size = np.sqrt(mean.shape[0])
    for _ in range(MOST_STEPS):
        root, whiten = apply(np.sqrt, mean), inverse_root(mean)
        away = logarithm(whiten @ matrices @ whiten).mean(axis=0)
        length = float(np.linalg.norm(away)) / size
        if length < TOLERANCE:
            return mean
        if length > before:
            step /= 2
        before = length
        mean = root @ apply(np.exp, step * away) @ root
        mean = (mean + mean.T) / 2
    raise ModelError(f"geometric mean: not found in {MOST_STEPS} steps; the covariances are too far apart, or flat")


def tangent(matrices: F64, whiten: F64) -> F64:
    """Coordinates, (..., pairs), of matrices in the tangent space at M, given `whiten`, M^-1/2."""
    logs = logarithm(whiten @ matrices @ whiten)
    rows, columns = np.triu_indices(logs.shape[-1])
    found: F64 = logs[..., rows, columns] * np.where(rows == columns, 1.0, np.sqrt(2.0))
    return found


def loaded(matrices: F64, ridge: float) -> F64:
    """With a share of the mean power added to the power of every channel: positive definite, unless all are flat."""
    size = matrices.shape[-1]
    power = np.trace(matrices, axis1=-2, axis2=-1) / size
    found: F64 = matrices + ridge * power[..., None, None] * np.eye(size)
    return found
