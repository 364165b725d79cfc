"""A sender's clock against that of the recorder: clock offsets, fitted by a line between the clock's resets.

The line minimises Huber's loss, quadratic up to 0.1 ms and linear beyond, so that measurements that were held up by the
network do not count for much. It is found by the alternating direction method of multipliers (Boyd et al. 2011, section
6.1), with the step (1) and number of iterations (1000) of pyxdf: the lines are the same, also where a large outlier
leaves the iterations short of the minimum.

A clock is taken as reset where its measurements go back in time, or where a pause between two of them and a jump of
their offsets are both out of the ordinary. Each part between resets has a line of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Offsets = Sequence[tuple[float, float]]

HUBER_S = 1e-4
ITERATIONS = 1000
PAUSE_S, PAUSE_MADS = 5.0, 5.0
JUMP_S, JUMP_MADS = 1.0, 10.0
STRAY = 10.0  # times the median interval, or the spread of the values
PAGE_SAMPLES = 1 << 16


@dataclass(frozen=True)
class Line:
    """offset = intercept + slope * time."""

    intercept: float
    slope: float

    def apply(self, times: F64) -> F64:
        """By the recorder's clock."""
        corrected: F64 = times + (self.intercept + self.slope * times)
        return corrected


@dataclass(frozen=True)
class Part:
    """A clock between two resets: its line, and the times of its first and last measurement."""

    line: Line
    first: float
    last: float


def fit(offsets: Offsets) -> list[Part]:
    """The parts of a clock; none where it was never measured."""
    if not offsets:
        return []
    measured = np.array(offsets, np.float64)
    resets = _resets(measured[:, 0], measured[:, 1]) if len(measured) > 1 else np.zeros(0, np.int64)
    edges = [0, *(resets + 1).tolist(), len(measured)]
    return [
        Part(_line(measured[start:stop, 0], measured[start:stop, 1]), *measured[[start, stop - 1], 0].tolist())
        for start, stop in pairwise(edges)
    ]


def _line(times: F64, values: F64) -> Line:
    if len(times) == 1:
        return Line(float(values[0]), 0.0)
    if not np.ptp(times) > 0 or not (np.isfinite(times) & np.isfinite(values)).all():
        return Line(0.0, 0.0)  # no line goes through them
    shift = times.min()
    matrix = np.stack([np.ones(len(times)), (times - shift) / HUBER_S], axis=1)
    target = values / HUBER_S
    solve = np.linalg.solve(matrix.T @ matrix, matrix.T)
    split: F64 = np.zeros(len(times))
    dual: F64 = np.zeros(len(times))
    for _ in range(ITERATIONS):
        solution = solve @ (target + split - dual)
        rest = matrix @ solution - target + dual
        split = (rest + np.sign(rest) * np.maximum(np.abs(rest) - 2, 0)) / 2
        dual = rest - split
    slope = float(solution[1])
    return Line(float(solution[0] * HUBER_S - slope * shift), slope)


def _resets(times: F64, values: F64) -> NDArray[np.int64]:
    """Numbers of the measurements after which the clock was reset."""
    pauses, jumps = np.diff(times), np.diff(values)
    unusual = _unusual(pauses, PAUSE_MADS, PAUSE_S) & _unusual(jumps, JUMP_MADS, JUMP_S)
    return np.flatnonzero((pauses < 0) | unusual)


def _unusual(steps: F64, mads: float, seconds: float) -> NDArray[np.bool_]:
    distance = np.abs(steps - np.median(steps))
    mad = np.median(distance) + np.finfo(np.float64).eps
    unusual: NDArray[np.bool_] = (distance / mad > mads) & (distance > seconds)
    return unusual


def last_is_stray(offsets: Offsets) -> bool:
    """Whether the last measurement is out of the ordinary.

    An outlet that ends while it is recorded may leave one that means nothing (liblsl issue 246, pylsl issue 67). It is
    left out only where a sample too many, by the footer, says the same.
    """
    if len(offsets) < 3:
        return False
    times, values = np.array(offsets, np.float64).T
    intervals = np.diff(times)
    usual, last = np.median(intervals[:-1]), abs(intervals[-1])
    ratio = last / usual if usual > 0 else (np.inf if last > 0 else 1.0)
    middle = np.median(values[:-1])
    mad = np.median(np.abs(values[:-1] - middle))
    deviation = abs(values[-1] - middle) / (1.4826 * mad) if mad > np.finfo(np.float64).eps else 0.0
    return bool(ratio > STRAY or deviation > STRAY)


def split_samples(parts: Sequence[Part], sample_count: int, times: Callable[[int, int], F64]) -> list[int]:
    """The number of the first sample of each part, and the number of samples.

    A part ends before the first sample that is nearer to the next part's first measurement than to its own last one.
    times: (start, stop) -> timestamps by the sender's clock; read only where there was a reset.
    """
    edges = [0]
    for part, following in pairwise(parts):
        start = edges[-1]
        while start < sample_count:
            page = times(start, min(start + PAGE_SAMPLES, sample_count))
            nearer = np.abs(page - part.last) < np.abs(page - following.first)
            if not nearer.all():
                start += int(np.argmin(nearer))
                break
            start += len(page)
        edges.append(start)
    return [*edges, sample_count]
