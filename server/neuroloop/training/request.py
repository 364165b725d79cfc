"""What is asked of a fit. No numerics: the API reads it, the job's folder keeps it, the fit process obeys it."""

from __future__ import annotations

from copy import deepcopy
from itertools import product
from math import prod
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from neuroloop.config import BroadbandSettings, CountsSettings, FrontEnd, Name, Settings, check_kind
from neuroloop.errors import ModelError
from neuroloop.models.continuous_settings import CONTINUOUS
from neuroloop.session.labels import HISTORY_S

Kind = Literal[
    "maxrate",
    "poisson",
    "lda",
    "logistic",
    "csp",
    "riemann",
    "gsnn",
    "lfr",
    "ridge",
    "kalman",
    "gsnn_continuous",
    "lrr",
    "lnp",
]
Activation = Literal["none", "shadow", "active"]

CANDIDATES_LIMIT = 200  # of a search

# The held-out metrics that `min_metric` can be about, larger is better; the first is the default.
METRICS: dict[str, tuple[str, ...]] = {
    "maxrate": ("accuracy", "balanced_accuracy"),
    "poisson": ("accuracy", "balanced_accuracy"),
    "lda": ("accuracy", "balanced_accuracy"),
    "logistic": ("accuracy", "balanced_accuracy"),
    "csp": ("accuracy", "balanced_accuracy"),
    "riemann": ("accuracy", "balanced_accuracy"),
    "ridge": ("r2", "correlation"),
    "kalman": ("r2", "correlation"),
    "gsnn_continuous": ("r2", "correlation"),
    "lrr": ("explained_variance",),
    "lnp": ("correlation", "bits_per_spike"),
    "lfr": ("accuracy", "balanced_accuracy"),
    "gsnn": ("accuracy", "balanced_accuracy"),
}


class LiveSource(Settings):
    """Bins of a running session, with their labels or stimulus: the last seconds that it keeps, or those to come."""

    model_config = ConfigDict(populate_by_name=True)

    session: Name
    seconds: float = Field(gt=0, le=3600)
    which: Literal["last", "next"] = Field("last", alias="from")

    @model_validator(mode="after")
    def _is_kept(self) -> LiveSource:
        if self.which == "last" and self.seconds > HISTORY_S:
            raise ValueError(f"a session keeps its last {HISTORY_S:g} s; for more, give from: next")
        return self


class RecordingSource(Settings):
    """A recording in the server's folder of recordings, and how rates and labels are made from it."""

    name: str = Field(min_length=1, max_length=256, description="path below the folder of recordings")
    run: int | None = Field(None, ge=0, description="of a recording that has runs")
    rate: float | None = Field(None, gt=0, description="bins per second of a spike recording")
    stream: str | None = Field(None, max_length=256, description="of an .xdf file that has several: name or number")
    markers: str | None = Field(
        None,
        max_length=256,
        description="of an .xdf file, their stream: name or number; by default all of type Markers",
    )
    front_end: FrontEnd = Field(default_factory=CountsSettings, description="as in a session")
    bin_ms: float = Field(20.0, gt=0, le=10_000)
    labels: dict[str, str] | None = Field(None, description="marker text -> label; by default the text is the label")
    interval: tuple[float, float] = Field((0.0, 0.5), description="seconds relative to the marker: start, end")

    @model_validator(mode="after")
    def _ordered(self) -> RecordingSource:
        if not self.interval[0] < self.interval[1]:
            raise ValueError("interval: start must be before end")
        return self


class Source(Settings):
    """Where the data come from: exactly one of these. arrays: what the uploaded NPZ is called in the lineage."""

    live: LiveSource | None = None
    recording: RecordingSource | None = None
    recordings: list[RecordingSource] | None = Field(
        None, min_length=1, max_length=1000, description="for lrr: weights from the covariance of all of them"
    )
    arrays: str | None = Field(None, min_length=1, max_length=256)

    @model_validator(mode="after")
    def _is_one(self) -> Source:
        keys = ("live", "recording", "recordings", "arrays")
        given = [key for key in keys if getattr(self, key) is not None]
        if len(given) != 1:
            raise ValueError(f"expected exactly one of {', '.join(keys)}; got {', '.join(given) or 'none'}")
        return self


class FitRequest(Settings):
    """A model to be fitted, from what, and how good it must be to be used."""

    name: Name = Field(description="of the model whose next version the result becomes")
    kind: Kind
    settings: dict[str, Any] = Field(
        default_factory=dict,
        description="of the kind; for those that train in epochs, `training` holds those of the fit",
    )
    search: dict[str, Annotated[list[Any], Field(min_length=1)]] | None = Field(
        None,
        min_length=1,
        description="settings (or training.NAME) with the values to try: every combination is fitted and measured on "
        "the same held-out data, and the best by `metric` becomes the version",
    )
    source: Source
    classes: list[str] | None = Field(None, min_length=2, description="of a decoder; by default the labels that occur")
    window: int | None = Field(
        None,
        ge=1,
        le=10_000,
        description="bins whose mean is one sample of a decoder, by default all of a trial; for lfr, a rate vector",
    )
    held_out: float = Field(0.2, ge=0, lt=1, description="last share of the data, for the metrics alone")
    min_metric: float | None = Field(None, description="a held-out metric below this: registered, but not activated")
    metric: str | None = Field(None, description="that min_metric and search are about; by default the kind's first")
    seed: int = Field(0, ge=0, lt=2**31)
    parent: int | None = Field(None, ge=1, description="version that this one is to follow, for the lineage")

    @model_validator(mode="after")
    def _fits_together(self) -> FitRequest:
        if self.metric is not None and self.metric not in METRICS[self.kind]:
            raise ValueError(
                f"metric: expected one of {', '.join(METRICS[self.kind])} for {self.kind}, got {self.metric!r}"
            )
        if self.min_metric is not None and self.held_out == 0:
            raise ValueError("min_metric: nothing is held out to measure it on; give held_out above 0")
        if self.search is not None:
            self._check_search(self.search)
        if self.classes is not None and len(set(self.classes)) != len(self.classes):
            raise ValueError("classes: every class needs a name of its own")
        if self.kind == "lrr" and self.source.live is not None:
            raise ValueError(
                "source: live data are for decoders and encoders, not for lrr: "
                "POST /v1/sessions/{s}/rereference/fit fits weights from them"
            )
        if self.kind == "lnp" and self.source.recording is not None:
            raise ValueError(
                "source: an encoder needs the stimulus; upload arrays `stimulus` and `counts`, or name a live session"
            )
        if self.kind in CONTINUOUS and self.source.arrays is None:
            raise ValueError(f"source: {self.kind} needs continuous targets; upload arrays `rates` and `targets`")
        if self.kind != "lrr" and self.source.recordings is not None:
            raise ValueError(f"source: a fit of kind {self.kind} takes one recording; several are for lrr")
        recording = self.source.recording
        if self.kind != "lrr" and recording:
            if isinstance(recording.front_end, BroadbandSettings):
                raise ValueError(
                    "source: recording.front_end: expected counts, bandpower or covariance, which need no weights"
                )
            check_kind("kind", self.kind, recording.front_end)
        return self

    def _check_search(self, search: dict[str, list[Any]]) -> None:
        if self.held_out == 0:
            raise ValueError("search: nothing is held out to choose by; give held_out above 0")
        if self.source.recordings is not None:
            raise ValueError("search: a fit from several recordings takes one value of each setting")
        if (count := prod(map(len, search.values()))) > CANDIDATES_LIMIT:
            raise ValueError(f"search: {count} combinations; at most {CANDIDATES_LIMIT}")

    @property
    def searched(self) -> list[dict[str, Any]]:
        """The settings that each candidate of the search has for its own; of a fit without a search, one with none."""
        search = self.search or {}
        return [dict(zip(search, values, strict=True)) for values in product(*search.values())]

    @property
    def candidates(self) -> list[FitRequest]:
        """A request for each candidate of the search."""
        return [self.model_copy(update={"search": None, "settings": self._with(one)}) for one in self.searched]

    def _with(self, chosen: dict[str, Any]) -> dict[str, Any]:
        """The settings with these, by their paths. Raises ModelError where a path leads through what is no map."""
        settings = deepcopy(self.settings)
        for path, value in chosen.items():
            *way, name = path.split(".")
            place = settings
            for step in way:
                place = place.setdefault(step, {})
                if not isinstance(place, dict):
                    raise ModelError(f"search: {path}: {step} of the settings is no map of settings")
            place[name] = value
        return settings

    @property
    def gate(self) -> str:
        """The metric that min_metric is about, and by which a search chooses."""
        return self.metric or METRICS[self.kind][0]
