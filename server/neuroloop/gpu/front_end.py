"""The broadband front end on a device: raw electrode voltage -> spikes per second, through one chain in PyTorch.

The same as `front_ends.Broadband` with its `RereferenceStage`, call by call. The device holds the spikes of a bin until
`finish_bin` asks for them; that is the one wait per bin.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.config import BroadbandSettings, SessionSettings, bin_samples, block_samples, check_clusters
from neuroloop.gpu.chain import TorchSpikeChain
from neuroloop.gpu.covariance import TorchCovariance
from neuroloop.signal.filter_design import design_bandpass, settle_seconds

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


class TorchRereferenceStage:
    """The rereference of a chain on a device, and its covariance, as whoever exchanges the weights sees them."""

    def __init__(self, chain: TorchSpikeChain, channels: tuple[str, ...], clusters: list[list[int]]) -> None:
        self.channels = channels
        self.clusters = clusters
        self.covariance = chain.covariance
        self.apply = chain.rereference
        self._chain = chain

    @property
    def accumulates(self) -> bool:
        """Whether blocks count for the covariance."""
        return self._chain.accumulates

    @accumulates.setter
    def accumulates(self, value: bool) -> None:
        self._chain.accumulates = value

    @property
    def fit_covariance(self) -> TorchCovariance | None:
        """Another covariance that blocks count for, while a fit gathers."""
        return self._chain.fit_covariance

    @fit_covariance.setter
    def fit_covariance(self, value: TorchCovariance | None) -> None:
        self._chain.fit_covariance = value

    def new_covariance(self) -> TorchCovariance:
        """An empty one of the same clusters that forgets nothing, for `fit_covariance`."""
        return self._chain.new_covariance()

    def accumulate(self) -> None:
        """Take the last block into the covariance; the device goes on with it while the host does something else."""
        self._chain.accumulate()


class TorchBroadband:
    """Raw electrode voltage -> spikes per second of each channel, on a device."""

    def __init__(
        self,
        session: SessionSettings,
        settings: BroadbandSettings,
        nominal_srate: float,
        channels: tuple[str, ...],
        device: str = "cuda",
    ) -> None:
        rereference = session.rereference
        clusters = check_clusters(rereference.clusters, channels, len(channels)) if rereference.enabled else []
        self.features = channels
        self.device = device
        self.settle_s = settle_seconds(settings.band)
        self.chain = TorchSpikeChain(
            design_bandpass(settings.band, settings.order, nominal_srate, settings.notch),
            len(channels),
            nominal_srate,
            block_samples(session, nominal_srate),
            clusters,
            device=device,
            threshold=settings.threshold,
            refractory_ms=settings.refractory_ms,
            calibration_s=settings.calibration_s,
            sigma_half_life_s=settings.sigma_half_life_s,
            half_life_samples=rereference.half_life_s * nominal_srate if rereference.mode == "forgetting" else None,
            center=rereference.center,
        )
        self.chain.accumulates = rereference.mode != "frozen"
        self.rereference = TorchRereferenceStage(self.chain, channels, clusters) if rereference.enabled else None
        self._per_second = np.float32(nominal_srate / bin_samples(session, nominal_srate))
        self._values: F32 = np.zeros(len(channels), np.float32)
        self._fresh = True

    def step(self, block: F32, valid: bool) -> None:
        if self._fresh:
            self.chain.prime(block[0])
            self._fresh = False
        self.chain.step(block, valid)

    def finish_bin(self) -> F32:
        np.multiply(self.chain.finish_bin(), self._per_second, out=self._values)
        return self._values

    def accumulate(self) -> None:
        if self.rereference is not None:
            self.rereference.accumulate()

    @property
    def gpu_memory_bytes(self) -> int:
        """Bytes on the device and pinned for it; 0 where PyTorch runs on the CPU."""
        return self.chain.memory_bytes if self.chain.device.is_cuda else 0

    @property
    def calibrated(self) -> bool:
        return self.chain.calibrated

    @property
    def sigma(self) -> F64:
        """Noise of each channel, (channels,), in the stream's unit; 0 before it is known. Waits for the device."""
        return self.chain.sigma

    def scale(self, factor: F64) -> None:
        self.chain.scale_sigma(factor)

    def interrupt(self) -> None:
        self.chain.interrupt()

    def reset(self) -> None:
        self.chain.interrupt()
        self.chain.finish_bin()
        self._fresh = True

    def state_dict(self) -> dict[str, Any]:
        return {"chain": self.chain.state_dict(), "fresh": self._fresh}

    def stream_state(self) -> dict[str, Any]:
        """The state but for what `rereference` gives access to."""
        return {"chain": self.chain.stream_state(), "fresh": self._fresh}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.chain.load_state_dict(state["chain"])
        self._fresh = bool(state["fresh"])
