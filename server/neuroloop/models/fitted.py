"""What decoders that a fit makes at once have in common: a linear readout, calibrated answers, nothing to learn online.

A fit writes arrays (`fitted_state`); the decoder answers with the softmax of their logits, at the temperature that the
trials asked for which the fit left out in turn. A rate that is missing (NaN or infinite) makes it abstain. In a
session, labels tell how good it is, and a fit makes the next version.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models.answer_kernels import MISSING
from neuroloop.models.base import Scores, check_same
from neuroloop.models.fitted_settings import FittedSettings
from neuroloop.models.fitted_state import Arrays, read_fitted
from neuroloop.models.online import check_sample, is_ready
from neuroloop.models.readout import Readout


class FittedDecoder:
    """A decoder whose logits are linear in `inputs`, which a subclass makes of the rates.

    classes: their names. features: how many, or their shape.
    """

    kind: str
    online = False
    settings_model: ClassVar[type[FittedSettings]]

    def __init__(
        self, classes: Sequence[str], features: int | Sequence[int], settings: FittedSettings | None = None
    ) -> None:
        self.classes = tuple(classes)
        self.shape = tuple(int(size) for size in np.atleast_1d(features))
        self.features = math.prod(self.shape)
        self.settings = settings or self.settings_model.model_validate({})
        self._threshold = self.settings.threshold or 0.0
        self._arrays: Arrays | None = None
        self._readout: Readout | None = None
        self._sharpness = 0.0
        self._compile()

    def _compile(self, dtype: type[np.floating[Any]] = np.float32) -> None:
        """What a bin runs in a session once a version is loaded. dtype: of the inputs."""
        blank = Readout(np.zeros((1, 2)), np.zeros(2), np.ones(2, np.bool_))
        blank.answer(np.zeros(1, dtype), 1.0, np.empty(2), np.empty(2))

    def inputs(self, rates: NDArray[Any]) -> NDArray[Any]:
        """What the readout takes of a rate vector, contiguous; not finite where it is missing."""
        return rates

    @property
    def temperature(self) -> float | None:
        """Of the softmax; None while nothing is known about it, and every class is equally probable."""
        return 1.0 / self._sharpness if self._sharpness > 0 else None

    def take(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Answer by these arrays from now on. Raises ModelError, and changes nothing, where they do not fit."""
        found = read_fitted(self.settings, self.features, len(self.classes), arrays)
        self._arrays, self._readout = found, None
        if found is None:
            return
        given = self.settings.temperature
        self._sharpness = float(found["sharpness"][0]) if given is None else 1.0 / given
        self._prepare(found)
        matrix = np.ascontiguousarray(found["matrix"])
        self._readout = Readout(matrix, np.ascontiguousarray(found["bias"]), found["samples"] > 0)
        self.predict(np.ones(self.features, np.float32))  # compiles, or loads, what a bin runs

    def _prepare(self, arrays: Arrays) -> None:
        """Make of the arrays what `inputs` needs."""

    def predict(self, rates: NDArray[Any]) -> Scores:
        """The scores for one rate vector, (features,) or of the decoder's shape, of any real type."""
        sample = rates if is_ready(rates, (self.features,)) else check_sample(rates, self.shape)
        values, probability = np.zeros(len(self.classes)), np.zeros(len(self.classes))
        if self._readout is None:
            return Scores(
                values, None, f"untrained: load a version that a fit of kind {self.kind} has made", probability
            )
        outcome, index = self._readout.answer(self.inputs(sample), self._sharpness, values, probability)
        reason = None
        if outcome == MISSING or not np.isfinite(values).all():
            values[:], probability[:] = 0.0, 0.0
            reason = self._why_not(sample)
        elif self._threshold and probability[index] < self._threshold:
            asked = f"{self._threshold:g} is asked"
            reason = f"below threshold: {self.classes[index]} at {probability[index]:.2f}, {asked}"
        return Scores(values, index if reason is None else None, reason, probability)

    def _why_not(self, sample: NDArray[Any]) -> str:
        missing = int(np.count_nonzero(~np.isfinite(sample)))
        if missing:
            return f"missing: {missing} of {self.features} features"
        return "out of range: the features exceed what can be added up"

    def learn(self, rates: NDArray[Any], label: int | str, duration_s: float = 1.0) -> None:
        """Raises ModelError: it is not fitted sample by sample."""
        raise ModelError(f"{self.kind} does not learn in a session: fit a new version from labels (POST /v1/fits)")

    def reset(self) -> None:
        """Nothing to drop: an answer depends on its own rate vector alone."""

    def learned(self) -> dict[str, int]:
        """Labelled samples of each class that it was fitted on."""
        samples = [0] * len(self.classes) if self._arrays is None else self._arrays["samples"].tolist()
        return dict(zip(self.classes, samples, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Everything that an answer depends on, the settings included."""
        about = {"kind": self.kind, "classes": list(self.classes), "settings": self.settings.model_dump(mode="json")}
        if self._arrays is None:
            return about | {"samples": np.zeros(len(self.classes), np.int64)}
        return about | {name: array.copy() for name, array in self._arrays.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what another decoder was fitted to; the settings stay this one's.

        Raises ModelError, and changes nothing, where it is of another kind, other classes, features or settings.
        """
        check_same(state, self.kind, classes=self.classes)
        self.take(state)
