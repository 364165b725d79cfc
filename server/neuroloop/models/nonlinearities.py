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
