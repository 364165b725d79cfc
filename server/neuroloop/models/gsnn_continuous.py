"""GSNN for continuous targets, such as a cursor's velocity: the network of `gsnn`, whose outputs are targets.

    y = target_mean + target_scale outputs

Each bin is answered by itself. A rate that is missing counts as its mean, as in `gsnn`. `gsnn_continuous_fit` fits it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.models.base import Scores
from neuroloop.models.continuous import ContinuousDecoder
from neuroloop.models.continuous_settings import GSNNContinuousSettings
from neuroloop.models.gsnn_inference import GSNNInference
from neuroloop.models.gsnn_state import GSNNTargetWeights, read_target_weights
from neuroloop.models.online import check_sample


class GSNNContinuous(ContinuousDecoder):
    """Answers with what the network makes of the rates. The settings are those of its network."""

    kind = "gsnn_continuous"
    settings_model = GSNNContinuousSettings
    settings: GSNNContinuousSettings
    _fitted: tuple[GSNNTargetWeights, GSNNInference] | None = None

    def take(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Answer by these arrays from now on. Raises ModelError, and changes nothing, where they do not fit."""
        super().take(arrays)
        self._fitted = None
        if self._arrays is None:
            return
        known = read_target_weights(self.settings, self.features, len(self.targets), self._arrays)
        network = GSNNInference(known.graph, self.settings, known.parameters, known.mean, known.scale)
        self._fitted = known, network
        self.predict(np.zeros(self.features, np.float32))  # compiles, or loads, what a bin runs

    def predict(self, rates: NDArray[Any]) -> Scores:
        """The targets for one rate vector, (features,) or of the decoder's shape, of any real type."""
        sample = check_sample(rates, self.shape)
        if self._fitted is None:
            return self._abstain(self._untrained)
        known, network = self._fitted
        values, unused = np.zeros(len(self.targets)), np.zeros(len(self.targets))
        _, missing = network.answer(sample, 1.0, values, unused)
        if missing == self.features:
            return self._abstain(f"no evidence: all {missing} features are missing")
        values = values * known.target_scale + known.target_mean
        if not np.isfinite(values).all():
            return self._abstain("out of range: the rates exceed what the network can add up")
        return Scores(values, None, None, np.zeros(0))
