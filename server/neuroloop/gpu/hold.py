"""Samples that are missing, on a device: each takes its channel's last value, so that nothing leaks to its neighbours.

A product over all samples of a block, or over all channels of a cluster, would spread one NaN over everything. The last
finite row of each sample is a running maximum of row numbers. A running maximum walks through time one row after the
other, and waits for memory at each; so it runs within tiles of sqrt(n) rows, all at once, and then over the ends of
the tiles: 2 sqrt(n) steps instead of n.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neuroloop.gpu.torch_device import TorchDevice
from neuroloop.signal.spike_chain import LARGEST


class Hold:
    """Replaces samples that are not finite. Static tensors: `out`, (n, channels); `missing`, how many it replaced."""

    def __init__(self, device: TorchDevice, block_samples: int, channels: int) -> None:
        self._device = device
        self._samples = block_samples
        self._tile = math.isqrt(block_samples - 1) + 1
        tiles = -(-block_samples // self._tile)
        self._shape = (tiles, self._tile, channels)
        rows = np.arange(1, tiles * self._tile + 1)[:, None]
        self._rows = device.constant(rows, torch.int64)
        self._none = device.constant(0, torch.int64)
        self._source = device.zeros(len(rows) + 1, channels)  # row 0: the last finite values so far
        self.out = device.zeros(block_samples, channels)
        self.missing = device.zeros()

    def step(self, block: torch.Tensor) -> None:
        """block: (n, channels) float32."""
        source, n = self._source, self._samples
        source[1 : n + 1].copy_(block)
        finite = source[1:].abs() <= LARGEST
        latest = torch.where(finite, self._rows, self._none).view(self._shape).cummax(1).values
        ends = latest[:, -1].cummax(0).values
        latest[1:].copy_(torch.maximum(latest[1:], ends[:-1, None]))
        torch.gather(source, 0, latest.view(len(self._rows), -1)[:n], out=self.out)
        source[0].copy_(self.out[-1])
        self.missing.copy_(finite[:n].numel() - finite[:n].sum())

    def prime(self, sample: NDArray[Any]) -> None:
        """What to hold until the first finite value; sample: (channels,), all finite."""
        with self._device.queue():
            self._source[0].copy_(torch.as_tensor(sample, dtype=torch.float32))

    def reset(self) -> None:
        with self._device.queue():
            self._source.zero_()

    def state_dict(self) -> dict[str, Any]:
        with self._device.queue():
            return {"last": self._source[0].to("cpu", copy=True)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        with self._device.queue():
            self._source[0].copy_(torch.as_tensor(state["last"]))
