"""Linear regression rereferencing (LRR) as a library: fit, transform, save; no server, no stream, no thread.

    Y = X (I - W),   W[:, c]: the regression of channel c on the other channels of its cluster

The same statistics, solver, weights and files as in a session; `regression` has the mathematics. What differs is the
accumulation, which here is all in float64 and about speed second: a session takes blocks of 2 ms, a notebook hours.

    M2 <- f M2 + sum_i w_i (x_i - m_b)(x_i - m_b)^T + f n n_b / (f n + n_b) (m_b - m)(m_b - m)^T
    n_b = sum_i w_i,   w_i = 2^(-age of sample i / half-life),   f = 2^(-samples / half-life)

Every sample has its own weight, so with forgetting as well the result does not depend on how X was cut into chunks.
O(samples x channels x cluster) to accumulate, O(cluster^3) to solve, which happens when the weights are asked for.

    ezmsg-learn                               here
    channel_clusters, channel_groups          clusters
    ridge_lambda                              ridge_absolute (ridge is relative to the mean of the diagonal)
    incremental: true, false                  partial_fit, fit
    min_regress 2 (1.4), 3 (1.9 and later)    min_cluster
    weights                                   load
    init_default                              initial
    axis                                      channels last: np.moveaxis

LRRSettings(center=False, ridge=0, min_samples_per_channel=0) gives its numbers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ConfigError, ModelError
from neuroloop.signal.clusters import Position, resolve_clusters
from neuroloop.signal.covariance import CovarianceSnapshot, check_clusters, merge
from neuroloop.signal.lrr_settings import LRRSettings
from neuroloop.signal.regression import FLOAT32_RANK, solve
from neuroloop.signal.weight_files import Format, read_weights, write_weights
from neuroloop.signal.weights import Weights, car_weights, identity_weights, in_order_of, weights_from_array

__all__ = ["LRR", "LRRSettings", "LRRState", "accumulate"]

F64 = NDArray[np.float64]

SLICE = 1 << 22  # values that are converted to float64 at a time: 32 MiB


@dataclass(frozen=True, slots=True)
class LRRState:
    """All that changes. report: of the last solve; pending: samples came since, or it was never solved."""

    covariance: CovarianceSnapshot
    weights: Weights
    report: dict[str, Any]
    pending: bool


def _nothing(clusters: Sequence[Sequence[int]], channel_count: int) -> CovarianceSnapshot:
    checked = check_clusters(clusters, channel_count)
    scatter = tuple(np.zeros((len(cluster), len(cluster))) for cluster in checked)
    eps = float(np.finfo(np.float64).eps)
    return CovarianceSnapshot(checked, channel_count, 0.0, np.zeros(channel_count), scatter, eps, 0)


def accumulate(
    covariance: CovarianceSnapshot, samples: NDArray[Any], half_life_samples: float | None = None
) -> CovarianceSnapshot:
    """The covariance with these samples as well; the one given does not change.

    samples: (n, channels), real numbers of any type, oldest first. Those with a channel of a cluster that is not finite
    are left out and counted as rejected; no time passes with them. half_life_samples: None forgets nothing.
    """
    columns = np.array([channel for cluster in covariance.clusters for channel in cluster], dtype=np.intp)
    values = np.asarray(samples)[:, columns].astype(np.float64)
    finite = np.asarray(np.isfinite(values).all(axis=1))
    if not finite.all():
        values = values[finite]
    rejected = covariance.rejected + len(finite) - len(values)
    if not len(values):
        return replace(covariance, rejected=rejected)
    rounded = np.asarray(samples).dtype.kind == "f" and np.asarray(samples).dtype.itemsize <= 4
    resolution = max(covariance.resolution, FLOAT32_RANK if rounded else 0.0)
    keep, ages = 1.0, np.zeros(1)
    if half_life_samples is not None:
        keep = 0.5 ** (len(values) / half_life_samples)
        ages = np.arange(len(values))[::-1] / half_life_samples
    weights = np.broadcast_to(0.5**ages, len(values))
    gained = float(weights.sum())
    old = keep * covariance.samples
    center = weights @ values / gained
    values -= center
    weighted = values if half_life_samples is None else values * weights[:, None]
    difference = center - covariance.mean[columns]
    scatter, first = [], 0
    for before in covariance.scatter:
        inside = slice(first, first + len(before))
        product = weighted[:, inside].T @ values[:, inside]
        between = np.outer(difference[inside], difference[inside]) * (old * gained / (old + gained))
        scatter.append(keep * before + product + between)
        first = inside.stop
    mean = covariance.mean.copy()
    mean[columns] += difference * (gained / (old + gained))
    for array in (mean, *scatter):
        array.flags.writeable = False
    return CovarianceSnapshot(
        covariance.clusters,
        covariance.channel_count,
        old + gained,
        mean,
        tuple(scatter),
        resolution,
        rejected,
    )


class LRR:
    """Rereference of some channels.

    channels: labels, each once; or their number, and the labels are 1, 2, ... as for a stream that names none.
    nominal_srate: in hertz; `half_life_s` needs it. metadata, positions: of each channel, for clusters that are made
    from them. Raises ConfigError for clusters that overlap, name a channel that is not there, or cannot be made.

    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> X = rng.standard_normal((5000, 8)) + 10 * rng.standard_normal((5000, 1))
    >>> lrr = LRR(8, LRRSettings(clusters=4)).fit(X)
    >>> bool(lrr.transform(X).std() < 1.5)
    True
    >>> lrr.weights.version, lrr.weights.report["dead"]
    (1, [])
    """

    def __init__(
        self,
        channels: Sequence[str] | int,
        settings: LRRSettings | None = None,
        *,
        nominal_srate: float | None = None,
        metadata: Sequence[Mapping[str, str]] | None = None,
        positions: Sequence[Position | None] | None = None,
    ) -> None:
        labels = [str(number) for number in range(1, channels + 1)] if isinstance(channels, int) else list(channels)
        if not labels or len(set(labels)) != len(labels):
            raise ConfigError(f"channels: expected one or more labels, each once; got {labels}")
        self.channels = tuple(labels)
        self.settings = LRRSettings() if settings is None else settings
        try:
            resolved = resolve_clusters(self.settings.clusters, len(labels), labels, metadata, positions)
        except ValueError as error:
            raise ConfigError(str(error)) from error
        self.clusters = tuple(tuple(cluster) for cluster in resolved)
        self._half_life = self._half_life_samples(nominal_srate)
        initial = identity_weights(labels)
        if self.settings.initial == "car":
            initial = car_weights(labels, self.clusters)
        self._use(LRRState(_nothing(self.clusters, len(labels)), initial, {}, pending=False))

    def _half_life_samples(self, nominal_srate: float | None) -> float | None:
        if self.settings.half_life_s is None:
            return None
        if nominal_srate is None or not nominal_srate > 0:
            raise ConfigError(
                f"half_life_s: {self.settings.half_life_s:g} s need a nominal_srate above 0 Hz, got {nominal_srate}"
            )
        return self.settings.half_life_s * nominal_srate

    def _use(self, state: LRRState) -> None:
        self._state = state
        self._blocks = tuple(_blocks(state.weights.matrix, self.clusters))

    def fit(self, X: NDArray[Any]) -> LRR:
        """Weights from this X alone: what came before is forgotten. X: (..., channels), leading axes are samples.

        Raises ModelError, and keeps the weights, where a cluster has too few samples; and for another shape or type.
        """
        covariance = _nothing(self.clusters, len(self.channels))
        for samples in self._slices(X):
            covariance = accumulate(covariance, samples, self._half_life)
        state = self._solved(replace(self._state, covariance=covariance))
        if not state.report["ready"]:
            raise ModelError(f"rereference fit: {'; '.join(state.report['warnings'])}; the weights stay as they were")
        self._use(state)
        return self

    def partial_fit(self, X: NDArray[Any]) -> LRR:
        """Add X to the statistic; with a `half_life_s`, older samples fade. The weights follow when they are asked for.

        Until every cluster has its samples the weights stay as they are, and `report` says how many are needed.
        """
        covariance = self._state.covariance
        for samples in self._slices(X):
            covariance = accumulate(covariance, samples, self._half_life)
        self._state = replace(self._state, covariance=covariance, pending=True)
        return self

    def add(self, covariance: CovarianceSnapshot) -> LRR:
        """Add samples that were accumulated elsewhere, with the same clusters: `partial_fit` with their covariance."""
        merged = merge(self._state.covariance, covariance)
        self._state = replace(self._state, covariance=merged, pending=True)
        return self

    @property
    def covariance(self) -> CovarianceSnapshot:
        """Of the samples so far."""
        return self._state.covariance

    def transform(self, X: NDArray[Any]) -> NDArray[Any]:
        """`X (I - W)`. X: (..., channels); float64 stays float64, and all that float32 can hold becomes float32.

        Channels in no cluster come out as they are, to the bit. A value that is not finite reaches its cluster only.
        """
        given = self._checked(X)
        dtype = np.float32 if np.result_type(given.dtype, np.float32) == np.float32 else np.float64
        flat: NDArray[np.floating[Any]] = given.reshape(-1, given.shape[-1]).astype(dtype, copy=False)
        self._follow()
        out = flat.copy()
        with np.errstate(invalid="ignore"):  # Inf - Inf
            for where, matrix in self._blocks:
                out[:, where] = flat[:, where] - flat[:, where] @ matrix.astype(dtype)
        return out.reshape(given.shape)

    @property
    def weights(self) -> Weights:
        """The weights in use: immutable, with a version, the channels' labels, and the report of how they were made."""
        self._follow()
        return self._state.weights

    @property
    def report(self) -> dict[str, Any]:
        """Of the last fit, also where its weights did not come into use; see `solve`. Empty before the first."""
        self._follow()
        return self._state.report

    def load(self, weights: Weights | NDArray[Any] | bytes | str | Path, channels: Sequence[str] | None = None) -> LRR:
        """Use weights made elsewhere: a value, an array W, the bytes of a file, or the path of one.

        channels: labels of rows and columns where the weights do not say; in any order; by default ours.
        The statistic stays: a `partial_fit` goes on from it. Raises ModelError where labels, shape or values are wrong.
        """
        report: dict[str, Any] = {}
        named: Sequence[str] | None = None
        if isinstance(weights, Weights):
            matrix, named, report = weights.matrix, weights.channels, dict(weights.report)
        elif isinstance(weights, np.ndarray):
            matrix = weights
        else:
            matrix, named = read_weights(weights if isinstance(weights, bytes) else Path(weights).read_bytes())
        ordered = in_order_of(self.channels, matrix, channels if named is None else named)
        loaded = weights_from_array(ordered, self.channels, version=self._state.weights.version + 1)
        self._use(replace(self._state, weights=replace(loaded, report=report), pending=False))
        return self

    def save(self, format: Format = "npz") -> bytes:
        """The weights as a file that `load` and a server take; `Path(...).write_bytes` puts it on disk.

        NPZ and safetensors hold the labels, a CSV only the numbers of W, as ezmsg-learn reads it.
        """
        if format not in get_args(Format):
            raise ModelError(f"format: expected one of {', '.join(get_args(Format))}; got {format!r}")
        weights = self.weights
        return write_weights(format, weights.matrix, weights.channels, weights.version)

    def state_dict(self) -> dict[str, Any]:
        covariance, weights = self._state.covariance, self._state.weights
        return {
            "channels": list(self.channels),
            "clusters": [list(cluster) for cluster in self.clusters],
            "samples": covariance.samples,
            "resolution": covariance.resolution,
            "rejected": covariance.rejected,
            "mean": covariance.mean.copy(),
            "scatter": [scatter.copy() for scatter in covariance.scatter],
            "version": weights.version,
            "matrix": weights.matrix.copy(),
            "source": weights.source,
            "weights_report": weights.report,
            "report": self._state.report,
            "pending": self._state.pending,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Raises ModelError where the state is of other channels or clusters."""
        for key, ours in (("channels", self.channels), ("clusters", self.clusters)):
            theirs = tuple(tuple(part) if isinstance(part, list) else part for part in state[key])
            if theirs != ours:
                raise ModelError(f"rereference state: expected the {key} {ours}, got {theirs}")
        covariance = replace(
            self._state.covariance,
            samples=float(state["samples"]),
            resolution=float(state["resolution"]),
            rejected=int(state["rejected"]),
            mean=np.array(state["mean"], dtype=np.float64),
            scatter=tuple(np.array(scatter, dtype=np.float64) for scatter in state["scatter"]),
        )
        matrix = np.array(state["matrix"], dtype=np.float64)
        weights = Weights(int(state["version"]), matrix, self.channels, state["source"], dict(state["weights_report"]))
        self._use(LRRState(covariance, weights, dict(state["report"]), bool(state["pending"])))

    def _checked(self, X: NDArray[Any]) -> NDArray[Any]:
        given = np.asarray(X)
        if given.ndim < 1 or given.shape[-1] != len(self.channels):
            raise ModelError(f"X: expected (..., {len(self.channels)}), channels last; got {given.shape}")
        if given.dtype.kind not in "iuf":
            raise ModelError(f"X: expected integers or floats, got {given.dtype}")
        return given

    def _slices(self, X: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """X as (n, channels), a piece at a time: a recording need not fit into memory as float64."""
        given = self._checked(X)
        flat = given.reshape(-1, given.shape[-1])
        step = max(1, SLICE // len(self.channels))
        for first in range(0, len(flat), step):
            yield flat[first : first + step]

    def _follow(self) -> None:
        if self._state.pending:
            self._use(self._solved(self._state))

    def _solved(self, state: LRRState) -> LRRState:
        """With the weights of its covariance, or those it had where that has too few samples."""
        made = solve(
            state.covariance,
            self.channels,
            ridge=self.settings.ridge,
            ridge_absolute=self.settings.ridge_absolute,
            min_cluster=self.settings.min_cluster,
            min_samples_per_channel=self.settings.min_samples_per_channel,
            center=self.settings.center,
            version=state.weights.version + 1,
            source="fit",
        )
        weights = made if made.report["ready"] else state.weights
        return replace(state, weights=weights, report=made.report, pending=False)


def _blocks(matrix: F64, clusters: Sequence[Sequence[int]]) -> Iterator[tuple[slice | NDArray[np.intp], F64]]:
    """The parts of W that are not zero: per cluster, or in one where weights reach across clusters."""
    parts = [np.array(cluster, dtype=np.intp) for cluster in clusters]
    used = matrix != 0
    if sum(np.count_nonzero(used[np.ix_(part, part)]) for part in parts) != np.count_nonzero(used):
        parts = [np.flatnonzero(used.any(axis=0) | used.any(axis=1))]
    for part in parts:
        block = matrix[np.ix_(part, part)]
        if block.any():
            run = len(part) == part[-1] - part[0] + 1 and np.all(np.diff(part) == 1)
            yield (slice(int(part[0]), int(part[-1]) + 1) if run else part), block
