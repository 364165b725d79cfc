"""Backbones as a session runs them: one rate vector per bin, numpy and compiled code, no PyTorch.

A convolution is fed as it comes: a bin more costs each layer one output, not those of the whole window, whose older
outputs are kept. For 96 units, width 64, two layers of 5 bins, a bin is

    5 * 96 * 64 + 5 * 64 * 64 = 51,200 multiplications, and 17 * 64 additions for the mean over the window

and reads 205 KB of weights once, which is what it costs: some 5 us from the second cache at 40 bytes/ns. The whole
window anew would be 21 * 30,720 + 17 * 20,480 = 993,000. Measured on one core of an EPYC, with a linear head and all
the Python around it: 9.4 us in the median, 13 at the 99th percentile; 38 us for 1024 units.

A gated recurrent unit starts from rest at the window's first bin, so all its steps are taken in each bin; what the
rates give to the gates is kept. That is 25 * 3 * 64 * 64 = 307,000 multiplications and 25 * 3 * 64 = 4,800 exponentials
or hyperbolic tangents, of some 10 ns each: 45 us measured, 67 for 1024 units.

The arrays of a backbone, float32: `weight0`, `bias0`, ... of each convolution, (kernel * inputs, width) and (width,);
or `inputs` (units, 3 width), `states` (width, 3 width), `readout` (width, width), and the bias of each.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neuroloop.models.backbone_kernels import push_conv, push_gru
from neuroloop.models.lfr_settings import LFRSettings

F32 = NDArray[np.float32]
Arrays = Mapping[str, F32]


class Stream(Protocol):
    """A backbone on the window of the last `bins` rate vectors."""

    bins: int
    count: int
    features: F32

    def push(self, rates: NDArray[Any]) -> None:
        """A rate vector more, (units,) contiguous float32 or float64; `features` follow once the window is full."""

    def reset(self) -> None:
        """Start an empty window."""

    def memory(self) -> dict[str, Any]:
        """A copy of the window."""

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on with that window."""


class ConvStream:
    """See the module's head. mean, std: (units,), what rates are standardised with."""

    def __init__(self, settings: LFRSettings, arrays: Arrays, mean: F32, std: F32) -> None:
        self.bins, self.count = settings.bins, 0
        self.features = np.zeros(settings.width, np.float32)
        self._mean, self._factor = mean, np.float32(1.0) / std
        layers = range(settings.depth)
        self._weights = tuple(arrays[f"weight{layer}"] for layer in layers)
        self._biases = tuple(arrays[f"bias{layer}"] for layer in layers)
        kernel = settings.kernel
        self._rings = tuple(np.zeros((kernel, len(weights) // kernel), np.float32) for weights in self._weights)
        self._pooled = np.zeros((settings.pooled, settings.width), np.float32)

    def push(self, rates: NDArray[Any]) -> None:
        push_conv(
            rates,
            self.count,
            self._mean,
            self._factor,
            self._weights,
            self._biases,
            self._rings,
            self._pooled,
            self.features,
        )
        self.count += 1

    def reset(self) -> None:
        self.count = 0

    def memory(self) -> dict[str, Any]:
        rings = [ring.copy() for ring in self._rings]
        return {"count": self.count, "rings": rings, "pooled": self._pooled.copy()}

    def recall(self, memory: Mapping[str, Any]) -> None:
        self.count = int(memory["count"])
        self._pooled[:] = memory["pooled"]
        for ring, kept in zip(self._rings, memory["rings"], strict=True):
            ring[:] = kept


class GRUStream:
    """See the module's head. mean, std: (units,), what rates are standardised with."""

    def __init__(self, settings: LFRSettings, arrays: Arrays, mean: F32, std: F32) -> None:
        self.bins, self.count = settings.bins, 0
        self.features = np.zeros(settings.width, np.float32)
        self._mean, self._factor = mean, np.float32(1.0) / std
        names = ("inputs", "input_bias", "states", "state_bias", "readout", "readout_bias")
        self._arrays = tuple(arrays[name] for name in names)
        self._scratch = np.zeros(len(mean), np.float32)
        self._ring = np.zeros((settings.bins, 3 * settings.width), np.float32)

    def push(self, rates: NDArray[Any]) -> None:
        push_gru(
            rates,
            self.count,
            self._mean,
            self._factor,
            *self._arrays,
            self._scratch,
            self._ring,
            self.features,
        )
        self.count += 1

    def reset(self) -> None:
        self.count = 0

    def memory(self) -> dict[str, Any]:
        return {"count": self.count, "ring": self._ring.copy()}

    def recall(self, memory: Mapping[str, Any]) -> None:
        self.count = int(memory["count"])
        self._ring[:] = memory["ring"]


def make_stream(settings: LFRSettings, arrays: Arrays, mean: F32, std: F32) -> Stream:
    return (ConvStream if settings.backbone == "conv" else GRUStream)(settings, arrays, mean, std)
