"""What is put on a backbone: from its features, (width,) float32 from 0 on, to scores.

`LinearHead` is softmax regression, made by a fit. `MaxRateHead` is the decoder `maxrate` with the backbone's features
for rates: it learns online.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models.answer_kernels import MISSING, SILENT
from neuroloop.models.base import Scores
from neuroloop.models.lfr_settings import LFRSettings
from neuroloop.models.lfr_state import maxrate_arrays, maxrate_state
from neuroloop.models.maxrate import MaxRate
from neuroloop.models.online_settings import MaxRateSettings
from neuroloop.models.readout import Readout

F32 = NDArray[np.float32]


class Head(Protocol):
    """online: whether it learns in a session."""

    online: bool

    def answer(self, features: F32) -> Scores: ...

    def learn(self, features: F32, label: int | str, duration_s: float) -> None: ...

    def learned(self) -> dict[str, int]: ...

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Arrays only, `head.*`."""

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Takes over arrays that `lfr_state.check_state` found good."""


class LinearHead:
    """Logits are `features @ weight + bias`; probabilities their softmax, sharpened as held-back trials asked for."""

    online = False

    def __init__(self, classes: Sequence[str], settings: LFRSettings) -> None:
        self._classes, self._threshold = tuple(classes), settings.threshold or 0.0
        count = len(self._classes)
        self._set(np.zeros((settings.width, count)), np.zeros(count), np.zeros(count, np.int64), 1.0)

    def _set(self, weight: NDArray[Any], bias: NDArray[Any], counts: NDArray[Any], sharpness: float) -> None:
        self._counts, self._sharpness = np.array(counts, np.int64), sharpness
        self._readout = Readout(np.array(weight, np.float64, order="C"), np.array(bias, np.float64), self._counts > 0)

    def answer(self, features: F32) -> Scores:
        count = len(self._classes)
        values, probability = np.empty(count), np.empty(count)
        outcome, index = self._readout.answer(features, self._sharpness, values, probability)
        reason = None
        if np.count_nonzero(self._counts) < 2:
            reason = "untrained: the head was fitted to fewer than two classes"
            probability[:] = 0.0
        elif outcome == MISSING or not np.isfinite(values).all():
            reason = "out of range: the rates are too large for the backbone"
            values[:], probability[:] = 0.0, 0.0
        elif outcome == SILENT:
            reason = "no evidence: no feature speaks for a class"
        elif probability[index] < self._threshold:
            asked = f"{self._threshold:g} is asked"
            reason = f"below threshold: {self._classes[index]} at {probability[index]:.2f}, {asked}"
        return Scores(values, index if reason is None else None, reason, probability)

    def learn(self, features: F32, label: int | str, duration_s: float) -> None:
        raise ModelError(
            "decoder of kind 'lfr': its linear head is fitted, and does not learn online; fit it again, "
            "or fit one with head: maxrate"
        )

    def learned(self) -> dict[str, int]:
        return dict(zip(self._classes, self._counts.tolist(), strict=True))

    def state_dict(self) -> dict[str, NDArray[Any]]:
        return {
            "head.weight": self._readout.matrix.astype(np.float32),
            "head.bias": self._readout.bias.astype(np.float32),
            "head.counts": self._counts.copy(),
            "head.sharpness": np.array([self._sharpness], np.float32),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        counts, sharpness = state["head.counts"], float(state["head.sharpness"][0])
        weight, bias = (np.asarray(state[name], np.float32) for name in ("head.weight", "head.bias"))
        self._set(weight, bias, counts, sharpness)


class MaxRateHead:
    """See `maxrate`."""

    online = True

    def __init__(self, classes: Sequence[str], settings: LFRSettings) -> None:
        chosen = MaxRateSettings(threshold=settings.threshold, decay=settings.decay, half_life_s=settings.half_life_s)
        self._model = MaxRate(classes, settings.width, chosen)

    def answer(self, features: F32) -> Scores:
        return self._model.predict(features)

    def learn(self, features: F32, label: int | str, duration_s: float) -> None:
        self._model.learn(features, label, duration_s)

    def learned(self) -> dict[str, int]:
        return self._model.learned()

    def state_dict(self) -> dict[str, NDArray[Any]]:
        return maxrate_arrays(self._model.state_dict())

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        own = {"kind": self._model.kind, "classes": list(self._model.classes)}
        self._model.load_state_dict(own | maxrate_state(state))


def make_head(classes: Sequence[str], settings: LFRSettings) -> Head:
    return (LinearHead if settings.head == "linear" else MaxRateHead)(classes, settings)
