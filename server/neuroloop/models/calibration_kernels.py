"""The sharpness of the softmax from past trials, see `calibration`; once a labelled trial."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from neuroloop.compiled import kernel

STEP = 0.01  # of the sharpness: Newton's last one

# Typed, since an untyped number would make float64 of the float32 that it meets.
_ZERO, _ONE, _HALF, _LOG2E, _LN2, _LOWEST = map(np.float32, (0.0, 1.0, 0.5, 1.4426950408889634, np.log(2), -80.0))
_C2, _C3, _C4, _C5, _C6 = map(np.float32, (1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720))
_BIAS, _MANTISSA = np.int32(127), np.int32(23)


@njit(nogil=True, error_model="numpy", fastmath={"contract", "nnan", "nsz"})
def exp_of_negative(x: Any) -> Any:
    """e to the x <= 0, float32, that a compiler can vectorise: within 4e-7 relative above -1, 1e-7 |x| below.

    x = n ln 2 + r, |r| <= ln(2) / 2: a Taylor polynomial in r of order 6, then n added to the exponent's bits.
    x is at least -80.
    """
    n = np.int32(x * _LOG2E - _HALF)
    r = x - np.float32(n) * _LN2
    p = _ONE + r * (_ONE + r * (_C2 + r * (_C3 + r * (_C4 + r * (_C5 + r * _C6)))))
    return p * np.int32((n + _BIAS) << _MANTISSA).view(np.float32)


@njit(nogil=True, error_model="numpy", fastmath={"contract", "nnan", "nsz", "reassoc"})
def _slopes(logits: Any, sharpness: float, total: Any, first: Any, second: Any) -> tuple[float, float]:
    """Sums over the trials of the mean of u = b z under the softmax, and of its variance. The rest is scratch."""
    trials = len(total)
    b = np.float32(sharpness)
    total[:] = _ZERO
    first[:] = _ZERO
    second[:] = _ZERO
    for k in range(len(logits)):
        row = logits[k]
        for t in range(trials):
            u = max(row[t] * b, _LOWEST)  # e^-80 of a class that could not be the answer is nothing beside the best's 1
            e = exp_of_negative(u)
            total[t] += e
            e *= u
            first[t] += e
            second[t] += e * u
    mean = variance = 0.0
    for t in range(trials):
        part = _ONE / total[t]
        m = first[t] * part
        mean += m
        variance += second[t] * part - m * m
    return mean, variance


@njit(nogil=True, error_model="numpy", fastmath={"reassoc"})
def _sum(values: Any, count: int) -> float:
    """Of the first so many; the compiler may add in vectors, which takes a fifth of the time."""
    total = 0.0
    for t in range(count):
        total += values[t]
    return total


@njit(nogil=True, error_model="numpy")
def _expectation(logits: Any, trial: int, label: int) -> tuple[float, float]:
    """The logit of a trial's label, and the mean over the classes that could be the answer."""
    total, eligible = 0.0, 0
    for k in range(len(logits)):
        z = logits[k, trial]
        if z > -np.inf:
            total += z
            eligible += 1
    return np.float64(logits[label, trial]), total / eligible


@kernel
def expectations(logits: Any, labels: Any) -> Any:
    """`own` and `even` of `Trials` for every trial, (2, trials); logits: (classes, trials)."""
    out = np.empty((2, len(labels)))
    for t in range(len(labels)):
        out[0, t], out[1, t] = _expectation(logits, t, labels[t])
    return out


@kernel
def fit_sharpness(logits: Any, own: Any, even: Any, trials: int, start: float) -> float:
    """The b of `calibration`, over the first so many trials.

    logits: (classes, >= trials) float32, the largest of each trial 0, -inf where a class could not be the answer.
    own, even: (>= trials,), see `expectations`. start: a first guess; 0 for none.
    """
    chance = _sum(even, trials)
    target = (trials * _sum(own, trials) + chance) / (trials + 1)
    if chance >= target:
        return 0.0
    sharpness = start
    if sharpness == 0.0:
        deepest = 0.0
        for z in logits[:, :trials].flat:
            if z > -np.inf:
                deepest = min(deepest, z)
        sharpness = -1.0 / deepest
    scratch = np.empty((3, trials), np.float32)
    low, high = 0.0, np.inf
    for _ in range(60):
        mean, variance = _slopes(logits, sharpness, scratch[0], scratch[1], scratch[2])
        slope = mean - sharpness * target
        if slope > 0:
            high = sharpness
        else:
            low = sharpness
        following = sharpness - sharpness * slope / variance if variance > 0 else high
        inside = low < following < high
        if not inside:
            following = 2 * sharpness if high == np.inf else (low + high) / 2
        step = abs(following - sharpness)
        sharpness = following
        if inside and step <= STEP * sharpness:
            break
    return sharpness


@kernel
def observe(
    values: Any, eligible: Any, label: int, logits: Any, own: Any, even: Any, count: int, sharpness: float
) -> float:
    """Put a trial into the ring of `Trials`; returns the sharpness with it."""
    classes, capacity = logits.shape
    slot = count % capacity
    largest = -np.inf
    for k in range(classes):
        if eligible[k] > 0.0:
            largest = max(largest, values[k])
    for k in range(classes):
        logits[k, slot] = max(values[k] - largest, -1e30) if eligible[k] > 0.0 else -np.inf
    own[slot], even[slot] = _expectation(logits, slot, label)
    filled = min(count + 1, capacity)
    return float(fit_sharpness(logits, own, even, filled, sharpness))
