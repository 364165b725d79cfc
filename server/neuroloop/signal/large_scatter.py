"""Mean and scatter of one large cluster, whose products are a matter for BLAS.

The products of up to 512 samples are summed in float32 about a mean that stands still (half of the square, by `ssyrk`),
then combined with the rest in float64 (Chan, Golub and LeVeque 1983). 1024 channels x 60 samples: 0.5 ms, 63 million
multiply-adds of which half are done, and 0.3 ms for the combination every 512 samples, on one core with AVX-512.
"""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.compiled import kernel

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

WINDOW = 512  # samples


@kernel
def combine(scatter: Any, product: Any, keep: float, outside: Any, difference: Any, between: float) -> None:
    """Upper triangle: `keep * scatter + product - outside outside^T + between difference difference^T`, rank by rank.

    outside: (k,), root of the weight times the mean of what was summed, so that the product is about that mean.
    """
    size = len(difference)
    for i in range(size):
        for j in range(i, size):
            within = product[i, j] - outside[i] * outside[j]
            scatter[i, j] = keep * scatter[i, j] + (within + between * difference[i] * difference[j])


class LargeScatter:
    """Accumulates the scatter of some channels. weight: effective number of samples, of the window as `within`."""

    def __init__(self, channels: NDArray[np.intp], channel_count: int) -> None:
        from scipy.linalg.blas import ssyrk  # a quarter of what a session imports, and few have such a cluster

        self._add_square = ssyrk
        self.channels = channels
        size = len(channels)
        self._is_whole = np.array_equal(channels, np.arange(channel_count))
        self._weight = 0.0
        self._mean: F64 = np.zeros(size)
        self._scatter: F64 = np.zeros((size, size))
        self._within = 0.0
        self._decay = 1.0
        self._shift: F32 = np.zeros(size, np.float32)
        self._sums: F64 = np.zeros(size)
        self._product: F32 = np.zeros((size, size), np.float32)
        self._block_sums: F32 = np.zeros(size, np.float32)
        self._allocate(0, np.dtype(np.float32))
        combine(np.zeros((0, 0)), self._product[:0], 1.0, self._mean[:0], self._mean[:0], 0.0)  # compiles it now

    def _allocate(self, samples: int, dtype: np.dtype[Any]) -> None:
        self._part = np.zeros((samples, len(self.channels)), dtype)
        self._centered: F32 = np.zeros((samples, len(self.channels)), np.float32)

    def rows(self, block: NDArray[np.floating[Any]]) -> NDArray[np.floating[Any]]:
        """The cluster's columns of a block; valid until the next call."""
        if self._is_whole:
            return block
        if len(self._part) < len(block) or self._part.dtype != block.dtype:
            self._allocate(len(block), block.dtype)
        return np.take(block, self.channels, axis=1, out=self._part[: len(block)])

    def add(self, rows: NDArray[np.floating[Any]], keep: float) -> None:
        """Take samples in, (n, channels of the cluster), finite. keep: what is left of the weight of those before."""
        n = len(rows)
        if len(self._centered) < n:
            self._allocate(n, rows.dtype)
        if self._within == 0.0:
            np.copyto(self._shift, self._mean if self._weight > 0 else rows.mean(axis=0, dtype=np.float64))
        centered = self._centered[:n]
        np.subtract(rows, self._shift, out=centered, casting="same_kind")
        np.sum(centered, axis=0, out=self._block_sums)
        self._add_square(1.0, centered.T, beta=keep if self._within else 0.0, c=self._product.T, lower=1, overwrite_c=1)
        self._sums *= keep
        self._sums += self._block_sums
        self._within = keep * self._within + n
        self._decay *= keep
        if self._within >= WINDOW:
            self._weight, self._mean, self._scatter = self._combined(self._scatter)
            self._within, self._decay = 0.0, 1.0
            self._sums[:] = 0

    def _combined(self, scatter: F64) -> tuple[float, F64, F64]:
        """Weight, mean and upper scatter with the window; `scatter` is written."""
        if self._within == 0.0:
            return self._weight, self._mean, scatter
        offset = self._sums / self._within
        old = self._decay * self._weight
        total = old + self._within
        difference = self._shift + offset - self._mean
        combine(
            scatter, self._product, self._decay, np.sqrt(self._within) * offset, difference, old * self._within / total
        )
        return total, self._mean + difference * (self._within / total), scatter

    def request_snapshot(self) -> Callable[[], tuple[F64, F64]]:
        """What puts the mean, (channels,), and the upper triangle of the scatter together; here they are copied."""
        still = copy(self)
        for name in ("mean", "scatter", "sums", "product", "shift"):
            setattr(still, f"_{name}", getattr(self, f"_{name}").copy())
        return lambda: still._combined(still._scatter)[1:]

    def restore(self, weight: float, mean: F64, scatter: F64) -> None:
        """Go on from a snapshot of so many samples."""
        self.reset()
        self._weight = weight
        self._mean[:], self._scatter[:] = mean, scatter

    def reset(self) -> None:
        self._weight = self._within = 0.0
        self._decay = 1.0
        for array in (self._mean, self._scatter, self._sums):
            array[:] = 0

    def state_dict(self) -> dict[str, Any]:
        names = ("weight", "mean", "scatter", "within", "decay", "shift", "sums", "product")
        return {name: np.copy(getattr(self, f"_{name}")) for name in names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("mean", "scatter", "shift", "sums", "product"):
            getattr(self, f"_{name}")[:] = state[name]
        for name in ("weight", "within", "decay"):
            setattr(self, f"_{name}", float(state[name]))
