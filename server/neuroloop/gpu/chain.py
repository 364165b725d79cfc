"""The broadband chain on a device: band-pass -> rereference -> threshold crossings -> counts, and the covariance.

    host                                     device
    block, stretches -> pinned memory  --->  arrival -> hold -> filter -> rereference -> crossings -> result
                                                                  |
    counts  <- pinned memory  <------------- result               +-> products -> covariance

A block goes up in one copy, with what the host has to tell about it. Two graphs are replayed per block: the answer, and
what the answer does not need (`accumulate`), which runs on while the host publishes. The host waits for the device once
per bin, in `finish_bin`, and nowhere else on the steady path. The first second, until sigma is known, is done without a
graph; so is the fit on request.

Uploads take turns between two pinned buffers, so that a block can be filled in while the last one is on its way. A
caller that writes its samples straight into `input` saves the copy into them.

Results are those of the stages on the CPU within 1e-4 of the signal's standard deviation; counts are equal but where a
sample is within rounding of the threshold. The same samples give the same results to the bit on the same device.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroloop.gpu.covariance import BlockScatter, TorchCovariance
from neuroloop.gpu.filter import BlockFilter
from neuroloop.gpu.hold import Hold
from neuroloop.gpu.rereference import TorchRereference, TorchWeights
from neuroloop.gpu.spikes import PLAN_COLUMNS, TorchCrossings
from neuroloop.gpu.torch_device import TorchDevice, tensor_bytes
from neuroloop.signal.filter_design import Precision
from neuroloop.signal.weights import Weights

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


@dataclass(eq=False, slots=True)
class Upload:
    """Pinned memory for a block and its stretches, and views of it. sent: when the device has read it."""

    memory: Tensor
    block: F32
    plan: F32
    sent: torch.cuda.Event | None


class TorchSpikeChain:
    """Spike counts of each channel, for blocks of (block_samples, channels) float32.

    sos: of the band-pass, as `design_bandpass` makes it. clusters: of the rereference, channel indices of each.
    half_life_samples: of the covariance; None forgets nothing. The rest is as for `ThresholdCrossings`.
    """

    def __init__(
        self,
        sos: F64,
        channels: int,
        nominal_srate: float,
        block_samples: int,
        clusters: Sequence[Sequence[int]],
        *,
        device: str | torch.device = "cuda",
        precision: Precision | None = None,
        threshold: float = 4.5,
        refractory_ms: float = 1.0,
        calibration_s: float = 1.0,
        sigma_half_life_s: float = 10.0,
        half_life_samples: float | None = None,
        center: bool = True,
    ) -> None:
        self.channels = channels
        self.block_samples = block_samples
        self.device = TorchDevice(device)
        self.accumulates = True
        self.fit_covariance: TorchCovariance | None = None
        self.held_count = 0
        self._hold = Hold(self.device, block_samples, channels)
        self._filter = BlockFilter(self.device, sos, block_samples, channels, precision)
        self.rereference = TorchRereference(self.device, clusters, block_samples, channels)
        self._crossings = TorchCrossings(
            self.device,
            block_samples,
            channels,
            nominal_srate,
            threshold,
            refractory_ms,
            calibration_s,
            sigma_half_life_s,
        )
        self._block_scatter = BlockScatter(self.device, clusters, block_samples, channels)
        self.covariance = TorchCovariance(self.device, self._block_scatter, half_life_samples, center)
        self._make_transfers()
        self._pending = False
        self._clustered = self.device.compile(self._step_clusters)
        self._dense = self.device.compile(self._step_dense) if self.rereference.can_be_dense else self._clustered
        self._products = self.device.compile(self._step_products)
        self._learn = self.device.compile(self.covariance.step)
        self.reset()

    def _make_transfers(self) -> None:
        samples = self.block_samples * self.channels
        shape = (self._crossings.stretches, PLAN_COLUMNS)
        self._uploads = [self._make_upload(samples, shape) for _ in range(2)]
        self._turn = 0
        arrival = self.device.zeros(samples + shape[0] * shape[1])
        self._arrival, self._plan = arrival, arrival[samples:].view(shape)
        self._block = arrival[:samples].view(self.block_samples, self.channels)
        self._held = self.device.zeros()
        self._result = self.device.zeros(self.channels + 1)  # spikes of the bin; last, the samples held
        self._answer = self.device.pinned(self.channels + 1)
        self._values: F32 = self._answer.numpy()
        self._answered = self.device.event()

    def _make_upload(self, samples: int, plan: tuple[int, int]) -> Upload:
        memory = self.device.pinned(samples + plan[0] * plan[1])
        values = memory.numpy()
        block = values[:samples].reshape(self.block_samples, self.channels)
        return Upload(memory, block, values[samples:].reshape(plan), self.device.event())

    @property
    def input(self) -> F32:
        """Where to write the samples of the next block, to save `step` a copy; pass the same array to it."""
        upload = self._uploads[self._turn]
        if upload.sent is not None:
            upload.sent.synchronize()  # of the block before the last one: long since
        return upload.block

    def __call__(self, block: F32, valid: bool = True) -> F32:
        """Spikes of each channel in this block, (channels,) float32; valid until the next call."""
        self.step(block, valid)
        self._request_bin()
        self.accumulate()  # the device goes on with it while the counts are on their way
        return self._take_bin()

    def step(self, block: F32, valid: bool = True) -> None:
        """Take in a block, without waiting for what comes of it. valid: it may count for the covariance."""
        target = self.input
        if block.shape != target.shape:
            raise ValueError(f"block: expected {target.shape}, got {block.shape}")
        if block is not target:
            np.copyto(target, block)
        upload = self._uploads[self._turn]
        self._turn = 1 - self._turn
        self._crossings.plan(upload.plan)
        with self.device.queue():
            self._arrival.copy_(upload.memory, non_blocking=True)
            if upload.sent is not None:
                upload.sent.record()
            if self._crossings.calibrated:
                (self._dense if self.rereference.is_dense else self._clustered)()
            else:
                self._step_calibration()
        self._pending = valid

    def accumulate(self) -> None:
        """Take the last block into the covariance; to be called before the next one. Waits for nothing."""
        fit = self.fit_covariance
        if not self._pending or not (self.accumulates or fit is not None):
            return
        self._pending = False
        with self.device.queue():
            self._products()
            if self.accumulates:
                self._learn()
            if fit is not None:
                fit.step()

    def finish_bin(self) -> F32:
        """Spikes of each channel since the last call, (channels,) float32; valid until the next call."""
        self._request_bin()
        return self._take_bin()

    def _request_bin(self) -> None:
        with self.device.queue():
            self._result[:-1].copy_(self._crossings.spikes)
            self._result[-1].copy_(self._held)
            self._answer.copy_(self._result, non_blocking=True)
            if self._answered is not None:
                self._answered.record()
            self._crossings.spikes.zero_()
            self._held.zero_()

    def _take_bin(self) -> F32:
        if self._answered is not None:
            self._answered.synchronize()
        self.held_count += int(self._values[-1])
        return self._values[:-1]

    def _step_clusters(self) -> None:
        self._step_filter()
        self.rereference.step_clusters(self._filter.out)
        self._crossings.step(self.rereference.out, self._plan)

    def _step_dense(self) -> None:
        self._step_filter()
        self.rereference.step_dense(self._filter.out)
        self._crossings.step(self.rereference.out, self._plan)

    def _step_calibration(self) -> None:
        self._step_filter()
        apply = self.rereference.step_dense if self.rereference.is_dense else self.rereference.step_clusters
        apply(self._filter.out)
        self._crossings.calibrate(self.rereference.out)
        self._crossings.step(self.rereference.out, self._plan)

    def _step_filter(self) -> None:
        self._hold.step(self._block)
        self._held.add_(self._hold.missing)
        self._filter.step(self._hold.out)

    def _step_products(self) -> None:
        self._block_scatter.step(self._filter.out, self._hold.missing)

    @property
    def weights(self) -> Weights:
        """The rereferencing weights in use."""
        return self.rereference.weights

    def set_weights(self, weights: Weights | TorchWeights) -> None:
        """Use these from the next block on; without a wait where `rereference.prepare` has laid them out."""
        self.rereference.set_weights(weights)

    def new_covariance(self) -> TorchCovariance:
        """Another covariance of the same blocks, that forgets nothing: for `fit_covariance`."""
        return TorchCovariance(self.device, self._block_scatter, None, self.covariance.center)

    @property
    def calibrated(self) -> bool:
        """Whether sigma is known, and spikes are counted."""
        return self._crossings.calibrated

    @property
    def sigma(self) -> F64:
        """Noise of each channel, (channels,); 0 before it is known. Waits for the device."""
        return self._crossings.sigma

    @property
    def is_captured(self) -> bool:
        """Whether blocks are replayed from graphs; see `device.capture_error` where they are not, on a GPU."""
        return self.device.is_cuda and self.device.capture_error is None

    @property
    def memory_bytes(self) -> int:
        """Bytes that the chain keeps on the device and in pinned memory, those of captured graphs included."""
        parts = (self._hold, self._filter, self.rereference, self._crossings, self._block_scatter, self.covariance)
        uploads = sum(upload.memory.nbytes for upload in self._uploads)
        return tensor_bytes(self, *parts) + uploads + self.device.graph_bytes

    def prime(self, sample: F32) -> None:
        """Start the filter as if the channels had stood at these values, (channels,), for ever."""
        values = np.where(np.isfinite(sample), sample, np.float32(0))
        self._filter.prime(values)
        self._hold.prime(values)

    def scale_sigma(self, factor: NDArray[np.floating[Any]]) -> None:
        """The amplitude of the rereferenced channels is about to change by these factors, (channels,)."""
        self._crossings.scale_sigma(factor)

    def interrupt(self) -> None:
        """The next sample does not follow the last one: no crossing spans the hole; what was estimated stays."""
        self._crossings.interrupt()

    def reset(self) -> None:
        """Back to the beginning, calibration and covariance included; weights belong to the channels, and stay."""
        for part in (self._hold, self._filter, self._crossings, self.covariance):
            part.reset()
        self._pending = False
        self.held_count = 0
        with self.device.queue():
            self._held.zero_()

    def state_dict(self) -> dict[str, Any]:
        """Everything that the results of the blocks to come depend on; tensors are on the CPU."""
        learned = {"rereference": self.rereference.state_dict(), "covariance": self.covariance.state_dict()}
        return self.stream_state() | learned

    def stream_state(self) -> dict[str, Any]:
        """The state but for the weights and their statistics, which take the most room. Waits for the device."""
        with self.device.queue():
            held = float(self._held)
        return {
            "hold": self._hold.state_dict(),
            "filter": self._filter.state_dict(),
            "crossings": self._crossings.state_dict(),
            "held": held,
            "held_count": self.held_count,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reset()
        self._hold.load_state_dict(state["hold"])
        self._filter.load_state_dict(state["filter"])
        self._crossings.load_state_dict(state["crossings"])
        if "rereference" in state:  # not in a `stream_state`
            self.rereference.load_state_dict(state["rereference"])
            self.covariance.load_state_dict(state["covariance"])
        self.held_count = int(state["held_count"])
        with self.device.queue():
            self._held.fill_(float(state["held"]))
