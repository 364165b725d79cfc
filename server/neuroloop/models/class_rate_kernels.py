"""One labelled sample more in the rates of the classes, see `class_rates`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from neuroloop.compiled import kernel

FORGOTTEN = 1e-280  # weight of a class; below it the sums run out of digits, after some 900 half-lives


@kernel
def add(
    sample: Any,
    index: int,
    kept: float,
    age: float,
    summed: bool,
    sums: Any,
    weights: Any,
    counts: Any,
    rates: Any,
) -> tuple[int, bool]:
    """Returns how many values are missing, and whether one is negative. Changes nothing where all are missing."""
    classes, features = sums.shape
    bad = signed = False
    for i in range(features):
        bad |= not abs(sample[i]) < np.inf
        signed |= sample[i] < 0
    missing = 0
    if bad:
        for i in range(features):
            missing += 0 if np.isfinite(sample[i]) else 1
        if missing == features:
            return missing, False
    if age != 1.0:
        for k in range(classes):
            weights[k] *= age
            for i in range(features):
                sums[k, i] *= age
    own = sums[index]
    if bad:
        for i in range(features):
            x = np.float64(sample[i])
            own[i] = kept * own[i] + (x if np.isfinite(x) else _stand_in(sums, weights, index, i))
    else:
        for i in range(features):
            own[i] = kept * own[i] + sample[i]
    weights[index] = kept * weights[index] + 1.0
    counts[index] += 1
    for k in range(0 if age != 1.0 else index, classes if age != 1.0 else index + 1):
        derive(sums[k], weights[k], summed, rates[k])
    return missing, signed


@kernel
def derive(sums: Any, weight: float, summed: bool, rates: Any) -> None:
    """The rates of one class from its sums, (features,)."""
    factor = 0.0 if weight <= FORGOTTEN else 1.0 if summed else 1.0 / weight
    for i in range(len(sums)):
        rates[i] = sums[i] * factor


@njit(nogil=True, error_model="numpy")
def _stand_in(sums: Any, weights: Any, index: int, feature: int) -> Any:
    """For a missing value: the mean of its class, or else the mean over the others."""
    if weights[index] > FORGOTTEN:
        return sums[index, feature] / weights[index]
    total, seen = 0.0, 0
    for k in range(len(weights)):
        if weights[k] > FORGOTTEN:
            total += sums[k, feature] / weights[k]
            seen += 1
    return total / max(seen, 1)
