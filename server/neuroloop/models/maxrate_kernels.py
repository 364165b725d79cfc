"""What MaxRate's classes vote with, from their rates; and a whole labelled trial of it in one call."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from neuroloop.compiled import kernel
from neuroloop.models.answer_kernels import tally
from neuroloop.models.calibration_kernels import observe
from neuroloop.models.class_rate_kernels import FORGOTTEN, add

_ZERO, _ONE = map(np.float32, (0.0, 1.0))  # typed, since an untyped number would make float64 of the float32 it meets


@kernel
def vote(
    rates: Any,
    sums: Any,
    weights: Any,
    signed: bool,
    summed: bool,
    normalize: int,
    proportional: bool,
    silent_first: bool,
    terms: Any,
    scale: Any,
) -> tuple[int, int]:
    """Fill terms and scale of `Votes`. Returns how many classes were seen, and how many own a feature."""
    classes, features = rates.shape
    seen = 0
    for k in range(classes):
        seen += 1 if weights[k] > FORGOTTEN else 0
    owners, votes, center = terms[0], terms[1], terms[2]
    total, level = np.empty(features, np.float32), center
    _compare(rates, total, votes, owners)
    if normalize != 0 and (summed or signed):
        level = np.empty(features, np.float32)
        _average(sums, weights, seen, center, level)
    else:
        share = np.float32(1.0 / max(seen, 1))
        for i in range(features):
            center[i] = total[i] * share
    nobody = np.float32(0 if silent_first and seen else classes)
    for i in range(features):
        owners[i] = owners[i] if total[i] > _ZERO else nobody
    if proportional:
        for i in range(features):
            votes[i] /= total[i] if total[i] > _ZERO else _ONE
    else:
        for i in range(features):
            votes[i] = _ONE if owners[i] < np.float32(classes) else _ZERO
    if normalize == 1:
        for i in range(features):
            votes[i] /= level[i] if level[i] > _ZERO else _ONE
    if normalize == 2:
        for i in range(features):
            votes[i] /= np.sqrt(level[i]) if level[i] > _ZERO else _ONE
    else:
        center[:] = 0
    counts = np.zeros(classes + 1, np.int64)
    for i in range(features):
        counts[np.uint32(owners[i])] += 1
    eligible = 0
    for k in range(classes):
        n = np.float64(counts[k])
        scale[k] = 0.0 if n == 0.0 else 1.0 / np.sqrt(n) if normalize == 2 else 1.0 / n
        eligible += 1 if n > 0.0 else 0
    return seen, eligible


@njit(nogil=True, error_model="numpy", fastmath={"nnan", "nsz"})
def _compare(rates: Any, total: Any, best: Any, owners: Any) -> None:
    """Per feature the sum of the magnitudes of its rates, the largest of them, and the first class that has it.

    Two classes at a time: what a feature has so far is then loaded and stored half as often.
    """
    classes, features = rates.shape
    row = rates[0]
    for i in range(features):
        total[i] = abs(row[i])
        best[i] = row[i]
        owners[i] = 0
    for k in range(1, classes - 1, 2):
        one, other, first, second = rates[k], rates[k + 1], np.float32(k), np.float32(k + 1)
        for i in range(features):
            r, q = one[i], other[i]
            total[i] += abs(r) + abs(q)
            largest, owner = best[i], owners[i]
            owner = first if r > largest else owner
            largest = r if r > largest else largest
            owner = second if q > largest else owner
            largest = q if q > largest else largest
            best[i] = largest
            owners[i] = owner
    if classes % 2 == 0:
        row, first = rates[classes - 1], np.float32(classes - 1)
        for i in range(features):
            r = row[i]
            total[i] += abs(r)
            owners[i] = first if r > best[i] else owners[i]
            best[i] = r if r > best[i] else best[i]


@njit(nogil=True, error_model="numpy")
def _average(sums: Any, weights: Any, seen: int, center: Any, level: Any) -> None:
    """Per feature the mean over the classes seen, and that of the magnitudes."""
    center[:] = 0
    level[:] = 0
    for k in range(len(sums)):
        factor = 1.0 / (weights[k] * seen) if weights[k] > FORGOTTEN else 0.0
        for i in range(len(center)):
            mean = np.float32(sums[k, i] * factor)
            center[i] += mean
            level[i] += abs(mean)


@kernel
def lesson(
    sample: Any,
    index: int,
    kept: float,
    age: float,
    sums: Any,
    weights: Any,
    counts: Any,
    rates: Any,
    signed: bool,
    tested: bool,
    voices: Any,
    weighing: Any,
    logits: Any,
    own: Any,
    even: Any,
    count: int,
    sharpness: float,
    summed: bool,
    normalize: int,
    proportional: bool,
    silent_first: bool,
    terms: Any,
    scale: Any,
) -> tuple[int, bool, int, int, bool, float]:
    """The logits of `answer_by_votes`, `observe`, `add` and `vote` in one call: 2 us less than one after the other.

    tested: whether the trial is one for the calibration. voices, weighing: the terms and scale that answer it;
    those at the end are filled in.
    Returns what `add` and `vote` do; then whether the calibration took the trial, and the sharpness.
    """
    if tested and weighing[index] > 0.0:
        values = np.empty(len(weights))
        tested = tally(sample, voices, weighing, values)
        if tested:
            sharpness = observe(values, weighing, index, logits, own, even, count, sharpness)
    else:
        tested = False
    missing, negative = add(sample, index, kept, age, summed, sums, weights, counts, rates)
    signed |= negative
    seen, eligible = vote(rates, sums, weights, signed, summed, normalize, proportional, silent_first, terms, scale)
    return missing, signed, seen, eligible, tested, sharpness
