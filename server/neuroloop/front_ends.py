"""The ways from samples to features. All end in one value per feature and bin; only covariances may be negative.

    broadband   band-pass -> rereference -> threshold crossings -> spikes per second
    counts      spike counts or rates as samples                -> spikes per second
    bandpower   band-pass -> rereference -> band-pass per band  -> mean power per channel and band
    covariance  band-pass per band                              -> mean product of each pair of channels, per band

A front end is called with every block, and asked for its features at the end of every bin.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Protocol

import numpy as np
import structlog
from numpy.typing import NDArray

from neuroloop.config import (
    BandpowerSettings,
    BroadbandSettings,
    CountsSettings,
    CovarianceSettings,
    SessionSettings,
    bin_samples,
    block_samples,
    check_clusters,
)
from neuroloop.covariance_front_end import CovarianceFrontEnd
from neuroloop.errors import ConfigError
from neuroloop.gpu.choice import choose_device
from neuroloop.signal.bandpower import BandPower, scale_power
from neuroloop.signal.covariance import BlockStatistics, Covariance
from neuroloop.signal.filter_design import design_bandpass, settle_seconds
from neuroloop.signal.filters import SosFilter
from neuroloop.signal.located_spikes import LocatedCrossings
from neuroloop.signal.rereference import Rereference
from neuroloop.signal.spike_chain import SpikeChain
from neuroloop.signal.spikes import ThresholdCrossings

log = structlog.get_logger(__name__)

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

HIGHEST_EDGE = 0.45  # of the sampling rate: a Butterworth edge nearer to Nyquist is badly conditioned


class RereferenceStage:
    """The rereference and the covariance that its weights are solved from."""

    def __init__(self, session: SessionSettings, nominal_srate: float, channels: tuple[str, ...]) -> None:
        settings = session.rereference
        self.channels = channels
        self.clusters = check_clusters(settings.clusters, channels, len(channels))
        forgetting = settings.half_life_s * nominal_srate if settings.mode == "forgetting" else None
        self.covariance = Covariance(self.clusters, len(channels), forgetting, settings.center)
        self.apply = Rereference(self.clusters, len(channels))
        self.fit_covariance: Covariance | None = None
        self.accumulates = settings.mode != "frozen"
        self._statistics: Callable[[], BlockStatistics | None] | None = None

    def __call__(self, block: F32, valid: bool) -> F32:
        """The rereferenced block. It counts for the weights once `accumulate` is called, before the next block."""
        self.expect(partial(self.covariance.statistics, block) if valid else None)
        return self.apply(block)

    def new_covariance(self) -> Covariance:
        """An empty one of the same clusters that forgets nothing, for `fit_covariance`."""
        return Covariance(self.clusters, len(self.channels), None, self.covariance.center)

    @property
    def learns(self) -> bool:
        """Whether anybody wants the statistics of blocks."""
        return self.accumulates or self.fit_covariance is not None

    def expect(self, statistics: Callable[[], BlockStatistics | None] | None) -> None:
        """What gives the last block's statistics, once `accumulate` is called, before the next block; None for none."""
        self._statistics = statistics

    def accumulate(self) -> None:
        """Take the last block into the covariance: a part of the work that the block's answer does not need."""
        if self._statistics is None or not self.learns:
            return
        statistics, self._statistics = self._statistics(), None
        if statistics is None:
            return
        if self.accumulates:
            self.covariance.absorb(statistics)
        if self.fit_covariance is not None:
            self.fit_covariance.absorb(statistics)


class WeightExchange(Protocol):
    """A rereference stage as whoever solves its weights sees it, on whichever device.

    apply: as `Rereference`. covariance, fit_covariance: as `Covariance`; the second is fed too, while there is one.
    """

    channels: tuple[str, ...]
    clusters: list[list[int]]
    apply: Any
    covariance: Any
    fit_covariance: Any
    accumulates: bool

    def new_covariance(self) -> Any: ...


class FrontEnd(Protocol):
    """Samples in, features out."""

    features: tuple[str, ...]
    settle_s: float
    device: str

    @property
    def gpu_memory_bytes(self) -> int:
        """On a GPU, and pinned for it."""

    @property
    def rereference(self) -> WeightExchange | None:
        """What the weights are exchanged through, where there is a rereference."""

    def step(self, block: F32, valid: bool) -> None:
        """Take in a block, (samples, channels). valid: nothing in it was missing, and the filters had settled."""

    def finish_bin(self) -> F32:
        """The features of the bin that the last block completed, (features,); valid until the next call."""

    def accumulate(self) -> None:
        """Do what the features of the last block did not need; to be called before the next block."""

    @property
    def calibrated(self) -> bool:
        """Whether features mean something yet."""

    def scale(self, factor: F64) -> None:
        """The amplitude of the rereferenced channels is about to change by these factors, (channels,)."""

    def interrupt(self) -> None:
        """Some samples of the last block were missing."""

    def reset(self) -> None:
        """The next block does not follow the last one; what was estimated (sigma) stays."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


def _rereference(session: SessionSettings, nominal_srate: float, channels: tuple[str, ...]) -> RereferenceStage | None:
    return RereferenceStage(session, nominal_srate, channels) if session.rereference.enabled else None


class Broadband:
    """Raw electrode voltage -> spikes per second of each channel."""

    device = "cpu"
    gpu_memory_bytes = 0

    def __init__(
        self, session: SessionSettings, settings: BroadbandSettings, nominal_srate: float, channels: tuple[str, ...]
    ) -> None:
        count = len(channels)
        self.features = channels
        self.settle_s = settle_seconds(settings.band)
        self.rereference = stage = _rereference(session, nominal_srate, channels)
        self._detection = (
            count,
            nominal_srate,
            settings.threshold,
            settings.refractory_ms,
            settings.calibration_s,
            settings.sigma_half_life_s,
        )
        sos = design_bandpass(settings.band, settings.order, nominal_srate, settings.notch)
        given = (stage.apply, stage.covariance) if stage is not None else ()
        self._chain = SpikeChain(SosFilter(sos, count), ThresholdCrossings(*self._detection), *given)
        self._per_second = np.float32(nominal_srate / bin_samples(session, nominal_srate))
        self._spikes = np.zeros(count, np.float32)
        self._values = np.zeros(count, np.float32)
        self._fresh = True

    def step(self, block: F32, valid: bool) -> None:
        if self._fresh:
            self._chain.prime(block[0])
            self._fresh = False
        stage = self.rereference
        learn = valid and stage is not None and stage.learns
        self._spikes += self._chain(block, learn)
        if stage is not None:
            stage.expect(self._chain.statistics if learn else None)

    def finish_bin(self) -> F32:
        np.multiply(self._spikes, self._per_second, out=self._values)
        self._spikes[:] = 0
        return self._values

    def accumulate(self) -> None:
        if self.rereference is not None:
            self.rereference.accumulate()
        self._chain.crossings.conclude_calibration()

    def locate(self) -> LocatedCrossings:
        """Count the same spikes from the next block on, and tell their samples too: for what need not be fast."""
        located = LocatedCrossings(*self._detection)
        located.load_state_dict(self._chain.crossings.state_dict())
        self._chain.crossings = located
        return located

    @property
    def calibrated(self) -> bool:
        return self._chain.crossings.calibrated

    @property
    def sigma(self) -> F64:
        """Noise of each channel, (channels,), in the stream's unit; 0 before it is known."""
        return self._chain.crossings.sigma

    def scale(self, factor: F64) -> None:
        self._chain.crossings.scale_sigma(factor)

    def interrupt(self) -> None:
        self._chain.interrupt()

    def reset(self) -> None:
        self._chain.interrupt()
        self._spikes[:] = 0
        self._fresh = True

    def state_dict(self) -> dict[str, Any]:
        return self.stream_state() | {"chain": self._chain.state_dict()}

    def stream_state(self) -> dict[str, Any]:
        """The state but for what `rereference` gives access to."""
        return {"chain": self._chain.stream_state(), "spikes": self._spikes.copy(), "fresh": self._fresh}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._chain.load_state_dict(state["chain"])
        self._spikes[:] = state["spikes"]
        self._fresh = bool(state["fresh"])


class Counts:
    """Spike counts, or rates, that come as samples. There is nothing to rereference."""

    rereference: RereferenceStage | None = None
    device = "cpu"
    gpu_memory_bytes = 0
    settle_s = 0.0
    calibrated = True

    def __init__(
        self, session: SessionSettings, settings: CountsSettings, nominal_srate: float, channels: tuple[str, ...]
    ) -> None:
        per_bin = bin_samples(session, nominal_srate)
        self.features = channels
        # Counts add up over the bin, which lasts per_bin / nominal_srate; rates are averaged over its samples.
        self._factor = np.float32(nominal_srate / per_bin if settings.unit == "counts" else 1.0 / per_bin)
        self._sum = np.zeros(len(channels), np.float32)
        self._values = np.zeros(len(channels), np.float32)

    def step(self, block: F32, valid: bool) -> None:
        self._sum += block.sum(axis=0)

    def finish_bin(self) -> F32:
        np.multiply(self._sum, self._factor, out=self._values)
        np.maximum(self._values, 0, out=self._values)
        self._sum[:] = 0
        return self._values

    def accumulate(self) -> None:
        """Nothing is left to do."""

    def scale(self, factor: F64) -> None:
        """Nothing here depends on the rereference."""

    def interrupt(self) -> None:
        """Nothing here looks back."""

    def reset(self) -> None:
        self._sum[:] = 0

    def state_dict(self) -> dict[str, Any]:
        return {"sum": self._sum.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._sum[:] = state["sum"]


class Bandpower:
    """EEG -> mean power of each channel in each band.

    The rereference works on one band that holds all the others, so that neither offsets nor drifts shape its weights.
    """

    calibrated = True
    device = "cpu"
    gpu_memory_bytes = 0

    def __init__(
        self, session: SessionSettings, settings: BandpowerSettings, nominal_srate: float, channels: tuple[str, ...]
    ) -> None:
        count = len(channels)
        low = min(band[0] for band in settings.bands.values()) / 2
        high = max(band[1] for band in settings.bands.values())
        upper = min(1.5 * high, HIGHEST_EDGE * nominal_srate)
        wide = (low, upper if upper > high else (high + nominal_srate / 2) / 2)
        self.features = tuple(f"{channel}:{band}" for channel in channels for band in settings.bands)
        self.settle_s = settle_seconds(wide)
        self.rereference = _rereference(session, nominal_srate, channels)
        self._prefilter = SosFilter(design_bandpass(wide, 2, nominal_srate, settings.notch), count, "double")
        self._power = BandPower(settings.bands, settings.order, nominal_srate, count)
        self._scale = settings.scale
        self._per_sample = np.float32(1.0 / bin_samples(session, nominal_srate))
        self._sum = np.zeros((count, len(settings.bands)), np.float32)
        self._fresh = True

    def step(self, block: F32, valid: bool) -> None:
        if self._fresh:
            self._prefilter.prime(block[0])
            self._power.reset()
            self._fresh = False
        signal = self._prefilter(block)
        if self.rereference is not None:
            signal = self.rereference(signal, valid)
        self._sum += self._power(signal)

    def finish_bin(self) -> F32:
        values = scale_power(self._sum * self._per_sample, self._scale).reshape(-1)
        self._sum[:] = 0
        return values

    def accumulate(self) -> None:
        if self.rereference is not None:
            self.rereference.accumulate()

    def scale(self, factor: F64) -> None:
        """Power follows the new amplitude by itself."""

    def interrupt(self) -> None:
        """The filters run on over what was filled in."""

    def reset(self) -> None:
        self._sum[:] = 0
        self._fresh = True

    def state_dict(self) -> dict[str, Any]:
        return {
            "prefilter": self._prefilter.state_dict(),
            "power": self._power.state_dict(),
            "sum": self._sum.copy(),
            "fresh": self._fresh,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._prefilter.load_state_dict(state["prefilter"])
        self._power.load_state_dict(state["power"])
        self._sum[:] = state["sum"]
        self._fresh = bool(state["fresh"])


def make_front_end(session: SessionSettings, nominal_srate: float, channels: tuple[str, ...]) -> FrontEnd:
    """The front end that the configuration names, compiled and ready for its first block."""
    settings = session.front_end
    if isinstance(settings, BroadbandSettings):
        return _make_broadband(session, settings, nominal_srate, channels)
    if isinstance(settings, CountsSettings):
        return Counts(session, settings, nominal_srate, channels)
    if isinstance(settings, CovarianceSettings):
        return CovarianceFrontEnd(session, settings, nominal_srate, channels)
    return Bandpower(session, settings, nominal_srate, channels)


def _make_broadband(
    session: SessionSettings, settings: BroadbandSettings, nominal_srate: float, channels: tuple[str, ...]
) -> FrontEnd:
    """On the device that the configuration names or the size suggests. A GPU has to agree with the CPU first."""
    rereference = session.rereference
    clusters = check_clusters(rereference.clusters, channels, len(channels)) if rereference.enabled else []
    samples = block_samples(session, nominal_srate)
    if choose_device(session.device, block_samples=samples, channels=len(channels), clusters=clusters) == "cpu":
        return Broadband(session, settings, nominal_srate, channels)
    from neuroloop.gpu.check import disagreement  # imports PyTorch
    from neuroloop.gpu.front_end import TorchBroadband

    fault = disagreement(session, settings, nominal_srate, channels)
    if fault is None:
        return TorchBroadband(session, settings, nominal_srate, channels)
    if session.device == "cuda":
        raise ConfigError(f"device: expected a GPU that computes what the CPU does: {fault}; set device to cpu")
    log.warning("gpu_not_used", session=session.name, detail=fault)
    return Broadband(session, settings, nominal_srate, channels)
