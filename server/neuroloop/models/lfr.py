"""Decoder kind `lfr`: a backbone pretrained without labels (`lfr_torch`), and a head on its features.

It is asked with one rate vector per bin and keeps the window that its backbone sees itself: it abstains until the
window is full, and anew after a reset. A rate that is missing counts as the unit's mean.

A label teaches a MaxRate head. What comes with it is the mean of the rates over the label's bins, which may lie a
minute back or, where lessons are carried to another decoder, were never seen by it; so the head learns the features of
a window that holds still at that mean, whenever the label comes. It costs: with 320 labels of 8 directions, 96
simulated units in bins of 20 ms and a pretrained backbone, 0.50 of new trials were answered right, and 0.61 where the
head had learned the windows themselves, as a fit teaches them and as `learn` takes them too.

Cost: see `backbones`; MaxRate or `width * classes` multiplications are added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models.backbones import Stream, make_stream
from neuroloop.models.base import Scores, check_same
from neuroloop.models.lfr_heads import make_head
from neuroloop.models.lfr_settings import LFRSettings
from neuroloop.models.lfr_state import backbone_shapes, check_state
from neuroloop.models.online import as_real, check_label, check_sample, is_ready

F32 = NDArray[np.float32]

_UNTRAINED = "untrained: the backbone was never fitted; load a version that a fit of kind lfr has made"


class LFR:
    """Answers with the class of the head; learns online where the head is MaxRate.

    online: whether `learn` takes labels. chosen: numbers of the projectors that the backbone learned to predict.
    """

    kind = "lfr"
    settings_model = LFRSettings
    online: bool = False

    def __init__(self, classes: Sequence[str], features: int, settings: LFRSettings | None = None) -> None:
        self.classes = tuple(classes)
        self.features = int(features)
        self.settings = settings or LFRSettings()
        self._head = make_head(self.classes, self.settings)
        self.online = self._head.online
        shapes = backbone_shapes(self.settings, self.features)
        blank = {name: np.zeros(shape, np.float32) for name, shape in shapes.items()}
        self.set_backbone(blank, np.zeros(self.features), np.zeros(self.features), ())
        self._warm_up()

    def set_backbone(
        self, arrays: Mapping[str, NDArray[Any]], mean: NDArray[Any], std: NDArray[Any], chosen: Sequence[int]
    ) -> None:
        """Take a backbone over. arrays: as in `backbones`. mean, std: (units,), of rates; std 0: never fitted."""
        self._arrays = {name: np.array(value, np.float32, order="C") for name, value in arrays.items()}
        self._mean, self._std = np.array(mean, np.float32), np.array(std, np.float32)
        self.chosen = tuple(int(number) for number in chosen)
        self._is_fitted = bool((self._std > 0).all())
        scale = self._std if self._is_fitted else np.ones_like(self._std)
        self._window: Stream = make_stream(self.settings, self._arrays, self._mean, scale)
        self._taught: Stream = make_stream(self.settings, self._arrays, self._mean, scale)

    def set_linear(self, weight: NDArray[Any], bias: NDArray[Any], counts: NDArray[Any], sharpness: float) -> None:
        """Take a linear head over; see `lfr_state` for the arrays."""
        arrays = {"weight": weight, "bias": bias, "counts": counts, "sharpness": [sharpness]}
        self._head.load_state_dict({f"head.{name}": value for name, value in arrays.items()})

    def predict(self, rates: NDArray[Any]) -> Scores:
        """The scores for the window that ends with this rate vector, (features,) of any real type."""
        sample = rates if is_ready(rates, (self.features,)) else check_sample(rates, (self.features,))
        if not self._is_fitted:
            return self._abstain(_UNTRAINED)
        window = self._window
        window.push(sample)
        if window.count < window.bins:
            return self._abstain(f"filling: {window.count} of the window's {window.bins} bins")
        return self._head.answer(window.features)

    def learn(self, rates: NDArray[Any], label: int | str, duration_s: float = 1.0) -> None:
        """Take in a rate vector of a class, (features,), or a window, (bins, features); its index or its name.

        duration_s: seconds that it adds to the age of what was learned; see `half_life_s`.
        Raises ModelError, and learns nothing, for a linear head, before a backbone was fitted, for a label of no class,
        another shape, or values that are all missing.
        """
        index = check_label(label, self.classes)
        if self.online and not self._is_fitted:
            raise ModelError(f"decoder of kind 'lfr': {_UNTRAINED}")
        self._head.learn(self.represent(rates), index, duration_s)

    def represent(self, rates: NDArray[Any]) -> F32:
        """The backbone's features, (width,), of a window (bins, features), or of one that holds still at (features,).

        Valid until the next call. Raises ModelError for another shape, or where every value is missing.
        """
        values = as_real(rates, "rates")
        if values.shape == (self.features,):
            values = np.broadcast_to(values, (self.settings.bins, self.features))
        if values.shape != (self.settings.bins, self.features):
            raise ModelError(
                f"rates: expected {self.features} features, or a window of ({self.settings.bins}, {self.features}); "
                f"got {values.shape}"
            )
        if not np.isfinite(values).any():
            raise ModelError(f"rates: all {values.size} values are missing; nothing to learn")
        stream = self._taught
        stream.reset()
        for row in np.array(values, np.float32, order="C"):  # a copy: a kernel for read-only arrays is another
            stream.push(row)
        return stream.features

    def reset(self) -> None:
        """Start an empty window. What was learned stays."""
        self._window.reset()

    def memory(self) -> dict[str, Any]:
        """A copy of the window."""
        return self._window.memory()

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on with that window."""
        self._window.recall(memory)

    def learned(self) -> dict[str, int]:
        """Labelled windows of each class so far."""
        return self._head.learned()

    def state_dict(self) -> dict[str, Any]:
        """Everything that an answer depends on but the window, the settings included. All else is arrays."""
        about = {"kind": self.kind, "classes": list(self.classes), "settings": self.settings.model_dump(mode="json")}
        arrays = {f"backbone.{name}": value.copy() for name, value in self._arrays.items()}
        arrays |= {"mean": self._mean.copy(), "std": self._std.copy(), "chosen": np.array(self.chosen, np.int64)}
        return about | arrays | self._head.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over another decoder's backbone and head; the settings stay this one's, and the window starts empty.

        Raises ModelError, and changes nothing, where it is of another kind, other classes or other shapes.
        """
        check_same(state, self.kind, classes=self.classes)
        check_state(state, self.settings, len(self.classes), self.features)
        self._head.load_state_dict(state)
        arrays = {name: state[f"backbone.{name}"] for name in self._arrays}
        self.set_backbone(arrays, state["mean"], state["std"], state["chosen"])

    def _abstain(self, reason: str) -> Scores:
        return Scores(np.zeros(len(self.classes)), None, reason, np.zeros(len(self.classes)))

    def _warm_up(self) -> None:
        """Compile, or load, what a bin runs in a session, whose rates are float32."""
        self._window.count = self.settings.bins - 1
        self._window.push(np.zeros(self.features, np.float32))
        self._head.answer(self._window.features)
        self._window.reset()
