"""The least time of each work: its multiply-adds at the core's peak, or its bytes at the memory's, whichever is more.

Multiply-adds are counted where the result needs them, whatever program makes it; another operation on a vector
(comparison, addition, division) occupies the same unit, and counts as one. Bytes are what must be read and written
once. Calls, wake-ups and the interpreter count for nothing: a floor of a microsecond is out of reach of a Python call.
"""

from dataclasses import dataclass

from tests.benchmarks import data
from tests.benchmarks.machine import Peaks


@dataclass(frozen=True)
class Cost:
    multiply_adds: float
    bytes: int
    dtype: str = "float32"

    def floor_ms(self, peaks: Peaks) -> float:
        arithmetic = self.multiply_adds / peaks.multiply_adds[self.dtype]
        return 1000 * max(arithmetic, self.bytes / peaks.bandwidth_for(self.bytes))


def chain(channels: int) -> Cost:
    """Per sample and channel:

    20  four second-order sections of 5
    32  rereference: a row of a 32 x 32 product
    16  covariance: the same, of which symmetry saves half
     8  detection: threshold and last state, refractory count down and restart, count, and three for the running sigma
    """
    samples = data.BLOCK * channels
    per_sample = 5 * data.ORDER + data.CLUSTER + data.CLUSTER / 2 + 8
    covariance = 8 * data.CLUSTER * channels  # float64, read and written
    return Cost(per_sample * samples, 4 * samples + 2 * covariance)


def rereference(channels: int, cluster: int) -> Cost:
    """One product per cluster; the block in and out, and the weights."""
    samples = data.BLOCK * channels
    return Cost(cluster * samples, 4 * (2 * samples + cluster * channels))


def solve(channels: int) -> Cost:
    """Inverse of a symmetric matrix by Cholesky, n^3 / 6 for the factor and n^3 / 3 for the inverse; in float64.

    The covariance is read, weights are written in float64, and once more in float32 as they are applied.
    """
    return Cost(channels**3 / 2, (8 + 8 + 4) * channels**2, "float64")


def maxrate(features: int, classes: int) -> Cost:
    """Learning changes one class's rate of every feature, hence the shares of its classes and the one it votes for.

    1 to add the sample, K to sum a feature's rates, K to compare its shares, 1 to divide; 1 for its vote in the
    answer. The rates are read and a class's is written, float32.
    """
    return Cost(features * (2 * classes + 3), 4 * features * (classes + 1))


def lnp(cells: int, rank: int, lags: int, pixels: int) -> Cost:
    """A new frame on every spatial kernel, then the last projections on every temporal kernel; kernels are read."""
    kernels = cells * rank * (lags + pixels)
    return Cost(kernels, 4 * (kernels + cells * rank * lags))


def gsnn(edges: int, into: int, out_of: int, functions: int, channels: int, layers: int) -> Cost:
    """Per layer: a weight for each channel and edge into and out of a function, and for each channel of a function

    10  its exponential: 3 to reduce it, 6 of a polynomial, 1 to scale it
     6  its norm: mean, deviation and square, gain and shift

    and what an edge keeps. Weights are read once.
    """
    per_layer = channels * (into + out_of) + 16 * channels * functions + edges
    weights = channels * (into + out_of + functions) + edges + 2 * functions
    return Cost(layers * per_layer, 4 * layers * weights)


def lfr_epoch() -> Cost:
    """Every part that learns forward, backward to its weights, and backward to its input but for the first; what is
    frozen forward. Of each batch, per target, a product for its similarities, and one back to the predictions.

    Two convolutions of 5 bins to 64 features, adapter, predictors of one hidden layer; seven linear projectors of the
    window and one of two convolutions of 3 bins to 16 features, 32 outputs each: what is chosen among 24 at the
    defaults. Windows are read once.
    """
    bins, units, width, outputs = data.WINDOW, data.UNITS, 64, 32
    first, second = (bins - 4) * 5 * units * width, (bins - 8) * 5 * width * width
    head = width * width + data.TARGETS * width * (width + outputs)
    frozen = 7 * bins * units * outputs + (bins - 2) * 3 * units * 16 + (bins - 4) * 3 * 16 * 16 + 16 * outputs
    similarities = 2 * data.TARGETS * data.BATCH * outputs
    per_window = 2 * first + 3 * (second + head) + frozen + similarities
    return Cost(data.WINDOWS * per_window, 4 * data.WINDOWS * bins * units)


def lnp_fit(bins: int, cells: int, lags: int, pixels: int) -> Cost:
    """One gradient: the drive of each cell and bin by space, then time, and both back to the kernels; in float64.

    A fit takes tens of these, how many is no property of the work; so this floor is out of reach.
    """
    return Cost(2 * bins * cells * (pixels + lags), 8 * bins * (pixels + cells), "float64")


COSTS = {
    **{f"chain_{channels}": chain(channels) for channels in (96, 256, 1024, 4096)},
    "lrr_apply_1024_clustered": rereference(1024, data.CLUSTER),
    "lrr_apply_1024_dense": rereference(1024, 1024),
    "lrr_solve_1024_dense": solve(1024),
    "maxrate_step_1024x10": maxrate(data.FEATURES, data.CLASSES),
    "lnp_frame_100x3x30x15x15": lnp(data.CELLS, data.RANK, data.LAGS, data.FRAME[0] * data.FRAME[1]),
    "gsnn_decision_200x1000x4": gsnn(1200, 1100, 1100, data.FUNCTIONS, data.SITE_CHANNELS, data.LAYERS),
    "lfr_epoch": lfr_epoch(),
    "lnp_fit_100_cells": lnp_fit(
        data.FIT_BINS - data.HELD_OUT, data.CELLS, data.FIT_LAGS, data.FIT_FRAME[0] * data.FIT_FRAME[1]
    ),
}
