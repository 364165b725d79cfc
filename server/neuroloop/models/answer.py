"""The answer of a linear readout to one rate vector, in one compiled call: 2 microseconds at 96 features, 8 classes.

Written as one kernel because it runs once a bin, with cold caches, between a bin's last sample and its prediction: the
same steps as a dozen numpy calls took 0.13 ms there.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

ANSWERED: Final = 0
MISSING: Final = 1
SILENT: Final = 2


@njit(cache=True, nogil=True, error_model="numpy")
def answer(
    rates: Any, matrix: Any, bias: Any, eligible: Any, speaks: Any, sharpness: float, values: Any, probability: Any
) -> tuple[int, int]:
    """Logits `rates @ matrix + bias` into `values`, their softmax over the eligible classes into `probability`.

    rates: (features,). matrix: (features, classes). speaks: (features,), 1 for features of which one must be active;
    empty where silence is evidence too. Returns what came of it, and the index of the best eligible class.
    """
    features, classes = matrix.shape
    for k in range(classes):
        values[k] = bias[k]
        probability[k] = 0.0
    spoken = len(speaks) == 0
    for i in range(features):
        x = np.float64(rates[i])
        if not np.isfinite(x):
            return MISSING, -1
        if x == 0.0:
            continue
        if not spoken and speaks[i] != 0.0:
            spoken = True
        for k in range(classes):
            values[k] += x * matrix[i, k]
    best, silent = -1, True
    for k in range(classes):
        silent &= values[k] == 0.0
        if eligible[k] and (best < 0 or values[k] > values[best]):
            best = k
    silent |= not spoken
    total = 0.0
    for k in range(classes):
        if eligible[k]:
            probability[k] = 1.0 if silent else np.exp((values[k] - values[best]) * sharpness)
            total += probability[k]
    for k in range(classes):
        probability[k] /= total
    return (SILENT if silent else ANSWERED), best
