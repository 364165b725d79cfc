"""From labels with times to the label of each bin."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Interval = tuple[str, float, float]  # label, start, end in seconds


def label_bins(
    times: NDArray[np.float64], intervals: Iterable[Interval], classes: Sequence[str]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Index of the class and number of the interval of each bin, (bins,) each; -1 for none.

    times: seconds of the bins' centres, in order. A bin belongs to the interval [start, end) that its centre lies in,
    to the later one where they overlap. Labels of no class are passed over.
    """
    labels = np.full(len(times), -1, np.int64)
    numbers = np.full(len(times), -1, np.int64)
    index = {name: number for number, name in enumerate(classes)}
    for number, (label, start, end) in enumerate(sorted(intervals, key=lambda interval: interval[1])):
        if label in index:
            inside = slice(*np.searchsorted(times, (start, end)))
            labels[inside], numbers[inside] = index[label], number
    return labels, numbers
