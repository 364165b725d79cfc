"""What decoders on class rates have in common: online learning, a linear readout, calibrated answers.

A subclass turns `ClassRates` into a `Readout` when a sample is learned, so that an answer is one product of the rate
vector with a (features, classes) matrix. All that a prediction needs is one immutable snapshot, exchanged in
a single assignment: a reader in another thread sees the decoder before or after a sample, never in between.

A value that is missing (NaN or infinite) is left out: the answer is that of a decoder which never had the feature.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from neuroloop.errors import ModelError
from neuroloop.models import calibration, class_rates
from neuroloop.models.answer import MISSING, SILENT, answer
from neuroloop.models.base import Scores
from neuroloop.models.calibration import Calibration
from neuroloop.models.class_rates import ClassRates, check_label, check_sample

F64 = NDArray[np.float64]


class OnlineSettings(BaseModel):
    """Settings of every decoder on class rates."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    decay: float = Field(0.0, ge=0, description="forgetting per labelled sample of the same class, exp(-decay)")
    half_life_s: float | None = Field(None, gt=0, description="forgetting per second of labelled time; null for none")
    threshold: float | None = Field(None, gt=0, le=1, description="probability below which the decoder abstains")
    temperature: float | None = Field(None, gt=0, description="of the softmax; null fits it on past labelled trials")


@dataclass(frozen=True, eq=False, slots=True)
class Readout:
    """Logits are `rates @ matrix + bias`. matrix: (features, classes). bias: (classes,).

    eligible: (classes,), which classes can be the answer. reason: why there is no answer at all, or None.
    speaks: (features,), 1 for features of which one must be active for an answer; empty where silence is evidence too.
    """

    matrix: F64
    bias: F64
    eligible: NDArray[np.bool_]
    reason: str | None = None
    speaks: F64 = field(default_factory=lambda: np.zeros(0))


@dataclass(frozen=True, eq=False, slots=True)
class Snapshot:
    rates: ClassRates
    readout: Readout
    calibration: Calibration


class ClassRateDecoder(ABC):
    """A decoder whose logits are linear in the rates and follow from the class rates."""

    kind: str
    settings_model: ClassVar[type[OnlineSettings]]

    def __init__(self, classes: Sequence[str], features: int, settings: OnlineSettings | None = None) -> None:
        self.classes = tuple(classes)
        self.features = features
        self.settings = settings or self.settings_model.model_validate({})
        empty = ClassRates.empty(len(self.classes), features)
        self._snapshot = Snapshot(empty, self._untrained(empty), Calibration.empty(len(self.classes)))
        readout = replace(self._snapshot.readout, reason=None)
        self._answer(np.zeros(features, np.float32), readout, 0.0)  # compiles the kernel now, not at the first bin

    @abstractmethod
    def _readout(self, rates: ClassRates) -> Readout:
        """The readout once two classes have been seen; `rates` may cover some of the features only."""

    @property
    def temperature(self) -> float | None:
        """Of the softmax; None while nothing is known about it, and every class is equally probable."""
        sharpness = self._sharpness(self._snapshot)
        return 1.0 / sharpness if sharpness > 0 else None

    def predict(self, rates: NDArray[Any]) -> Scores:
        """The scores for a rate vector, (features,), of any real type."""
        snapshot = self._snapshot
        if not (isinstance(rates, np.ndarray) and rates.dtype == np.float32 and rates.shape == (self.features,)):
            rates = check_sample(rates, self.features)
        scores = self._answer(rates, snapshot.readout, self._sharpness(snapshot))
        if scores is not None:
            return scores
        sample = check_sample(rates, self.features)
        present = ~np.isnan(sample)
        scores = self._answer(
            sample[present], self._make_readout(snapshot.rates.only(present)), self._sharpness(snapshot)
        )
        assert scores is not None  # nothing is missing any more
        return scores

    def _answer(self, sample: NDArray[Any], readout: Readout, sharpness: float) -> Scores | None:
        """The answer of a readout; None where a value is missing."""
        values, probability = np.zeros(len(self.classes)), np.zeros(len(self.classes))
        if readout.reason is not None:
            return Scores(values, None, readout.reason, probability)
        outcome, index = answer(
            sample, readout.matrix, readout.bias, readout.eligible, readout.speaks, sharpness, values, probability
        )
        if outcome == MISSING:
            return None
        if outcome == SILENT:
            return Scores(values, None, "no evidence: every feature that speaks for a class is silent", probability)
        threshold = self.settings.threshold
        if threshold is not None and probability[index] < threshold:
            reason = f"below threshold: {self.classes[index]} at {probability[index]:.2f}, {threshold:g} is asked"
            return Scores(values, None, reason, probability)
        return Scores(values, index, None, probability)

    def learn(self, rates: NDArray[Any], label_index: int, duration_s: float = 1.0) -> None:
        """Take in a rate vector, (features,), of a known class.

        duration_s: seconds that it adds to the age of what was learned; see `half_life_s`.
        Raises ModelError, and learns nothing, for an index of no class, another size, or values that are all missing.
        """
        index = check_label(label_index, self.classes)
        sample = check_sample(rates, self.features)
        if np.isnan(sample).all():
            raise ModelError(f"rates: all {self.features} values are missing; nothing to learn")
        snapshot = self._snapshot
        readout, trials = snapshot.readout, snapshot.calibration
        answerable = readout.reason is None and bool(readout.eligible[index])
        if self.settings.temperature is None and answerable and np.isfinite(sample).all():
            trials = trials.observe(sample @ readout.matrix + readout.bias, readout.eligible, index)
        learned = snapshot.rates.learn(sample, index, self.settings.decay, self.settings.half_life_s, duration_s)
        self._snapshot = Snapshot(learned, self._make_readout(learned), trials)

    def reset(self) -> None:  # noqa: B027 - no subclass has to drop anything
        """Nothing to drop: an answer depends on its own rate vector alone."""

    def learned(self) -> dict[str, int]:
        """Labelled samples of each class so far."""
        return dict(zip(self.classes, self._snapshot.rates.counts.tolist(), strict=True))

    @property
    def missing(self) -> int:
        """Values among the learned ones that were missing."""
        return self._snapshot.rates.missing

    def state_dict(self) -> dict[str, Any]:
        """Everything that an answer depends on, the settings included."""
        snapshot = self._snapshot
        about = {"kind": self.kind, "classes": list(self.classes), "settings": self.settings.model_dump(mode="json")}
        return about | snapshot.rates.state_dict() | snapshot.calibration.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what another decoder learned; the settings stay this one's.

        Raises ModelError, and changes nothing, where it is of another kind, other classes or other features.
        """
        for name, expected in (("kind", self.kind), ("classes", list(self.classes))):
            if state.get(name) != expected:
                raise ModelError(f"decoder state: expected {name} {expected!r}, got {state.get(name)!r}")
        try:
            rates = class_rates.restore(state, len(self.classes), self.features)
            trials = calibration.restore(state, len(self.classes))
        except KeyError as error:
            raise ModelError(f"decoder state: {error.args[0]} is missing") from error
        self._snapshot = Snapshot(rates, self._make_readout(rates), trials)

    def _sharpness(self, snapshot: Snapshot) -> float:
        temperature = self.settings.temperature
        return snapshot.calibration.sharpness if temperature is None else 1.0 / temperature

    def _make_readout(self, rates: ClassRates) -> Readout:
        """The subclass's readout, or the reason why there cannot be one."""
        if np.count_nonzero(rates.seen) < 2:
            return self._untrained(rates)
        readout = self._readout(rates)
        if np.count_nonzero(readout.eligible) >= 2:
            return readout
        return replace(readout, reason="no evidence: fewer than two classes have a feature that speaks for them")

    def _untrained(self, rates: ClassRates) -> Readout:
        seen = [name for name, known in zip(self.classes, rates.seen, strict=True) if known]
        shape = rates.sums.shape
        return Readout(
            np.zeros(shape[::-1]),
            np.zeros(shape[0]),
            np.zeros(shape[0], np.bool_),
            f"untrained: labels seen of {len(seen)} classes{f' ({seen[0]})' if seen else ''}; two are needed",
        )
