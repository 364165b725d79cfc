"""Decoder kind `nearest`: the class whose mean rates are the nearest; learns online.

All that a kind needs: the attributes `kind`, `online`, `classes` and `settings_model`, and the methods of
`neuroloop.models.base.Decoder`. The state dict holds arrays and plain values, which is how it is stored and read back.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from neuroloop.errors import ModelError
from neuroloop.models.base import Scores


class NearestSettings(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    width: float = Field(10.0, gt=0, description="hertz, distance at which a class is e times less probable")


class Nearest:
    kind = "nearest"
    online = True
    settings_model = NearestSettings

    def __init__(self, classes: Sequence[str], features: int, settings: NearestSettings | None = None) -> None:
        self.classes = tuple(classes)
        self.settings = settings or NearestSettings()
        self._means = np.zeros((len(self.classes), features))
        self._counts = np.zeros(len(self.classes), np.int64)

    def predict(self, rates: NDArray[Any]) -> Scores:
        if not self._counts.all():
            nothing = np.zeros(len(self.classes))
            return Scores(nothing, None, "untrained: a label of every class is needed", nothing)
        values = -np.sqrt(np.mean((self._means - rates) ** 2, axis=1)) / self.settings.width
        probability = np.exp(values - values.max())
        return Scores(values, int(values.argmax()), None, probability / probability.sum())

    def learn(self, rates: NDArray[Any], label: int, duration_s: float = 1.0) -> None:
        self._counts[label] += 1
        self._means[label] += (rates - self._means[label]) / self._counts[label]

    def reset(self) -> None:
        pass

    def learned(self) -> dict[str, int]:
        return dict(zip(self.classes, self._counts.tolist(), strict=True))

    def state_dict(self) -> dict[str, Any]:
        about = {"kind": self.kind, "classes": list(self.classes), "settings": self.settings.model_dump()}
        return about | {"means": self._means.copy(), "counts": self._counts.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        means, counts = np.asarray(state["means"], float), np.asarray(state["counts"], np.int64)
        if means.shape != self._means.shape or counts.shape != self._counts.shape:
            raise ModelError(f"nearest: expected means of shape {self._means.shape}, got {means.shape}")
        self._means, self._counts = means.copy(), counts.copy()
