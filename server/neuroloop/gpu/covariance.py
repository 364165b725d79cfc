"""Scatter of the channels of each cluster, accumulated on a device; the mathematics is that of `covariance`.

Products in float32 summed in float64, or all in float64 where the clusters are small, as on the CPU, so that snapshots
have the same resolution. The sums are memory traffic: three passes over (entries x 8 bytes), read and written; for one
cluster of 1024 channels 50 MB per block, some 20 microseconds on a large GPU. Data-centre GPUs (A100, H100)
have float64 at half of their float32 rate or better; on others, at 1/32 to 1/64, the sums are still bound by memory
and the products are float32, so that they cost little more.

A block with a sample that was not finite counts for nothing. That is known on the device only, and is a factor in the
sums rather than a branch, so that the graph stays the same.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroloop.gpu.groups import group_by_size
from neuroloop.gpu.torch_device import TorchDevice
from neuroloop.signal.covariance import (
    DOUBLE_UP_TO,
    CovarianceSnapshot,
    blocks_of,
    check_clusters,
    check_same_clusters,
)

F64 = NDArray[np.float64]


class BlockScatter:
    """Means and products of one block. Static tensors: `mean`, (columns,); `products`; `usable`, whether it counts."""

    def __init__(
        self, device: TorchDevice, clusters: Sequence[Sequence[int]], block_samples: int, channel_count: int
    ) -> None:
        self.clusters = check_clusters(clusters, channel_count)
        self.channel_count = channel_count
        self.block_samples = block_samples
        self.groups, self.order = group_by_size(self.clusters)
        self._contiguous = np.array_equal(self.order, np.arange(channel_count))
        self._columns = device.constant(self.order, torch.int64)
        self.dtype = torch.float64 if sum(len(c) ** 2 for c in self.clusters) <= DOUBLE_UP_TO else torch.float32
        self.mean = device.zeros(len(self.order), dtype=torch.float64)
        self.usable = device.zeros(dtype=torch.bool)
        self._centered = device.zeros(block_samples, len(self.order), dtype=self.dtype)
        self.products = [device.zeros(len(g.members), g.size, g.size, dtype=self.dtype) for g in self.groups]

    def step(self, block: Tensor, missing: Tensor) -> None:
        """block: (n, channels) float32. missing: how many of its samples were not finite."""
        columns = block if self._contiguous else block.index_select(1, self._columns)
        self.mean.copy_(columns.sum(0, dtype=torch.float64) / self.block_samples)
        self.usable.copy_((missing == 0) & self.mean.isfinite().all())
        torch.sub(columns, self.mean, out=self._centered)
        for group, product in zip(self.groups, self.products, strict=True):
            shape = (self.block_samples, len(group.members), group.size)
            members = self._centered[:, group.first : group.stop].view(shape)
            torch.bmm(members.permute(1, 2, 0), members.permute(1, 0, 2), out=product)


class TorchCovariance:
    """Accumulates what `BlockScatter` makes of each block.

    half_life_samples: None forgets nothing; may be set between two blocks. center: kept for whoever solves it.
    """

    def __init__(
        self, device: TorchDevice, block: BlockScatter, half_life_samples: float | None = None, center: bool = True
    ) -> None:
        self.center = center
        self.clusters = block.clusters
        self.channel_count = block.channel_count
        self._device = device
        self._block = block
        double = torch.float64
        self._zero = device.constant(0.0, block.dtype)
        self._none = device.constant(0.0, double)
        self._one = device.constant(1.0, double)
        self._length = device.constant(block.block_samples, double)
        self._keep = device.zeros(dtype=double)
        self._counters = device.zeros(3, dtype=double)
        self._samples, self._blocks, self._rejected = self._counters
        self._mean = device.zeros(len(block.order), dtype=double)
        self._scatter = [device.zeros(*product.shape, dtype=double) for product in block.products]
        self.half_life_samples = half_life_samples

    @property
    def half_life_samples(self) -> float | None:
        """Samples after which half of the weight is left."""
        return self._half_life_samples

    @half_life_samples.setter
    def half_life_samples(self, value: float | None) -> None:
        self._half_life_samples = value
        with self._device.queue():
            self._keep.fill_(1.0 if value is None else 0.5 ** (self._block.block_samples / value))

    @property
    def samples(self) -> float:
        """Effective number of samples. Waits for the device: for reports, not for the loop."""
        with self._device.queue():
            return float(self._samples)

    @property
    def rejected(self) -> int:
        """Samples left out because a channel was not finite. Waits for the device."""
        with self._device.queue():
            return int(self._rejected)

    def step(self) -> None:
        """Take in the block that `BlockScatter` saw last."""
        block, taken = self._block, self._block.usable
        keep = torch.where(taken, self._keep, self._one)
        added = torch.where(taken, self._length, self._none)
        old = keep * self._samples
        total = old + added
        share = added / total.clamp(min=1.0)
        difference = torch.where(taken, block.mean - self._mean, self._none)
        between = old * share * difference
        for group, scatter, product in zip(block.groups, self._scatter, block.products, strict=True):
            scatter.mul_(keep).add_(torch.where(taken, product, self._zero))
            shape = (len(group.members), group.size)
            left = between[group.first : group.stop].view(*shape, 1)
            scatter.baddbmm_(left, difference[group.first : group.stop].view(shape[0], 1, shape[1]))
        self._mean.add_(difference * share)
        self._samples.copy_(total)
        self._blocks.add_(taken)
        self._rejected.add_(self._length - added)

    def snapshot(self) -> CovarianceSnapshot:
        """An immutable copy on the host; waits for the device."""
        return self.request_snapshot()()

    def request_snapshot(self) -> Callable[[], CovarianceSnapshot]:
        """The same without waiting: the sums as they stand now come to the host beside the loop.

        The result waits for them and puts the snapshot together: to be called by whoever solves it, in any thread.
        """
        (counters, mean, *scatter), ready = self._device.download_beside((self._counters, self._mean, *self._scatter))
        block = self._block

        def collect() -> CovarianceSnapshot:
            if ready is not None:
                ready.synchronize()
            samples, blocks, rejected = counters.tolist()
            matrices: list[F64] = [np.empty((0, 0))] * len(self.clusters)
            for group, copy in zip(block.groups, scatter, strict=True):
                copies = copy.numpy()
                copies.flags.writeable = False
                for number, matrix in zip(group.members, copies, strict=True):
                    matrices[number] = matrix
            means = np.zeros(self.channel_count)
            means[block.order] = mean.numpy()
            means.flags.writeable = False
            resolution = float(np.finfo(np.float64).eps)
            if block.dtype == torch.float32:  # as in `covariance`: errors of blocks are independent
                resolution = max(float(np.finfo(np.float32).eps) / max(blocks, 1.0) ** 0.5, resolution)
            return CovarianceSnapshot(
                self.clusters, self.channel_count, samples, means, tuple(matrices), resolution, int(rejected)
            )

        return collect

    def restore(self, snapshot: CovarianceSnapshot) -> None:
        """As that of `neuroloop.signal.covariance`."""
        check_same_clusters(snapshot, self.clusters, self.channel_count)
        block = self._block
        is_single = block.dtype == torch.float32
        blocks = blocks_of(snapshot, np.float32 if is_single else np.float64)
        counters = [snapshot.samples, float(blocks), float(snapshot.rejected)]
        with self._device.queue():
            self._counters.copy_(torch.tensor(counters, dtype=torch.float64))
            self._mean.copy_(torch.from_numpy(snapshot.mean[block.order]))
            for group, scatter in zip(block.groups, self._scatter, strict=True):
                scatter.copy_(torch.from_numpy(np.stack([snapshot.scatter[member] for member in group.members])))

    def reset(self) -> None:
        """Forget everything."""
        with self._device.queue():
            for tensor in (self._counters, self._mean, *self._scatter):
                tensor.zero_()

    def state_dict(self) -> dict[str, Any]:
        with self._device.queue():
            state: dict[str, Any] = {
                "samples": float(self._samples),
                "blocks": int(self._blocks),
                "rejected": int(self._rejected),
                "mean": self._mean.to("cpu", copy=True),
            }
            for group, scatter in zip(self._block.groups, self._scatter, strict=True):
                state[f"scatter_{group.size}"] = scatter.to("cpu", copy=True)
            return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with self._device.queue():
            counters = [float(state[name]) for name in ("samples", "blocks", "rejected")]
            self._counters.copy_(torch.tensor(counters, dtype=torch.float64))
            self._mean.copy_(torch.as_tensor(state["mean"]))
            for group, scatter in zip(self._block.groups, self._scatter, strict=True):
                scatter.copy_(torch.as_tensor(state[f"scatter_{group.size}"]))
