"""GSNN: a decoder that is a graph of sites, fitted from labelled trials.

    inputs (features) -> functions (sites, which hear their neighbours) -> outputs (classes)

`gsnn_graph` makes the graph, `gsnn_parameters` says what is computed on it, `gsnn_fit` fits it, and `gsnn_inference`
answers, and says how fast. Rates are standardised by the mean and deviation of those that it was fitted on; a rate that
is missing counts as its mean. Logits become probabilities at the temperature that fitted the held-back trials.

It doesn't learn in a session: labels tell how good it is, and a fit makes the next version.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models.base import Scores, check_same
from neuroloop.models.gsnn_inference import GSNNInference
from neuroloop.models.gsnn_settings import GSNNSettings
from neuroloop.models.gsnn_state import GSNNWeights, read_samples, read_weights
from neuroloop.models.online import check_sample

_UNTRAINED = "untrained: a gsnn decoder learns from a fit; load a fitted version"


class GSNN:
    """Answers with the class whose output is the largest. features: how many, or their shape."""

    kind = "gsnn"
    online = False
    settings_model = GSNNSettings

    def __init__(
        self, classes: Sequence[str], features: int | Sequence[int], settings: GSNNSettings | None = None
    ) -> None:
        self.classes = tuple(classes)
        self.shape = tuple(int(size) for size in np.atleast_1d(features))
        self.features = math.prod(self.shape)
        self.settings = settings or GSNNSettings()
        self._fitted: tuple[GSNNWeights, GSNNInference, float] | None = None

    @property
    def weights(self) -> GSNNWeights | None:
        """None before it was fitted."""
        return None if self._fitted is None else self._fitted[0]

    @property
    def temperature(self) -> float | None:
        """Of the softmax; None while nothing is known about it."""
        sharpness = 0.0 if self._fitted is None else self._fitted[2]
        return 1.0 / sharpness if sharpness > 0 else None

    def take(self, weights: GSNNWeights) -> None:
        """Answer with these weights from now on."""
        network = GSNNInference(weights.graph, self.settings, weights.parameters, weights.mean, weights.scale)
        given = self.settings.temperature
        self._fitted = weights, network, weights.sharpness if given is None else 1.0 / given
        self.predict(np.zeros(self.features, np.float32))  # compiles, or loads, what a bin runs

    def predict(self, rates: NDArray[Any]) -> Scores:
        """The scores for one rate vector, (features,) or of the decoder's shape, of any real type."""
        sample = check_sample(rates, self.shape)
        values, probability = np.zeros(len(self.classes)), np.zeros(len(self.classes))
        if self._fitted is None:
            return Scores(values, None, _UNTRAINED, probability)
        _, network, sharpness = self._fitted
        index, missing = network.answer(sample, sharpness, values, probability)
        reason = None
        if missing == self.features:
            reason = f"no evidence: all {missing} features are missing"
        elif not np.isfinite(values).all():
            reason = "out of range: the rates exceed what the network can add up"
        if reason is not None:
            values[:], probability[:] = 0.0, 0.0
        elif probability[index] < (self.settings.threshold or 0.0):
            asked = f"{self.settings.threshold:g} is asked"
            reason = f"below threshold: {self.classes[index]} at {probability[index]:.2f}, {asked}"
        return Scores(values, index if reason is None else None, reason, probability)

    def learn(self, rates: NDArray[Any], label: int | str, duration_s: float = 1.0) -> None:
        """Raises ModelError: it isn't fitted sample by sample."""
        raise ModelError("gsnn doesn't learn in a session: fit a new version from labelled data (POST /v1/fits)")

    def reset(self) -> None:
        """Nothing to drop: an answer depends on its own rate vector alone."""

    def learned(self) -> dict[str, int]:
        """Labelled samples of each class that it was fitted on."""
        samples = [0] * len(self.classes) if self._fitted is None else self._fitted[0].samples.tolist()
        return dict(zip(self.classes, samples, strict=True))

    def state_dict(self) -> dict[str, Any]:
        """Everything that an answer depends on, the settings included; of weights only their arrays."""
        about = {"kind": self.kind, "classes": list(self.classes), "settings": self.settings.model_dump(mode="json")}
        if self._fitted is None:
            return about | {"samples": np.zeros(len(self.classes), np.int64)}
        return about | self._fitted[0].arrays()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over what another decoder was fitted to; the settings stay this one's.

        Raises ModelError, and changes nothing, where it is of another kind, other classes, features or settings.
        """
        check_same(state, self.kind, classes=self.classes)
        if not read_samples(state, len(self.classes)).any():
            self._fitted = None
            return
        self.take(read_weights(self.settings, self.features, len(self.classes), state))
