"""Scatter of the channels of each cluster, accumulated block by block.

Every block is centred on its own mean before its products are taken, and the means are combined in float64 (Chan, Golub
and LeVeque 1983):

    M2 <- f M2 + (X - m_b)^T (X - m_b) + f n n_b / (f n + n_b) (m_b - m)(m_b - m)^T,    n <- f n + n_b

so neither an offset of 1e4 nor a drift cancels the digits that matter; f = 2^(-n_b / half-life) forgets, 1 does not.
Products are taken in float64 where all clusters together have at most 10 000 entries, otherwise in float32 and summed
in float64. Only the clusters are kept, not channels x channels. Clusters of one size are one batched product:
0.2 ms for 150 samples x 1024 channels in clusters of 32.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

DOUBLE_UP_TO = 10_000  # entries of all clusters


@dataclass(frozen=True, slots=True)
class CovarianceSnapshot:
    """What was accumulated up to a block; never changes.

    samples: effective number. mean: (channels,), 0 for channels in no cluster.
    scatter: per cluster (k, k) float64, sum of products about the mean.
    resolution: relative rounding error of the products.
    rejected: samples left out because a channel was not finite.
    """

    clusters: tuple[tuple[int, ...], ...]
    channel_count: int
    samples: float
    mean: F64
    scatter: tuple[F64, ...]
    resolution: float
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class Group:
    """The clusters of one size, side by side in the gathered block."""

    members: tuple[int, ...]
    first: int
    size: int

    @property
    def stop(self) -> int:
        return self.first + len(self.members) * self.size


def group_by_size(clusters: Sequence[Sequence[int]]) -> tuple[tuple[Group, ...], NDArray[np.intp]]:
    """Groups of clusters of one size, and the order of the channels that puts each group in one run of columns."""
    sizes: dict[int, list[int]] = {}
    for number, cluster in enumerate(clusters):
        if len(cluster):
            sizes.setdefault(len(cluster), []).append(number)
    groups: list[Group] = []
    order: list[int] = []
    for size, members in sizes.items():
        groups.append(Group(tuple(members), len(order), size))
        order += [channel for number in members for channel in clusters[number]]
    return tuple(groups), np.array(order, dtype=np.intp)


def check_clusters(clusters: Sequence[Sequence[int]], channel_count: int) -> tuple[tuple[int, ...], ...]:
    """The clusters as tuples. Raises ValueError where they overlap or name a channel that is not there."""
    seen: set[int] = set()
    for number, cluster in enumerate(clusters):
        for channel in cluster:
            if not 0 <= channel < channel_count:
                raise ValueError(f"cluster {number}: channel {channel} is not there; allowed: 0 to {channel_count - 1}")
            if channel in seen:
                raise ValueError(f"cluster {number}: channel {channel} is named twice; clusters must not overlap")
            seen.add(int(channel))
    return tuple(tuple(int(channel) for channel in cluster) for cluster in clusters)


@njit(cache=True, nogil=True, error_model="numpy")
def _center(block: Any, order: Any, contiguous: bool, mean: Any, out: Any) -> bool:
    """Mean of each gathered column into `mean`, the block about it into `out`; False if one is not finite."""
    samples, columns = block.shape[0], len(order)
    for j in range(columns):
        mean[j] = 0.0
    if contiguous:
        for t in range(samples):
            for j in range(columns):
                mean[j] += block[t, j]
    else:
        for t in range(samples):
            for j in range(columns):
                mean[j] += block[t, order[j]]
    finite = True
    for j in range(columns):
        mean[j] /= samples
        finite &= abs(mean[j]) < np.inf
    if not finite:
        return False
    if contiguous:
        for t in range(samples):
            for j in range(columns):
                out[t, j] = block[t, j] - mean[j]
    else:
        for t in range(samples):
            for j in range(columns):
                out[t, j] = block[t, order[j]] - mean[j]
    return True


@njit(cache=True, nogil=True, error_model="numpy")
def _combine(scatter: Any, product: Any, difference: Any, keep: float, between: float) -> None:
    """scatter: (clusters, k, k) float64; product the same; difference: (clusters, k), of the means."""
    clusters, size, _ = scatter.shape
    for g in range(clusters):
        for i in range(size):
            left = between * difference[g, i]
            for j in range(size):
                scatter[g, i, j] = keep * scatter[g, i, j] + product[g, i, j] + left * difference[g, j]


class Covariance:
    """Accumulates the scatter of clusters of channels.

    clusters: channel indices of each. half_life_samples: None forgets nothing; may be set between two blocks.
    center: kept with the statistic for whoever solves it; the snapshot serves both.
    """

    def __init__(
        self,
        clusters: Sequence[Sequence[int]],
        channel_count: int,
        half_life_samples: float | None = None,
        center: bool = True,
    ) -> None:
        self.clusters = check_clusters(clusters, channel_count)
        self.channel_count = channel_count
        self.half_life_samples = half_life_samples
        self.center = center
        self.rejected = 0
        self._groups, self._order = group_by_size(self.clusters)
        self._contiguous = np.array_equal(self._order, np.arange(channel_count))
        self._dtype = np.float64 if sum(len(c) ** 2 for c in self.clusters) <= DOUBLE_UP_TO else np.float32
        self._samples = 0.0
        self._blocks = 0
        self._mean = np.zeros(len(self._order))
        self._scatter = [np.zeros((len(g.members), g.size, g.size)) for g in self._groups]
        self._block_mean = np.zeros(len(self._order))
        self._centered = np.empty((0, len(self._order)), self._dtype)
        self._products = [np.zeros(s.shape, self._dtype) for s in self._scatter]
        self._compile()

    def _compile(self) -> None:
        """Compile the kernels now, not at the first block; the sums stay zero."""
        nothing = np.empty((0, self.channel_count), np.float32)
        _center(nothing, self._order, self._contiguous, self._block_mean, self._centered)
        self._block_mean[:] = 0
        for group, scatter, product in zip(self._groups, self._scatter, self._products, strict=True):
            difference = self._block_mean[group.first : group.stop].reshape(scatter.shape[:2])
            _combine(scatter, product, difference, 1.0, 0.0)

    @property
    def samples(self) -> float:
        """Effective number of samples."""
        return self._samples

    def add(self, block: F32, valid: bool = True) -> None:
        """Take a block in, (n, channels); one that is not valid, or not finite, counts for nothing."""
        n = len(block)
        if not valid or n == 0:
            return
        if len(self._centered) < n:
            self._centered = np.empty((n, len(self._order)), self._dtype)
        centered, mean = self._centered[:n], self._block_mean
        if not _center(block, self._order, self._contiguous, mean, centered):
            self.rejected += n
            return
        keep = 1.0 if self.half_life_samples is None else 0.5 ** (n / self.half_life_samples)
        old = keep * self._samples
        total = old + n
        np.subtract(mean, self._mean, out=mean)
        for group, scatter, product in zip(self._groups, self._scatter, self._products, strict=True):
            shape = (len(group.members), group.size)
            columns = centered[:, group.first : group.stop].reshape(n, *shape)
            np.matmul(columns.transpose(1, 2, 0), columns.transpose(1, 0, 2), out=product)
            _combine(scatter, product, mean[group.first : group.stop].reshape(shape), keep, old * n / total)
        mean *= n / total
        self._mean += mean
        self._samples = total
        self._blocks += 1

    def snapshot(self) -> CovarianceSnapshot:
        """An immutable copy."""
        scatter: list[F64] = [np.empty((0, 0))] * len(self.clusters)
        for group, matrices in zip(self._groups, self._scatter, strict=True):
            copies = matrices.copy()
            copies.flags.writeable = False
            for number, copy in zip(group.members, copies, strict=True):
                scatter[number] = copy
        mean = np.zeros(self.channel_count)
        mean[self._order] = self._mean
        mean.flags.writeable = False
        # Rounding errors of blocks are independent, so those of their sum fade with the root of their number.
        resolution = float(np.finfo(self._dtype).eps)
        if self._dtype == np.float32:
            resolution = max(resolution / max(self._blocks, 1) ** 0.5, float(np.finfo(np.float64).eps))
        return CovarianceSnapshot(
            self.clusters, self.channel_count, self._samples, mean, tuple(scatter), resolution, self.rejected
        )

    def reset(self) -> None:
        """Forget everything."""
        self._samples, self._blocks, self.rejected = 0.0, 0, 0
        self._mean[:] = 0
        for scatter in self._scatter:
            scatter[:] = 0

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "samples": self._samples,
            "blocks": self._blocks,
            "rejected": self.rejected,
            "mean": self._mean.copy(),
        }
        for group, scatter in zip(self._groups, self._scatter, strict=True):
            state[f"scatter_{group.size}"] = scatter.copy()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._samples = float(state["samples"])
        self._blocks = int(state["blocks"])
        self.rejected = int(state["rejected"])
        self._mean[:] = state["mean"]
        for group, scatter in zip(self._groups, self._scatter, strict=True):
            scatter[:] = state[f"scatter_{group.size}"]


def snapshot_of(data: NDArray[np.floating[Any]], clusters: Sequence[Sequence[int]]) -> CovarianceSnapshot:
    """The snapshot of an array at rest, all in float64.

    data: (..., channels), leading axes are samples. Samples with a channel that is not finite are left out.
    """
    flat = np.asarray(data, dtype=np.float64).reshape(-1, np.shape(data)[-1])
    finite = flat[np.isfinite(flat).all(axis=1)]
    checked = check_clusters(clusters, flat.shape[1])
    mean = finite.mean(axis=0) if len(finite) else np.zeros(flat.shape[1])
    centered = finite - mean
    scatter = tuple(centered[:, list(c)].T @ centered[:, list(c)] for c in checked)
    eps = float(np.finfo(np.float64).eps)
    return CovarianceSnapshot(checked, flat.shape[1], float(len(finite)), mean, scatter, eps, len(flat) - len(finite))
