"""From a cell's drive z to its rate: how LNP encoders turn a filtered stimulus into expected spikes.

    exp                     exp(z)
    softplus                log(1 + exp(z))
    parametrized_softplus   w softplus(a z + b)

The softplus is computed as `max(v, 0) + log1p(exp(-|v|))`, which neither overflows nor loses small rates. exp is held
at exp(80), about the largest that float32 has, so that a runaway cell says a very high rate and not infinity.
"""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
from numba import njit
from numpy.typing import NDArray

Nonlinearity = Literal["exp", "softplus", "parametrized_softplus"]
LARGEST = 80.0  # of a drive under exp


def rate(name: Nonlinearity, drive: NDArray[Any], a: Any = 1.0, b: Any = 0.0, w: Any = 1.0) -> NDArray[Any]:
    """The rate of each drive. a, b, w: broadcast against the drive; only the parametrised softplus has them."""
    if name == "exp":
        return np.asarray(np.exp(np.minimum(drive, LARGEST)))
    if name == "softplus":
        return np.asarray(np.logaddexp(drive, np.zeros((), drive.dtype)))
    return np.asarray(w * np.logaddexp(a * drive + b, np.zeros((), drive.dtype)))


def drive_of(name: Nonlinearity, rates: NDArray[Any], a: Any = 1.0, b: Any = 0.0, w: Any = 1.0) -> NDArray[Any]:
    """The drive that gives each rate, of rates above 0."""
    if name == "exp":
        return np.asarray(np.log(rates))
    if name == "softplus":
        a, b, w = 1.0, 0.0, 1.0
    return np.asarray((np.log(np.expm1(rates / w)) - b) / a)


def slope(name: Nonlinearity, drive: NDArray[Any], a: Any = 1.0, b: Any = 0.0, w: Any = 1.0) -> NDArray[Any]:
    """The derivative of the rate with respect to the drive."""
    if name == "exp":
        return np.asarray(np.exp(np.minimum(drive, LARGEST)))
    if name == "softplus":
        a, b, w = 1.0, 0.0, 1.0
    return np.asarray(w * a / (1.0 + np.exp(-(a * drive + b))))


@njit(cache=True, nogil=True, error_model="numpy")
def respond(exponential: bool, drive: Any, a: Any, b: Any, w: Any, rates: Any) -> None:
    """Rates of a bank. All: (cells,) float32; a = w = 1 and b = 0 for the plain softplus."""
    zero, largest = np.float32(0), np.float32(LARGEST)
    if exponential:
        for n in range(len(drive)):
            rates[n] = np.exp(min(drive[n], largest))
        return
    for n in range(len(drive)):
        v = a[n] * drive[n] + b[n]
        tail = np.log1p(np.exp(-abs(v)))
        rates[n] = w[n] * (max(v, zero) + tail)


@njit(cache=True, nogil=True, error_model="numpy")
def slopes(exponential: bool, drive: Any, a: Any, b: Any, w: Any, out: Any) -> None:
    """Derivatives of the rates with respect to the drives. All: (cells,) float32."""
    one, largest = np.float32(1), np.float32(LARGEST)
    for n in range(len(drive)):
        if exponential:
            out[n] = np.exp(min(drive[n], largest))
        else:
            out[n] = w[n] * a[n] / (one + np.exp(-(a[n] * drive[n] + b[n])))
