"""Linear regression rereferencing (LRR): `Y = X (I - W)`, cluster by cluster.

Clusters of one size are one batched float32 product of BLAS over strided views of the block, without copies where the
clusters are runs of neighbouring channels: 0.12 ms for 150 samples x 1024 channels in clusters of 32.
Weights that reach across clusters are honoured by one product over all channels.

The parts: `covariance` accumulates in the loop, `regression` solves beside it, `weights` is what is exchanged at a
block boundary. They are all reachable from here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.signal.covariance import (
    Covariance,
    CovarianceSnapshot,
    check_clusters,
    group_by_size,
    snapshot_of,
)
from neuroloop.signal.regression import solve
from neuroloop.signal.weights import Weights, car_weights, identity_weights, weights_from_array

__all__ = [
    "Covariance",
    "CovarianceSnapshot",
    "Rereference",
    "Weights",
    "apply",
    "car_weights",
    "identity_weights",
    "predicted_scale",
    "snapshot_of",
    "solve",
    "weights_from_array",
]

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


def apply(data: NDArray[Any], weights: NDArray[Any]) -> F64:
    """`X (I - W)` in float64; data: (..., channels), weights: (channels, channels)."""
    channels = np.shape(data)[-1]
    if np.shape(weights) != (channels, channels):
        raise ModelError(f"rereference weights: expected {(channels, channels)}, got {np.shape(weights)}")
    values = np.asarray(data, dtype=np.float64)
    return values - values @ np.asarray(weights, dtype=np.float64)


def predicted_scale(snapshot: CovarianceSnapshot, old: Weights, new: Weights) -> F64:
    """Factor by which each channel's output will change in amplitude from `old` to `new`.

    The root of the ratio of `diag((I - W)^T C (I - W))`; 1 where that is undefined: in no cluster, weights that
    reach across clusters, no power. Returns (channels,). O(k^3) per cluster: meant for beside the loop.
    """
    scale = np.ones(snapshot.channel_count)
    if snapshot.samples <= 0:
        return scale
    reach = [(weights.matrix != 0).sum(axis=0) for weights in (old, new)]
    for cluster, scatter in zip(snapshot.clusters, snapshot.scatter, strict=True):
        indices = np.array(cluster, dtype=np.intp)
        powers, inside = [], np.ones(len(indices), dtype=bool)
        for weights, count in zip((old, new), reach, strict=True):
            block = weights.matrix[np.ix_(indices, indices)]
            residual = np.eye(len(indices)) - block
            powers.append(np.einsum("rc,rc->c", residual, scatter @ residual))
            inside &= count[indices] == (block != 0).sum(axis=0)
        # What cancels to less than rounding leaves of the channel's own power says nothing about a scale.
        least = 1e-12 * np.diagonal(scatter)
        known = inside & (powers[0] > least) & (powers[1] > least)
        scale[indices[known]] = np.sqrt(powers[1][known] / powers[0][known])
    return scale


@njit(cache=True, nogil=True, error_model="numpy")
def _gather(block: Any, order: Any, out: Any) -> None:
    for t in range(block.shape[0]):
        for j in range(len(order)):
            out[t, j] = block[t, order[j]]


@njit(cache=True, nogil=True, error_model="numpy")
def _scatter(values: Any, order: Any, out: Any) -> None:
    for t in range(values.shape[0]):
        for j in range(len(order)):
            out[t, order[j]] = values[t, j]


@dataclass(frozen=True, eq=False, slots=True)
class PreparedWeights:
    """Weights laid out for the hot path. stacks: per group (clusters, k, k) float32, I - W; or all in `dense`."""

    weights: Weights
    identity: bool
    stacks: tuple[F32, ...]
    dense: F32 | None


class Rereference:
    """Applies the current weights to blocks. Starts with the identity."""

    def __init__(self, clusters: Sequence[Sequence[int]], channel_count: int) -> None:
        self.clusters = check_clusters(clusters, channel_count)
        self.channel_count = channel_count
        self._groups, self._order = group_by_size(self.clusters)
        self._contiguous = np.array_equal(self._order, np.arange(channel_count))
        self._gathered: F32 = np.empty((0, len(self._order)), np.float32)
        self._product: F32 = np.empty((0, len(self._order)), np.float32)
        self._out: F32 = np.empty((0, channel_count), np.float32)
        self._prepared = self.prepare(identity_weights([str(c) for c in range(channel_count)]))
        nothing = np.empty((0, channel_count), np.float32)  # compiles the kernels now, not at the first block
        _gather(nothing, self._order, nothing)
        _scatter(nothing, self._order, nothing)

    @property
    def weights(self) -> Weights:
        """The weights in use."""
        return self._prepared.weights

    def prepare(self, weights: Weights) -> PreparedWeights:
        """Lay weights out for the hot path; changes nothing here, so it may run in any thread, beside the loop.

        Raises ModelError where they are for another number of channels.
        """
        expected = (self.channel_count, self.channel_count)
        if weights.matrix.shape != expected:
            raise ModelError(f"rereference weights: expected {expected}, got {weights.matrix.shape}")
        total = int(np.count_nonzero(weights.matrix))
        stacks, inside = [], 0
        for group in self._groups:
            blocks = np.stack([weights.matrix[np.ix_(self.clusters[n], self.clusters[n])] for n in group.members])
            inside += int(np.count_nonzero(blocks))
            stacks.append((np.eye(group.size) - blocks).astype(np.float32))
        if inside == total:
            return PreparedWeights(weights, total == 0, tuple(stacks), None)
        dense = (np.eye(self.channel_count) - weights.matrix).astype(np.float32)
        return PreparedWeights(weights, False, (), dense)

    def set_weights(self, weights: Weights | PreparedWeights) -> None:
        """Use these from the next block on; a mere exchange of one reference when they are prepared."""
        self._prepared = weights if isinstance(weights, PreparedWeights) else self.prepare(weights)

    def __call__(self, block: F32, out: F32 | None = None) -> F32:
        """The rereferenced block: (n, channels) float32, in `out` or in a buffer that is valid until the next call."""
        n = len(block)
        prepared = self._prepared
        if out is None:
            if len(self._out) < n:
                self._out = np.empty((n, self.channel_count), np.float32)
            out = self._out[:n]
        if prepared.identity:
            np.copyto(out, block)
            return out
        if prepared.dense is not None:
            return np.matmul(block, prepared.dense, out=out)
        if self._contiguous:
            self._multiply(block, prepared.stacks, out)
            return out
        if len(self._gathered) < n:
            self._gathered = np.empty((n, len(self._order)), np.float32)
            self._product = np.empty((n, len(self._order)), np.float32)
        gathered, product = self._gathered[:n], self._product[:n]
        _gather(block, self._order, gathered)
        self._multiply(gathered, prepared.stacks, product)
        if len(self._order) < self.channel_count:
            np.copyto(out, block)
        _scatter(product, self._order, out)
        return out

    def _multiply(self, columns: F32, stacks: tuple[F32, ...], out: F32) -> None:
        """Cluster by cluster over columns that lie in the groups' order."""
        for group, stack in zip(self._groups, stacks, strict=True):
            shape = (len(columns), len(group.members), group.size)
            source = columns[:, group.first : group.stop].reshape(shape).transpose(1, 0, 2)
            target = out[:, group.first : group.stop].reshape(shape).transpose(1, 0, 2)
            np.matmul(source, stack, out=target)

    def reset(self) -> None:
        """Nothing to reset: weights belong to the channels, and survive a hole in the stream."""

    def state_dict(self) -> dict[str, Any]:
        weights = self._prepared.weights
        return {
            "version": weights.version,
            "matrix": np.array(weights.matrix),
            "channels": list(weights.channels),
            "source": weights.source,
            "report": weights.report,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        matrix = np.array(state["matrix"], dtype=np.float64)
        self.set_weights(
            Weights(int(state["version"]), matrix, tuple(state["channels"]), state["source"], dict(state["report"]))
        )
