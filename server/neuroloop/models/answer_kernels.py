"""The answer of a decoder on class rates to one rate vector, once a bin. Input is checked at the entrance, `online`."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from neuroloop.compiled import kernel

ANSWERED: Final = 0
MISSING: Final = 1
SILENT: Final = 2


@njit(nogil=True, error_model="numpy")
def _softmax(values: Any, eligible: Any, sharpness: float, spoken: bool, probability: Any) -> tuple[int, int]:
    """Returns what came of it, and the best class. eligible: more than 0 for classes that can be the answer."""
    best, silent = -1, True
    for k in range(len(values)):
        silent &= values[k] == 0.0
        if eligible[k] > 0 and (best < 0 or values[k] > values[best]):
            best = k
    silent |= not spoken
    total = 0.0
    for k in range(len(values)):
        probability[k] = 0.0
        if eligible[k] > 0:
            probability[k] = 1.0 if silent else np.exp((values[k] - values[best]) * sharpness)
            total += probability[k]
    if best >= 0:
        for k in range(len(values)):
            probability[k] /= total
    return (SILENT if silent else ANSWERED), best


@kernel
def answer_by_product(
    rates: Any, matrix: Any, bias: Any, eligible: Any, sharpness: float, values: Any, probability: Any
) -> tuple[int, int]:
    """See `Readout`."""
    features, classes = matrix.shape
    for k in range(classes):
        values[k] = bias[k]
    for i in range(features):
        x = np.float64(rates[i])
        if not np.isfinite(x):
            return MISSING, -1
        if x != 0.0:
            for k in range(classes):
                values[k] += x * matrix[i, k]
    return _softmax(values, eligible, sharpness, True, probability)


@kernel
def answer_by_votes(
    rates: Any, terms: Any, scale: Any, sharpness: float, values: Any, probability: Any
) -> tuple[int, int]:
    """See `Votes`."""
    if not tally(rates, terms, scale, values):
        return MISSING, -1
    spoken = False
    for i in range(len(rates)):
        if rates[i] != 0 and terms[0, i] < len(scale):
            spoken = True
            break
    return _softmax(values, scale, sharpness, spoken, probability)


@njit(nogil=True, error_model="numpy")
def tally(rates: Any, terms: Any, scale: Any, values: Any) -> bool:
    """Logits into `values`; whether no rate is missing."""
    features, classes = len(rates), len(scale)
    owners, votes, centers = terms[0], terms[1], terms[2]
    total, deviation = np.zeros(classes + 1), np.empty(features)
    for i in range(features):  # apart from the additions, which are no vector instructions
        deviation[i] = np.float64(votes[i]) * (np.float64(rates[i]) - np.float64(centers[i]))
    for i in range(features):
        total[np.uint32(owners[i])] += deviation[i]
    # A rate that is not finite makes the total of its owner, or of the features without one, so too.
    finite = np.isfinite(total[classes])
    for k in range(classes):
        values[k] = scale[k] * total[k]
        finite &= np.isfinite(total[k])
    return bool(finite)
