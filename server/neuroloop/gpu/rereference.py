"""Linear regression rereferencing on a device: `Y = X (I - W)`, clusters of one size as one batched product.

Weights are laid out and uploaded beside the loop (`prepare`), and come into use at a block boundary by a copy within
the device into the tensors that the captured graph reads. Weights that reach across clusters are honoured by one
product over all channels; that is another step, captured from the start, so that such an upload costs no bin.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from neuroloop.errors import ModelError
from neuroloop.gpu.groups import group_by_size
from neuroloop.gpu.torch_device import TorchDevice
from neuroloop.signal.covariance import check_clusters
from neuroloop.signal.weights import Weights, identity_weights


@dataclass(frozen=True, eq=False, slots=True)
class TorchWeights:
    """Weights on the device. stacks: per group (clusters, k, k), I - W; or one (channels, channels) for `dense`."""

    weights: Weights
    dense: bool
    stacks: tuple[Tensor, ...]
    ready: torch.cuda.Event | None


class TorchRereference:
    """Applies the current weights to blocks. Starts with the identity. Static tensor: `out`, (n, channels)."""

    def __init__(
        self, device: TorchDevice, clusters: Sequence[Sequence[int]], block_samples: int, channel_count: int
    ) -> None:
        self.clusters = check_clusters(clusters, channel_count)
        self.channel_count = channel_count
        self._device = device
        self._groups, order = group_by_size(self.clusters)
        self._contiguous = np.array_equal(order, np.arange(channel_count))
        self._columns = [device.constant(order[group.first : group.stop], torch.int64) for group in self._groups]
        self._stacks = [device.zeros(len(group.members), group.size, group.size) for group in self._groups]
        # One cluster of all channels holds every W there is.
        self.can_be_dense = not any(len(cluster) == channel_count for cluster in self.clusters)
        self._dense = device.zeros(*(channel_count, channel_count) if self.can_be_dense else (0, 0))
        self.out = device.zeros(block_samples, channel_count)
        self.is_dense = False
        self.set_weights(identity_weights([str(channel) for channel in range(channel_count)]))

    @property
    def weights(self) -> Weights:
        """The weights in use."""
        return self._weights

    def prepare(self, weights: Weights) -> TorchWeights:
        """Lay weights out on the device; changes nothing here, so it may run in any thread, beside the loop.

        Raises ModelError where they are for another number of channels.
        """
        expected = (self.channel_count, self.channel_count)
        if weights.matrix.shape != expected:
            raise ModelError(f"rereference weights: expected {expected}, got {weights.matrix.shape}")
        blocks = [
            np.stack([weights.matrix[np.ix_(self.clusters[n], self.clusters[n])] for n in group.members])
            for group in self._groups
        ]
        dense = sum(int(np.count_nonzero(b)) for b in blocks) < int(np.count_nonzero(weights.matrix))
        layout = [weights.matrix] if dense else blocks
        stacks, ready = self._device.upload_beside((np.eye(w.shape[-1]) - w).astype(np.float32) for w in layout)
        return TorchWeights(weights, dense, stacks, ready)

    def set_weights(self, weights: Weights | TorchWeights) -> None:
        """Use these from the next block on."""
        prepared = weights if isinstance(weights, TorchWeights) else self.prepare(weights)
        with self._device.queue():
            self._device.take_over(prepared.stacks, prepared.ready)
            for target, stack in zip([self._dense] if prepared.dense else self._stacks, prepared.stacks, strict=True):
                target.copy_(stack)
        self.is_dense = prepared.dense
        self._weights = prepared.weights

    def step_clusters(self, block: Tensor) -> None:
        """block: (n, channels) float32, finite. For weights within the clusters."""
        n = len(block)
        if not self._contiguous:
            self.out.copy_(block)
        for group, columns, stack in zip(self._groups, self._columns, self._stacks, strict=True):
            run = slice(group.first, group.stop)
            shape = (n, len(group.members), group.size)
            source = block[:, run] if self._contiguous else block.index_select(1, columns)
            product = torch.bmm(source.view(shape).transpose(0, 1), stack).transpose(0, 1)
            if self._contiguous:
                self.out[:, run].view(shape).copy_(product)
            else:
                self.out.index_copy_(1, columns, product.reshape(n, -1))

    def step_dense(self, block: Tensor) -> None:
        """The same for weights that reach across clusters."""
        torch.mm(block, self._dense, out=self.out)

    def state_dict(self) -> dict[str, Any]:
        weights = self._weights
        return {
            "version": weights.version,
            "matrix": torch.from_numpy(np.array(weights.matrix)),
            "channels": list(weights.channels),
            "source": weights.source,
            "report": weights.report,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        matrix = torch.as_tensor(state["matrix"], dtype=torch.float64).numpy().copy()
        self.set_weights(
            Weights(int(state["version"]), matrix, tuple(state["channels"]), state["source"], dict(state["report"]))
        )
