"""How well rates fit spikes, and how rough kernels are, in numpy: losses, regularisers and held-out scores.

    Poisson       out - n log(out + 1e-16)
    correlation   Pearson over time, biased variances, 1e-16 added to each
    roughness     Lap(w) = sum((K * w)^2) / (sum(w^2) + 1e-6), K = [0 -1 0; -1 4 -1; 0 -1 0] or [-1 2 -1], zeros around
    sparseness    mean |w|

Rates are (batch, time, cells) and count frames that may lead them: where the target is longer, its first frames are
dropped, for which a filter has no output yet. `neuroloop.models.lnp_torch` has the same for gradients.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError

F64 = NDArray[np.float64]
EPS = 1e-16
NORM_EPS = 1e-6
CORNER_TO_CENTRE = (
    4.0  # of the Gaussian that leaves the centre of a kernel free: its sigma is the smaller side over this
)


def aligned(output: NDArray[Any], target: NDArray[Any]) -> tuple[F64, F64]:
    """Both in float64, the target without the frames that lead the output. Raises ModelError where they do not fit."""
    out, counts = np.asarray(output, np.float64), np.asarray(target, np.float64)
    if out.ndim != 3 or counts.ndim != 3 or counts.shape[1] < out.shape[1] or counts.shape[::2] != out.shape[::2]:
        raise ModelError(f"target: expected (batch, time, cells), at least as long as {out.shape}, got {counts.shape}")
    return out, counts[:, counts.shape[1] - out.shape[1] :]


def poisson_loss(output: NDArray[Any], target: NDArray[Any]) -> F64:
    """The loss of each bin, (batch, time, cells); sum it for the published form, average it for ours."""
    out, counts = aligned(output, target)
    return out - counts * np.log(out + EPS)


def correlation(output: NDArray[Any], target: NDArray[Any]) -> F64:
    """Of each cell in each batch, (batch, cells)."""
    out, counts = aligned(output, target)
    out, counts = out - out.mean(axis=1, keepdims=True), counts - counts.mean(axis=1, keepdims=True)
    spread = np.sqrt((np.square(out).mean(axis=1) + EPS) * (np.square(counts).mean(axis=1) + EPS))
    return np.asarray((out * counts).mean(axis=1) / spread)


def bits_per_spike(rates: NDArray[Any], counts: NDArray[Any], baseline: Any = None) -> F64:
    """Information gained over a constant rate, in bits per spike of each cell; NaN for a cell that was silent.

    rates: (time, cells), expected spikes per bin. counts: the same, spikes. baseline: (cells,), the constant rate; that
    of the counts themselves by default, the best that a constant can be.
    """
    expected, spikes = np.asarray(rates, np.float64) + EPS, np.asarray(counts, np.float64)
    constant = np.broadcast_to(spikes.mean(axis=0) if baseline is None else np.asarray(baseline), spikes.shape) + EPS
    gain = (spikes * np.log(expected / constant) - expected + constant).sum(axis=0)
    total = spikes.sum(axis=0)
    return np.asarray(np.where(total > 0, gain / np.where(total > 0, total, 1.0), np.nan) / np.log(2))


def laplace_map(weights: NDArray[Any], padding: int = 1, axes: int = 2) -> F64:
    """K * w over the last one or two axes, with `padding` zeros around."""
    array = np.asarray(weights, np.float64)
    array = np.pad(array, [(0, 0)] * (array.ndim - axes) + [(padding, padding)] * axes)
    if axes == 1:
        return 2 * array[..., 1:-1] - array[..., :-2] - array[..., 2:]
    middle = 4 * array[..., 1:-1, 1:-1]
    return middle - array[..., :-2, 1:-1] - array[..., 2:, 1:-1] - array[..., 1:-1, :-2] - array[..., 1:-1, 2:]


def roughness(
    weights: NDArray[Any], padding: int = 1, axes: int = 2, average: bool = False, mask: NDArray[Any] | float = 1.0
) -> float:
    """Lap(w) over the last one or two axes.

    average: means in place of the sums. mask: weighs the map, (rows, columns); see `outside_gaussian`.
    """
    total = np.mean if average else np.sum
    rough = np.square(laplace_map(weights, padding, axes) * mask)
    return float(total(rough) / (total(np.square(np.asarray(weights, np.float64))) + NORM_EPS))


def outside_gaussian(height: int, width: int) -> F64:
    """1 - g, (height, width): roughness counts away from the centre. g is scaled to 0..1, sigma = smaller side / 4."""
    y, x = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    sigma = min(height, width) / CORNER_TO_CENTRE
    gaussian = np.exp(-(y[:, None] ** 2 + x**2) / (2 * sigma**2))
    spread = gaussian.max() - gaussian.min()
    return np.asarray(1.0 - (gaussian - gaussian.min()) / (spread if spread > 0 else 1.0))


def sparseness(weights: NDArray[Any]) -> float:
    """mean |w|"""
    return float(np.abs(np.asarray(weights, np.float64)).mean())
