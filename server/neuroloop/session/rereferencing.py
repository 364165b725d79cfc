"""When rereferencing weights are solved, and when they come into use.

The loop accumulates the covariance; one thread solves beside it. Every `update_every_s` of samples the loop takes a
snapshot and has it solved; the result comes into use exactly one period later, at a block boundary that is counted in
samples. So the same samples meet the same weights however fast they came. (A solve that takes longer than a period is
used at the end of the period in which it ends.) Weights that are uploaded, or fitted on request, come into use at the
first block boundary after they are ready, or at once while no samples come, and freeze the mode: what a person chose is
not overwritten a second later.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuroloop.config import RereferenceSettings
from neuroloop.errors import Conflict, ModelError, NeuroloopError, NotFound
from neuroloop.front_ends import WeightExchange
from neuroloop.session.journal import Journal
from neuroloop.session.priority import Level, step_back
from neuroloop.signal.covariance import CovarianceSnapshot
from neuroloop.signal.regression import FLOAT32_RANK, warm_up
from neuroloop.signal.rereference import (
    car_weights,
    identity_weights,
    predicted_scale,
    solve,
    weights_from_array,
)
from neuroloop.signal.weights import Weights, in_order_of

F64 = NDArray[np.float64]
Mode = Literal["frozen", "incremental", "forgetting"]
Collect = Callable[[], CovarianceSnapshot]

KEPT_BYTES = 64 << 20  # of past versions, so that the weights of a recent prediction can be fetched


@dataclass(frozen=True)
class Solved:
    """Weights laid out for use, and the factor by which they change each channel's amplitude."""

    prepared: Any
    scale: F64


@dataclass
class Job:
    """Something on its way beside the loop; `done` is told (version, weights) in the loop, or the error."""

    number: int
    result: Future[Solved]
    source: str
    done: Callable[[Weights | NeuroloopError], None]


@dataclass
class Fit:
    """A fit from live data that is still gathering samples."""

    identifier: str
    covariance: Any
    wanted: float
    ridge: float
    ridge_absolute: float | None
    done: Callable[[Weights | NeuroloopError], None]


class Rereferencing:
    """The weights of one session. All methods are called by the loop thread."""

    def __init__(
        self,
        stage: WeightExchange,
        settings: RereferenceSettings,
        *,
        nominal_srate: float,
        block_samples: int,
        scale: Callable[[F64], None],
    ) -> None:
        """scale: told the factor of each channel's amplitude when weights are exchanged."""
        self.mode: Mode = settings.mode
        self.half_life_s = settings.half_life_s
        self.ridge = settings.ridge
        self.ridge_absolute = settings.ridge_absolute
        self.bin = 0
        self.journal = Journal()  # that of the loop, once it has this
        self._settings = settings
        self._stage = stage
        self._scale = scale
        self._nominal_srate = nominal_srate
        self._period = max(1, round(settings.update_every_s * nominal_srate / block_samples))
        self._blocks = 0
        warm_up()
        self._solver = ThreadPoolExecutor(1, "rereference-solver", step_back, (Level.SESSION,))
        self._update: Future[Solved] | None = None
        self._updates = 0
        self._jobs: list[Job] = []
        self._job_count = 0
        self._fit: Fit | None = None
        self._fits = count(1)
        self.statistics: CovarianceSnapshot | None = None  # of the last solve, which weights follow the data by
        self._report: dict[str, Any] = {"ready": False, "dead": [], "warnings": []}
        initial = car_weights if settings.initial == "car" else None
        labels = stage.channels
        weights = initial(labels, stage.clusters, version=0) if initial else identity_weights(labels, version=0)
        stage.apply.set_weights(weights)
        self._recent: deque[Weights] = deque([weights], maxlen=max(2, KEPT_BYTES // (8 * max(1, len(labels)) ** 2)))

    @property
    def weights(self) -> Weights:
        """The weights in use."""
        weights: Weights = self._stage.apply.weights
        return weights

    @property
    def channels(self) -> tuple[str, ...]:
        return self._stage.channels

    @property
    def clusters(self) -> list[list[int]]:
        return self._stage.clusters

    def restore(self, weights: Weights, statistics: CovarianceSnapshot | None, settings: dict[str, Any]) -> None:
        """These were in use, and that was known; settings: as they were changed. Raises ModelError."""
        self._stage.apply.set_weights(weights)
        self._recent.append(weights)
        if statistics is not None:
            self._stage.covariance.restore(statistics)
            self.statistics = statistics
        self.half_life_s, self.bin = settings["half_life_s"], settings["bin"]
        self.ridge, self.ridge_absolute = settings["ridge"], settings["ridge_absolute"]
        self._report |= weights.report
        self._set_mode(settings["mode"])

    @property
    def is_busy(self) -> bool:
        """Whether something is being solved, or samples are gathered for it."""
        is_solving = self._update is not None and not self._update.done()
        return is_solving or self._fit is not None or bool(self._jobs)

    def state_dict(self) -> dict[str, Any]:
        """What `restore` leaves out: with it weights come into use at the same blocks, to the bit. Unless busy."""
        update = None if self._update is None else self._update.result()
        return {
            "blocks": self._blocks,
            "updates": self._updates,
            "jobs": self._job_count,
            "update": None if update is None else {"weights": update.prepared.weights, "scale": update.scale},
            "covariance": self._stage.covariance.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._blocks, self._updates, self._job_count = state["blocks"], state["updates"], state["jobs"]
        self._stage.covariance.load_state_dict(state["covariance"])
        if (update := state["update"]) is not None:
            self._update = Future()
            self._update.set_result(Solved(self._stage.apply.prepare(update["weights"]), update["scale"]))

    def after_block(self, seq: int) -> Iterator[tuple[str, str]]:
        """Called after every block; seq: of the bin to come. Yields events (name, text) that a person should see."""
        self._blocks += 1
        if self._fit is not None and self._fit.covariance.samples >= self._fit.wanted:
            self._solve_fit(self._fit)
        yield from self._finish_jobs(seq, "job")
        if self._blocks % self._period:
            return
        if self._update is not None and self.journal.is_due("update", self._updates, self._blocks, self._update):
            solved, self._update = self._update.result(), None
            if self.mode != "frozen":
                yield from self._take_update(solved, seq)
        if self.mode != "frozen" and self._update is None:
            collect = self._stage.covariance.request_snapshot()
            self._updates += 1
            self._update = self._solver.submit(
                self._solve, collect, self.weights, self.ridge, self.ridge_absolute, self.mode
            )

    def finish_jobs(self, seq: int) -> Iterator[tuple[str, str]]:
        """Use what is ready of uploads and fits, while no samples come."""
        yield from self._finish_jobs(seq, "idle job")

    def _finish_jobs(self, seq: int, what: str) -> Iterator[tuple[str, str]]:
        for job in [job for job in self._jobs if self.journal.is_due(what, job.number, self._blocks, job.result)]:
            self._jobs.remove(job)
            yield from self._finish(job, seq)

    def _solve(self, collect: Collect, old: Weights, ridge: float, ridge_absolute: float | None, source: str) -> Solved:
        """Beside the loop: touches nothing but its arguments and the settings."""
        snapshot = collect()
        if source != "fit":
            self.statistics = snapshot
        new = solve(
            replace(snapshot, resolution=max(snapshot.resolution, FLOAT32_RANK)),
            self._stage.channels,
            ridge=ridge,
            ridge_absolute=ridge_absolute,
            min_cluster=self._settings.min_cluster,
            min_samples_per_channel=self._settings.min_samples_per_channel,
            center=self._settings.center,
            version=0,
            source=source,
        )
        return self._prepare(snapshot, old, new)

    def _prepare(self, snapshot: CovarianceSnapshot, old: Weights, new: Weights) -> Solved:
        return Solved(self._stage.apply.prepare(new), predicted_scale(snapshot, old, new))

    def _take_update(self, solved: Solved, seq: int) -> Iterator[tuple[str, str]]:
        """The gate: weights from too few samples are reported, not used."""
        before, self._report = self._report, solved.prepared.weights.report
        if self._report["ready"]:
            self._use(solved, seq)
        if self._report["ready"] and not before["ready"]:
            yield "rereference_swapped", f"version {self.weights.version}: the first weights from live data"
        if self._report["dead"] != before["dead"]:
            names = ", ".join(self._report["dead"]) or "none any more"
            yield "rereference_swapped", f"near-constant channels, left out and passed through: {names}"

    def _use(self, solved: Solved, seq: int) -> Weights:
        weights: Weights = replace(solved.prepared.weights, version=self.weights.version + 1)
        self._stage.apply.set_weights(replace(solved.prepared, weights=weights))
        self._scale(solved.scale)
        self._recent.append(weights)
        self.bin = seq
        self.journal.note("rereference", version=weights.version, source=weights.source, weights=weights.matrix)
        return weights

    def _finish(self, job: Job, seq: int) -> Iterator[tuple[str, str]]:
        try:
            solved = job.result.result()
            report = solved.prepared.weights.report
            if not report.get("ready", True):
                raise ModelError(f"rereference fit: {'; '.join(report['warnings'])}; the weights stay as they were")
        except NeuroloopError as error:
            job.done(error)
            return
        self._set_mode("frozen")
        if job.source == "fit":
            self._report = report
        weights = self._use(solved, seq)
        job.done(weights)
        yield "rereference_swapped", f"version {weights.version} ({job.source}) from bin {seq} on; mode frozen"

    def load(
        self, matrix: NDArray[Any], channels: Sequence[str] | None, done: Callable[[Weights | NeuroloopError], None]
    ) -> None:
        """Use an uploaded W, (channels, channels), at the next block boundary.

        channels: labels of its rows and columns, in any order; None: the session's. `done` gets the weights or the
        ModelError that says what is wrong with them.
        """
        old, collect = self.weights, self._stage.covariance.request_snapshot()

        def prepare() -> Solved:
            ordered = in_order_of(self._stage.channels, matrix, channels)
            new = weights_from_array(ordered, self._stage.channels, source="upload")
            return self._prepare(collect(), old, new)

        self._submit("upload", self._solver.submit(prepare), done)

    def start_fit(self, seconds: float, ridge: float | None, done: Callable[[Weights | NeuroloopError], None]) -> str:
        """Gather so many seconds of samples from now on, solve, use. Raises Conflict while another fit runs."""
        if self._fit is not None or any(job.source == "fit" for job in self._jobs):
            raise Conflict("rereference fit: one is running; wait for its event fit_done")
        covariance = self._stage.new_covariance()
        self._stage.fit_covariance = covariance
        absolute = self.ridge_absolute if ridge is None else None
        chosen = self.ridge if ridge is None else ridge
        identifier = f"rereference-{next(self._fits)}"
        self._fit = Fit(identifier, covariance, seconds * self._nominal_srate, chosen, absolute, done)
        return identifier

    def _solve_fit(self, fit: Fit) -> None:
        self._fit = self._stage.fit_covariance = None
        result = self._solver.submit(
            self._solve, fit.covariance.request_snapshot(), self.weights, fit.ridge, fit.ridge_absolute, "fit"
        )
        self._submit("fit", result, fit.done)

    def _submit(self, source: str, result: Future[Solved], done: Callable[[Weights | NeuroloopError], None]) -> None:
        self._job_count += 1
        self._jobs.append(Job(self._job_count, result, source, done))

    def abandon_fit(self) -> None:
        """Gather no more samples; whoever waits for the fit is told."""
        if self._fit is not None:
            self._fit.done(Conflict("the session stopped before the fit had its samples"))
        self._fit = self._stage.fit_covariance = None

    def set_mode(self, mode: Mode | None, half_life_s: float | None, ridge: float | None) -> None:
        """Change how the weights follow the data, from the next block on; None leaves a setting as it is."""
        if half_life_s is not None:
            self.half_life_s = half_life_s
        if ridge is not None:
            self.ridge, self.ridge_absolute = ridge, None
        self._set_mode(mode or self.mode)

    def _set_mode(self, mode: Mode) -> None:
        self.mode = mode
        self._stage.accumulates = mode != "frozen"
        self._stage.covariance.half_life_samples = (
            self.half_life_s * self._nominal_srate if mode == "forgetting" else None
        )

    def recent(self, version: int | None) -> Weights:
        """The weights in use, or a recent version of them. Raises NotFound."""
        if version is None:
            return self.weights
        for weights in self._recent:
            if weights.version == version:
                return weights
        raise NotFound(
            f"rereference weights: version {version} is not kept; "
            f"there are {self._recent[0].version} to {self._recent[-1].version}"
        )

    def describe(self) -> dict[str, Any]:
        """Plain values on the weights in use and how they follow the data."""
        weights, report = self.weights, self._report
        conditions = [c["condition"] for c in report.get("clusters", []) if c["condition"] is not None]
        return {
            "enabled": True,
            "mode": self.mode,
            "half_life_s": self.half_life_s,
            "ridge": self.ridge,
            "ridge_absolute": self.ridge_absolute,
            "center": self._settings.center,
            "version": weights.version,
            "bin": self.bin,
            "source": weights.source,
            "clusters": [[self._stage.channels[c] for c in cluster] for cluster in self._stage.clusters],
            "channels": list(self._stage.channels),
            "channel_count": len(self._stage.channels),
            "ready": report["ready"],
            "dead": report["dead"],
            "warnings": report["warnings"],
            "samples": self._stage.covariance.samples,
            "condition": max(conditions, default=None),
            "fitting": self._fit is not None,
        }

    def end(self) -> None:
        """End the solver; whoever waits for a job is told."""
        self._solver.shutdown(wait=False, cancel_futures=True)
        for job in self._jobs:
            job.done(Conflict("the session ended before the weights came into use"))
        self._jobs = []
        self.abandon_fit()
