"""The compiled parts of the decoders on class rates. All in one file, since Numba's cache of a compiled function knows
when its own file changes, not that of what it calls.

They run once a bin, between its last sample and its prediction, or once a labelled trial. Nothing here checks its
input: that is done at the entrance, `online`.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

ANSWERED: Final = 0
MISSING: Final = 1
SILENT: Final = 2

FORGOTTEN = 1e-280  # weight of a class; below it the sums run out of digits, after some 900 half-lives
STEP = 0.01  # of the sharpness: Newton's last one

# Typed, since an untyped number would make float64 of the float32 that it meets.
_ZERO, _ONE, _HALF, _LOG2E, _LN2, _LOWEST = map(np.float32, (0.0, 1.0, 0.5, 1.4426950408889634, np.log(2), -80.0))
_C2, _C3, _C4, _C5, _C6 = map(np.float32, (1 / 2, 1 / 6, 1 / 24, 1 / 120, 1 / 720))
_BIAS, _MANTISSA = np.int32(127), np.int32(23)


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


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
def answer_by_votes(
    rates: Any, terms: Any, scale: Any, sharpness: float, values: Any, probability: Any
) -> tuple[int, int]:
    """See `Votes`."""
    if not _tally(rates, terms, scale, values):
        return MISSING, -1
    spoken = False
    for i in range(len(rates)):
        if rates[i] != 0 and terms[0, i] < len(scale):
            spoken = True
            break
    return _softmax(values, scale, sharpness, spoken, probability)


@njit(nogil=True, error_model="numpy")
def _tally(rates: Any, terms: Any, scale: Any, values: Any) -> bool:
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


@njit(cache=True, nogil=True, error_model="numpy")
def expectations(logits: Any, labels: Any) -> Any:
    """`own` and `even` of `Trials` for every trial, (2, trials); logits: (classes, trials)."""
    out = np.empty((2, len(labels)))
    for t in range(len(labels)):
        out[0, t], out[1, t] = _expectation(logits, t, labels[t])
    return out


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
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
    return fit_sharpness(logits, own, even, filled, sharpness)


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
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


@njit(cache=True, nogil=True, error_model="numpy")
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
        tested = _tally(sample, voices, weighing, values)
        if tested:
            sharpness = observe(values, weighing, index, logits, own, even, count, sharpness)
    else:
        tested = False
    missing, negative = add(sample, index, kept, age, summed, sums, weights, counts, rates)
    signed |= negative
    seen, eligible = vote(rates, sums, weights, signed, summed, normalize, proportional, silent_first, terms, scale)
    return missing, signed, seen, eligible, tested, sharpness
