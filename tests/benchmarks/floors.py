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


COSTS = {
    **{f"chain_{channels}": chain(channels) for channels in (96, 256, 1024, 4096)},
    "lrr_apply_1024_clustered": rereference(1024, data.CLUSTER),
    "lrr_apply_1024_dense": rereference(1024, 1024),
    "lrr_solve_1024_dense": solve(1024),
    "maxrate_step_1024x10": maxrate(data.FEATURES, data.CLASSES),
    "lnp_frame_100x3x30x15x15": lnp(data.CELLS, data.RANK, data.LAGS, data.FRAME[0] * data.FRAME[1]),
}
