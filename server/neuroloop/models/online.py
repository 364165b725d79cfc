"""What decoders on class rates have in common: online learning, a linear readout, calibrated answers.

A subclass turns `ClassRates` into a readout when a sample is learned. The learner changes its class rates and trials in
place, under a lock; what it publishes for the answers, the readout and the sharpness, is made anew (12 bytes per
feature for MaxRate) and exchanged in a single assignment. So `predict` takes no lock, and a reader in another thread
sees the decoder before or after a sample, never in between; arrays that it still holds stay as they were.

A value that is missing (NaN or infinite) is left out: the answer is that of a decoder which never had the feature.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from operator import index as as_index
from threading import Lock
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models import calibration, class_rates
from neuroloop.models.answer_kernels import MISSING, SILENT
from neuroloop.models.base import BatchScores, Scores, check_same
from neuroloop.models.calibration import Trials
from neuroloop.models.class_rates import ClassRates
from neuroloop.models.online_settings import OnlineSettings, Rule
from neuroloop.models.readout import AnyReadout, Readout

F64 = NDArray[np.float64]

_F32, _F64 = np.dtype(np.float32), np.dtype(np.float64)
_OUT_OF_RANGE = "out of range: the rates, or what was learned from them, exceed 1e37"
_SILENT = "no evidence: every feature that speaks for a class is silent"


class ClassRateDecoder(ABC):
    """A decoder whose logits are linear in the rates and follow from the class rates.

    classes: their names. features: how many, or their shape, as (rows, columns) of an array of electrodes.
    """

    kind: str
    online = True
    settings_model: ClassVar[type[OnlineSettings]]
    _rule: Rule = "mean"

    def __init__(
        self, classes: Sequence[str], features: int | Sequence[int], settings: OnlineSettings | None = None
    ) -> None:
        self.classes = tuple(classes)
        self.shape = tuple(int(size) for size in np.atleast_1d(features))
        self.features = math.prod(self.shape)
        self.settings = settings or self.settings_model.model_validate({})
        self._flat = (self.features,)
        self._threshold = self.settings.threshold or 0.0
        self._kept = math.exp(-self.settings.decay)
        self._per_half_life = 0.0 if self.settings.half_life_s is None else 1.0 / self.settings.half_life_s
        self._fitted = self.settings.temperature is None
        self._sharpness = 0.0 if self.settings.temperature is None else 1.0 / self.settings.temperature
        self._lock = Lock()
        self._rates = ClassRates(len(self.classes), self.features, self._rule)
        self._trials = Trials(len(self.classes))
        self._published: tuple[AnyReadout, str | None, float]  # with the reason for no answer, and the sharpness
        self._publish(*self._readout(self._rates))
        self._warm_up()

    @abstractmethod
    def _readout(self, rates: ClassRates) -> tuple[AnyReadout, int, int]:
        """The readout, how many classes were seen, and how many can be the answer.

        `rates` may cover some of the features only. Where no class was seen, its logits are 0.
        """

    @property
    def readout(self) -> Readout:
        """What the answers follow from at this moment, as a matrix; arrays that never change."""
        return self._published[0].dense()

    @property
    def temperature(self) -> float | None:
        """Of the softmax; None while nothing is known about it, and every class is equally probable."""
        sharpness = self._published[2]
        return 1.0 / sharpness if sharpness > 0 else None

    def predict(self, rates: NDArray[Any]) -> Scores:
        """The scores for one rate vector, (features,) or of the decoder's shape, of any real type.

        Allocates its answer, two arrays of (classes,), and nothing else.
        """
        if not is_ready(rates, self._flat):
            rates = check_sample(rates, self.shape)
        readout, reason, sharpness = self._published
        values, probability = np.empty(len(self.classes)), np.empty(len(self.classes))
        outcome, index = readout.answer(rates, sharpness, values, probability)
        if outcome == MISSING:
            present = np.isfinite(rates)
            with self._lock:
                some, sharpness = self._rates.only(present), self._published[2]
            readout, seen, eligible = self._readout(some)
            reason = None if eligible >= 2 else self._why_not(some, seen)
            outcome, index = readout.answer(rates[present], sharpness, values, probability)
            if outcome == MISSING:
                values[:], reason = 0.0, _OUT_OF_RANGE
        if reason is not None:
            probability[:] = 0.0
        elif outcome == SILENT:
            reason = _SILENT
        elif self._threshold and probability[index] < self._threshold:
            asked = f"{self._threshold:g} is asked"
            reason = f"below threshold: {self.classes[index]} at {probability[index]:.2f}, {asked}"
        return Scores(values, index if reason is None else None, reason, probability)

    def predict_batch(self, inputs: NDArray[Any]) -> BatchScores:
        """The scores for each of several inputs: (batch, *shape), or (time, batch, *shape), averaged over time.

        Values that are missing at some times are left out of the average.
        """
        scores = [self.predict(sample) for sample in self._batch(inputs)]
        size = (len(scores), len(self.classes))
        return BatchScores(
            np.array([one.values for one in scores]).reshape(size),
            np.array([-1 if one.index is None else one.index for one in scores], dtype=np.intp),
            [one.reason for one in scores],
            np.array([one.probability for one in scores]).reshape(size),
        )

    def learn(self, rates: NDArray[Any], label: int | str, duration_s: float = 1.0) -> None:
        """Take in one rate vector, (features,) or of the decoder's shape, of a known class, its index or its name.

        duration_s: seconds that it adds to the age of what was learned; see `half_life_s`.
        Raises ModelError, and learns nothing, for a label of no class, another shape, or values that are all missing.
        """
        index = check_label(label, self.classes)
        sample = rates if is_ready(rates, self._flat) else check_sample(rates, self.shape)
        with self._lock:
            self._lesson(sample, index, duration_s)

    def learn_batch(
        self, inputs: NDArray[Any], labels: Sequence[int | str] | NDArray[Any], duration_s: float = 1.0
    ) -> None:
        """Take in several inputs: (batch, *shape), or (time, batch, *shape), averaged over time; labels: (batch,).

        As if they were learned one after the other; by rule "sum" as published, all at once. duration_s: of each.
        Raises ModelError, and learns nothing, as `learn` does.
        """
        samples = self._batch(inputs)
        indices = [check_label(label, self.classes) for label in labels]
        if len(indices) != len(samples):
            raise ModelError(f"labels: expected one for each of {len(samples)} inputs, got {len(indices)}")
        empty = np.flatnonzero(~np.isfinite(samples).any(axis=1))
        if len(empty):
            raise ModelError(f"inputs: all {self.features} values of number {empty[0]} are missing; nothing to learn")
        with self._lock:
            self._learn_batch(samples, indices, duration_s)

    def _learn_batch(self, samples: F64, indices: list[int], duration_s: float) -> None:
        for sample, index in zip(samples, indices, strict=True):
            self._lesson(sample, index, duration_s)

    def _lesson(self, sample: NDArray[Any], index: int, duration_s: float) -> None:
        """Learn one sample, (features,), as `is_ready` has it, and publish."""
        self._observe(sample, index)
        self._rates.learn(sample, index, *self._left(1, duration_s))
        self._publish(*self._readout(self._rates))

    def reset(self) -> None:  # noqa: B027 - no subclass has to drop anything
        """Nothing to drop: an answer depends on its own rate vector alone."""

    def learned(self) -> dict[str, int]:
        """Labelled samples of each class so far."""
        return dict(zip(self.classes, self._rates.counts.tolist(), strict=True))

    @property
    def missing(self) -> int:
        """Values among the learned ones that were missing."""
        return self._rates.missing

    def state_dict(self) -> dict[str, Any]:
        """Everything that an answer depends on, the settings included."""
        about = {"kind": self.kind, "classes": list(self.classes), "settings": self.settings.model_dump(mode="json")}
        with self._lock:
            return about | self._rates.state_dict() | self._trials.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what another decoder learned; the settings stay this one's.

        Raises ModelError, and changes nothing, where it is of another kind, other classes or other features.
        """
        check_same(state, self.kind, classes=self.classes)
        rates = class_rates.restore(state, len(self.classes), self.features, self._rule)
        trials = calibration.restore(state, len(self.classes))
        with self._lock:
            self._rates, self._trials = rates, trials
            self._publish(*self._readout(rates))

    def _batch(self, inputs: NDArray[Any]) -> F64:
        """(batch, features) float64."""
        values, axes = as_real(inputs, "inputs"), len(self.shape)
        if values.ndim not in (axes + 1, axes + 2) or values.shape[values.ndim - axes :] != self.shape:
            raise ModelError(
                f"inputs: expected (batch, *{self.shape}) or (time, batch, *{self.shape}), got {values.shape}"
            )
        values = values.astype(np.float64)
        if values.ndim == axes + 2:
            values = mean_of_known(values)
        return values.reshape(len(values), self.features)

    def _observe(self, sample: NDArray[Any], index: int) -> None:
        """The calibration's part of a labelled trial: how it would have been answered."""
        readout, reason, _ = self._published
        if not self._fitted or reason is not None:
            return
        values, even = np.empty(len(self.classes)), np.empty(len(self.classes))
        if readout.answer(sample, 0.0, values, even)[0] != MISSING:  # at sharpness 0: 0 only where not eligible
            self._trials.observe(values, even, index)

    def _left(self, count: int, duration_s: float) -> tuple[float, float]:
        """What so many samples leave of a class's older ones, and what their time leaves of everything learned."""
        return self._kept**count, 0.5 ** (duration_s * self._per_half_life)

    def _publish(self, readout: AnyReadout, seen: int, eligible: int) -> None:
        """By one assignment, which is what a reader in another thread sees."""
        reason = None if eligible >= 2 else self._why_not(self._rates, seen)
        sharpness = self._trials.sharpness if self._fitted else self._sharpness
        self._published = (readout, reason, sharpness)

    def _why_not(self, rates: ClassRates, seen: int) -> str:
        """The reason why fewer than two classes can be the answer."""
        if seen >= 2:
            return "no evidence: fewer than two classes have a feature that speaks for them"
        names = [name for name, known in zip(self.classes, rates.seen, strict=True) if known]
        known = f"labels seen of {len(names)} classes{f' ({names[0]})' if names else ''}"
        return f"untrained: {known}; two are needed"

    def _warm_up(self) -> None:
        """Compile, or load, what a bin and a lesson run in a session, whose rates are float32; 5 s the first time.

        Other types of input compile at their first use.
        """
        published, rates, trials = self._published, self._rates, self._trials
        self._rates = ClassRates(len(self.classes), self.features, self._rule)
        self._trials = Trials(len(self.classes))
        sample = np.ones(self.features, np.float32)
        for index in range(len(self.classes)):
            self._lesson(sample, index, 1.0)
        self._lesson(sample, 0, 1.0)  # the first that two classes have gone before: a trial for the calibration
        self.predict(sample)
        self._published, self._rates, self._trials = published, rates, trials


def is_ready(rates: Any, shape: tuple[int, ...]) -> bool:
    """Whether a kernel can take this as it is, without compiling for another kind of array."""
    return (
        type(rates) is np.ndarray
        and rates.shape == shape
        and (rates.dtype is _F32 or rates.dtype is _F64)
        and rates.flags.carray
    )


def mean_of_known(values: F64) -> F64:
    """Mean over the first axis of what is not missing; NaN where everything is."""
    known = np.isfinite(values)
    count = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    mean: F64 = np.divide(total, count, out=np.full(total.shape, np.nan), where=count > 0)
    return mean


def check_label(label: int | str, classes: tuple[str, ...]) -> int:
    """The index of a class, from itself or its name. Raises ModelError, naming the classes, where it is none."""
    if type(label) is int and 0 <= label < len(classes):
        return label
    if isinstance(label, str):
        index = classes.index(label) if label in classes else -1
    else:
        try:
            index = as_index(label)
        except TypeError:
            index = -1
    if not 0 <= index < len(classes):
        listed = ", ".join(f"{number} {name}" for number, name in enumerate(classes))
        raise ModelError(f"label: {label} is no class; there are: {listed}")
    return index


def as_real(values: Any, name: str) -> NDArray[Any]:
    """As an array. Raises ModelError unless it holds booleans, integers or floats."""
    array = np.asarray(values)
    if array.dtype.kind not in "biuf":
        raise ModelError(f"{name}: expected real numbers, got {array.dtype}")
    return array


def check_sample(rates: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A rate vector as the kernels take it: (features,), contiguous, float32 or float64.

    rates: of the shape, or flat. Raises ModelError for another shape, or what is not real numbers.
    """
    values, features = as_real(rates, "rates"), math.prod(shape)
    if values.shape not in (shape, (features,)):
        if len(shape) == 1 and values.ndim == 1:
            raise ModelError(f"rates: expected {features} features, got {len(values)}")
        raise ModelError(f"rates: expected shape {shape}, got {values.shape}")
    dtype = _F32 if values.dtype == _F32 else _F64
    return np.require(values.reshape(features), dtype, ["C", "A", "W"])
