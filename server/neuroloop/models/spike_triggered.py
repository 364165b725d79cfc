"""Where an LNP fit starts: the spike-triggered average and its split into spatial and temporal kernels.

The average stimulus before a spike, less the average stimulus, is proportional to a cell's linear filter where the
stimulus is white. Its singular value decomposition (lags x pixels) gives the best kernels of rank R; where the stimulus
is not white they are a start, and the fit does the rest.

One product of (cells x frames) by (frames x pixels) per lag.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]


def average(stimulus: NDArray[Any], counts: NDArray[Any], lags: int, use: NDArray[np.bool_] | None = None) -> F64:
    """The spike-triggered average less the mean stimulus: (cells, lags, *frame), oldest lag first; 0 for silent cells.

    stimulus: (frames, *frame). counts: (frames, cells). use: (frames,), whose spikes count; all by default.
    """
    frames = len(stimulus)
    pixels = np.asarray(stimulus, np.float64).reshape(frames, -1)
    spikes = np.asarray(counts, np.float64)[lags - 1 :]
    kept = np.ones(len(spikes)) if use is None else use[lags - 1 :].astype(np.float64)
    spikes = spikes * kept[:, None]
    total = spikes.sum(axis=0)
    weights = spikes / np.where(total > 0, total, 1.0) - kept[:, None] / max(kept.sum(), 1.0) * (total > 0)
    windows = [weights.T @ pixels[lag : lag + len(spikes)] for lag in range(lags)]
    return np.stack(windows, axis=1).reshape(-1, lags, *stimulus.shape[1:])


def separate(filters: F64, rank: int) -> tuple[F64, F64]:
    """Kernels whose products sum to the filters, (cells, lags, *frame), as nearly as a rank allows.

    Returns spatial kernels (cells, rank, *frame), each of unit norm with its largest weight positive, and
    temporal ones (cells, rank, lags), which carry the size.
    """
    cells, lags = filters.shape[:2]
    left, sizes, right = np.linalg.svd(filters.reshape(cells, lags, -1), full_matrices=False)
    space, time = right[:, :rank], (left * sizes[:, None]).swapaxes(1, 2)[:, :rank]
    largest = np.take_along_axis(space, np.abs(space).argmax(axis=2)[..., None], axis=2)
    sign = np.where(largest < 0, -1.0, 1.0)
    return (space * sign).reshape(cells, rank, *filters.shape[2:]), time * sign


def locate(filters: F64) -> NDArray[np.int64]:
    """The pixel where each cell's filter, (cells, lags, channels, rows, columns), is largest over time: (cells, 2)."""
    energy = np.square(filters).sum(axis=(1, 2))
    peak = energy.reshape(len(energy), -1).argmax(axis=1)
    return np.stack(np.unravel_index(peak, energy.shape[1:]), axis=1).astype(np.int64)
