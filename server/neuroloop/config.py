"""The configuration of a session; `server_config` has that of a server, which one YAML file is.

Impossible values are refused where they enter, by a `ConfigError` that names the key, the value and what is allowed.
What depends on the stream (its rate, its channel labels) is checked here when the file states it
(`stream.nominal_srate`, `stream.channel_count`), and by the same function when the stream is found.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, PositiveInt, ValidationError, field_validator, model_validator

from neuroloop.errors import ConfigError
from neuroloop.signal.clusters import ByElement, Clusters, Neighbours, Position, resolve_clusters
from neuroloop.signal.lrr_settings import LRRSettings

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]
Band = tuple[float, float]


class Settings(BaseModel):
    """Base of all settings: frozen, and an unknown key is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StreamSelector(Settings):
    """Which LSL stream: every property given must match; `predicate` is an XPath over the stream's description."""

    name: str | None = None
    type: str | None = None
    source_id: str | None = None
    predicate: str | None = None

    @model_validator(mode="after")
    def _names_something(self) -> StreamSelector:
        if not (self.name or self.type or self.source_id or self.predicate):
            raise ValueError("give at least one of name, type, source_id, predicate")
        return self


class InletSettings(StreamSelector):
    """A stream of samples, and how it is received."""

    nominal_srate: float | None = Field(None, gt=0, le=1e6, description="Hz; a stream of another rate is refused")
    channel_count: int | None = Field(None, ge=1, le=65_536, description="a stream of another count is refused")
    dejitter: Literal["auto", "on", "off"] = Field(
        "auto", description="smooth the timestamps; auto: only when they are seen to jitter"
    )
    buffer_s: float = Field(4.0, ge=0.5, le=60, description="seconds of samples kept when the loop falls behind")
    stall_after_s: float = Field(0.5, gt=0, description="seconds without a sample until the stream counts as stalled")


class StreamSettings(InletSettings):
    """The stream of samples that drives a session."""

    channels: list[str] | None = Field(None, min_length=1, description="labels of the channels to use; all by default")
    fill: Literal["hold", "zero"] = Field("hold", description="what stands in for missing samples")


class StimulusSettings(InletSettings):
    """A second stream, for encoders: each sample is a frame of the stimulus, its channels the pixels."""

    frame: tuple[PositiveInt, PositiveInt, PositiveInt] | None = Field(
        None, description="channels, rows, columns of a frame; by default every channel of the stream is one"
    )
    patience_ms: float = Field(250.0, gt=0, le=10_000, description="longest that the encoders wait for a bin's frames")
    hold_s: float = Field(1.0, gt=0, le=3600, description="seconds that a frame stands in for those to come")


class EncoderSettings(Settings):
    """How the encoders of a session run; they come out of the registry."""

    online: bool = Field(False, description="learn from the spikes of every bin")
    score_half_life_s: float = Field(60.0, gt=0, description="after which a bin counts half in the running scores")


class MarkerSettings(Settings):
    """Labels from an LSL marker stream: marker text -> label, and the window around the marker that it labels."""

    stream: StreamSelector
    labels: dict[str, str] | None = Field(
        None, description="marker text -> label, other markers are ignored; by default the text is the label"
    )
    window: tuple[float, float] = Field((0.0, 0.5), description="seconds relative to the marker: start, end")

    @field_validator("window")
    @classmethod
    def _ordered(cls, window: tuple[float, float]) -> tuple[float, float]:
        if not window[0] < window[1]:
            raise ValueError("start must be before end")
        return window


class BroadbandSettings(Settings):
    """Raw electrode voltage -> band-pass -> rereference -> threshold crossings."""

    kind: Literal["broadband"] = "broadband"
    band: Band = Field((300.0, 6000.0), description="Hz, pass band of the causal Butterworth filter")
    order: int = Field(4, ge=1, le=8, description="order of the Butterworth prototype: that many sections")
    notch: list[float] = Field(default_factory=list, description="Hz, frequencies removed before the band-pass")
    threshold: float = Field(4.5, gt=0, description="k: a spike crosses -k * sigma")
    refractory_ms: float = Field(1.0, ge=0)
    calibration_s: float = Field(1.0, gt=0, le=60, description="seconds over which sigma is first estimated")
    sigma_half_life_s: float = Field(10.0, gt=0, description="half-life of the running estimate of sigma")


class CountsSettings(Settings):
    """Samples that are spike counts, or rates, already."""

    kind: Literal["counts"] = "counts"
    unit: Literal["counts", "rates"] = Field("counts", description="spikes per sample, or spikes per second")


class BandpowerSettings(Settings):
    """EEG -> rereference -> band-pass per band -> power per channel and band."""

    kind: Literal["bandpower"] = "bandpower"
    bands: dict[str, Band] = Field(
        default_factory=lambda: {"theta": (4.0, 7.0), "alpha": (8.0, 13.0), "beta": (14.0, 30.0)}, min_length=1
    )
    order: int = Field(4, ge=1, le=8)
    notch: list[float] = Field(default_factory=list)
    scale: Literal["power", "relative", "log"] = Field(
        "power", description="power; relative: each band over the sum of the bands; log: log(1 + power)"
    )


class CovarianceSettings(Settings):
    """EEG -> band-pass per band -> covariance between the channels, for decoders with spatial filters."""

    kind: Literal["covariance"] = "covariance"
    bands: dict[str, Band] = Field(default_factory=lambda: {"mu-beta": (8.0, 30.0)}, min_length=1)
    order: int = Field(4, ge=1, le=8)
    notch: list[float] = Field(default_factory=list)


FrontEnd = Annotated[
    BroadbandSettings | CountsSettings | BandpowerSettings | CovarianceSettings, Field(discriminator="kind")
]

OF_RATES = ("maxrate", "poisson")  # decoder kinds whose features are never negative
OF_COVARIANCE = ("csp", "riemann")  # those whose features are the covariance of channels


def check_kind(key: str, kind: str, front_end: FrontEnd) -> None:
    """Raise ValueError for a decoder kind that cannot work on what this front end gives."""
    if front_end.kind == "covariance" and kind in OF_RATES:
        raise ValueError(
            f"{key}: {kind} takes rates, and the front end covariance gives features that may be negative; "
            "expected csp, riemann, lda, logistic, or another kind that takes those"
        )
    if front_end.kind != "covariance" and kind in OF_COVARIANCE:
        raise ValueError(f"{key}: {kind} takes the front end covariance, got {front_end.kind}")


class RereferenceSettings(LRRSettings):
    """Linear regression rereferencing (LRR) in a session."""

    enabled: bool = True
    mode: Literal["frozen", "incremental", "forgetting"] = "incremental"
    half_life_s: float = Field(30.0, gt=0, description="of the covariance, in mode forgetting")
    update_every_s: float = Field(1.0, gt=0, description="how often new weights are solved, beside the loop")


class DecoderSettings(Settings):
    """One decoder of a session. Exactly one is active; the others run beside it as shadows."""

    name: Name
    kind: str = "maxrate"
    role: Literal["active", "shadow"] = "active"
    settings: dict[str, Any] = Field(default_factory=dict, description="settings of the model kind")
    budget_ms: float | None = Field(
        None, gt=0, description="longest that an answer may take; half a bin by default, at least 1 ms"
    )
    overrun_bins: int = Field(5, ge=1, description="bins in a row beyond the budget until the guard acts")


class OutletSettings(Settings):
    """LSL outlets of a session's results."""

    enabled: bool = True
    prefix: str | None = Field(None, description="of the outlets' names; the session's name by default")


class RecordingSettings(Settings):
    """How a session is recorded."""

    automatic: bool = Field(False, description="from its start to its end; otherwise when somebody asks for it")
    least_free_mb: float = Field(500.0, ge=0, description="on the disk; with less, no recording begins or goes on")
    buffer_mb: float = Field(64.0, gt=0, le=4096, description="of messages that wait for a slow disk")


class SessionSettings(Settings):
    """One closed loop: its inlet, its pipeline, its models, its outputs."""

    name: Name
    autostart: bool = True
    stream: StreamSettings
    markers: list[MarkerSettings] = Field(default_factory=list)
    stimulus: StimulusSettings | None = None
    encoder: EncoderSettings = Field(default_factory=EncoderSettings)
    front_end: FrontEnd = Field(default_factory=BroadbandSettings)
    rereference: RereferenceSettings = Field(default_factory=RereferenceSettings)
    device: Literal["auto", "cpu", "cuda"] = Field(
        "auto", description="of a broadband front end; auto: a GPU only where it is clearly faster at this size"
    )
    bin_ms: float = Field(20.0, gt=0, le=10_000)
    block_ms: float = Field(
        2.0, gt=0, le=10_000, description="longest block; the block is the largest divisor of the bin within it"
    )
    window: int = Field(25, ge=1, le=10_000, description="bins whose mean is the rate vector")
    settle_ms: float | None = Field(
        None,
        ge=0,
        le=600_000,
        description="after a start or a hole, until the filter counts as settled; 3 / lowest edge by default",
    )
    classes: list[str] = Field(default_factory=list, description="two or more, unless there are only targets")
    targets: list[str] = Field(default_factory=list, description="what decoders of continuous targets estimate")
    decoders: list[DecoderSettings] = Field(
        default_factory=lambda: [DecoderSettings(name="decoder", kind="maxrate")], min_length=1
    )
    staleness: Literal["catch_up", "skip_to_latest", "hold"] = Field(
        "catch_up",
        description="of a loop that falls behind: answer every bin late; let go of what waits; or give no labels",
    )
    stale_after_ms: float = Field(
        250.0, gt=0, description="from the arrival of a bin's last sample until its answer counts as stale"
    )
    outlets: OutletSettings = Field(default_factory=OutletSettings)
    recording: RecordingSettings = Field(default_factory=RecordingSettings)

    @field_validator("classes", "targets")
    @classmethod
    def _distinct(cls, names: list[str]) -> list[str]:
        if len(set(names)) != len(names):
            raise ValueError("every one needs a name of its own")
        return names

    @field_validator("decoders")
    @classmethod
    def _one_active(cls, decoders: list[DecoderSettings]) -> list[DecoderSettings]:
        active = [d.name for d in decoders if d.role == "active"]
        if len(active) != 1:
            raise ValueError(f"exactly one decoder has role 'active'; these have: {active}")
        names = [d.name for d in decoders]
        if len(set(names)) != len(names):
            raise ValueError(f"every decoder needs a name of its own; got {names}")
        return decoders

    @model_validator(mode="after")
    def _fits_together(self) -> SessionSettings:
        if len(self.classes) < (0 if self.targets and not self.classes else 2):
            raise ValueError(f"classes: expected at least 2, or targets alone; got {self.classes}")
        for marker in self.markers:
            for text, label in (marker.labels or {}).items():
                if label not in self.classes:
                    raise ValueError(
                        f"markers: {text!r} maps to {label!r}, which is none of the classes {self.classes}"
                    )
        if self.stimulus is not None and self.front_end.kind in ("bandpower", "covariance"):
            raise ValueError("stimulus: encoders predict spikes; expected front_end.kind broadband or counts")
        for decoder in self.decoders:
            check_kind(f"decoders: kind of {decoder.name!r}", decoder.kind, self.front_end)
        labels, clusters = self.stream.channels, self.rereference.clusters
        if isinstance(clusters, ByElement | Neighbours):
            pass  # only the stream can tell
        elif labels is None and self.stream.channel_count is not None:
            check_clusters(clusters, None, self.stream.channel_count)
        elif labels is not None:
            check_clusters(clusters, labels, len(labels))
        if self.stream.nominal_srate is not None:
            check_rate(self, self.stream.nominal_srate)
        return self


class LslSettings(Settings):
    """What liblsl is told. Nothing set: liblsl's own configuration file, where there is one, holds."""

    session_id: str | None = None
    known_peers: list[str] = Field(default_factory=list)
    log_level: int | None = Field(None, ge=-3, le=9, description="of liblsl's own log on stderr; -3 is silent")


def bin_samples(session: SessionSettings, nominal_srate: float) -> int:
    """Samples in a bin: the nearest whole number to bin_ms at this rate."""
    return round(session.bin_ms * nominal_srate / 1000)


def block_samples(session: SessionSettings, nominal_srate: float) -> int:
    """Samples in a block: the largest divisor of the bin that is no longer than block_ms, at least one sample."""
    per_bin = bin_samples(session, nominal_srate)
    longest = max(1, int(session.block_ms * nominal_srate / 1000))
    return next(n for n in range(min(longest, per_bin), 0, -1) if per_bin % n == 0)


def check_rate(session: SessionSettings, nominal_srate: float) -> None:
    """Raise ValueError for settings that a stream of this rate, in Hz, cannot serve."""
    if bin_samples(session, nominal_srate) < 1:
        raise ValueError(
            f"bin_ms: {session.bin_ms} is shorter than a sample of a {nominal_srate:g} Hz stream; "
            f"allowed: at least {1000 / nominal_srate:g}"
        )
    nyquist = nominal_srate / 2
    bands: dict[str, Band] = {}
    notches: list[float] = []
    if isinstance(session.front_end, BroadbandSettings):
        bands, notches = {"front_end.band": session.front_end.band}, session.front_end.notch
    elif isinstance(session.front_end, BandpowerSettings | CovarianceSettings):
        bands = {f"front_end.bands.{name}": band for name, band in session.front_end.bands.items()}
        notches = session.front_end.notch
    for key, (low, high) in bands.items():
        if not 0 < low < high < nyquist:
            raise ValueError(
                f"{key}: got [{low:g}, {high:g}] Hz; allowed: 0 < low < high < {nyquist:g} "
                f"(half the stream's {nominal_srate:g} Hz)"
            )
    for frequency in notches:
        if not 0 < frequency < nyquist:
            raise ValueError(f"front_end.notch: got {frequency:g} Hz; allowed: between 0 and {nyquist:g}")


def check_clusters(
    clusters: Clusters | None,
    labels: Sequence[str] | None,
    channel_count: int,
    metadata: Sequence[Mapping[str, str]] | None = None,
    positions: Sequence[Position | None] | None = None,
) -> list[list[int]]:
    """The clusters as lists of channel indices; raise ValueError as `signal.clusters.resolve_clusters` does.

    labels: the stream's channel labels, or None if they are not known yet (clusters by label then pass unresolved).
    metadata, positions: of each channel, as the stream describes them.
    """
    try:
        return resolve_clusters(clusters, channel_count, labels, metadata, positions)
    except ValueError as error:
        raise ValueError(f"rereference.{error}") from error


def explain(error: ValidationError) -> str:
    """One line per fault: the key, what is wrong, and the value that came."""
    lines = []
    for fault in error.errors():
        key = ".".join(str(part) for part in fault["loc"]) or "configuration"
        if fault["type"] == "extra_forbidden":
            lines.append(f"{key}: unknown key")
            continue
        message = re.sub(r"^Value error, ", "", fault["msg"])
        value = fault.get("input")
        shown = "" if isinstance(value, dict | BaseModel) else f"; got {value!r}"
        lines.append(f"{key}: {message}{shown}")
    return "\n".join(lines)


def parse_session(data: dict[str, Any]) -> SessionSettings:
    """One session's configuration from plain data. Raises ConfigError."""
    try:
        return SessionSettings.model_validate(data)
    except ValidationError as error:
        raise ConfigError(explain(error)) from error
