"""What decoders of the kinds `ridge` and `kalman` know, as arrays: checked without decoder and compiler.

matrix   (features, states), what a feature adds to the state     bias   (states,), what is added besides
follow   of kalman: (states, states), the state after the next bin where that is missing: `follow @ state`
correct  of kalman: (states, states), the part of the state before that stays beside the features' share
mean     (targets,), what is added to the first states to give the targets
samples  (1,) int64, bins that it was fitted on; 0 of one that never was

The states of ridge are its targets; of kalman its targets, and their changes where it has those. A decoder of kind
`gsnn_continuous` knows a network instead, and how it answers: `gsnn_state.GSNNTargetWeights`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from neuroloop.errors import ModelError
from neuroloop.models.base import check_settings
from neuroloop.models.continuous_settings import (
    CONTINUOUS,
    ContinuousSettings,
    GSNNContinuousSettings,
    KalmanSettings,
)
from neuroloop.models.fitted_state import Arrays, read_array
from neuroloop.models.gsnn_state import read_target_weights


def read_continuous(
    settings: ContinuousSettings, features: int, targets: int, state: Mapping[str, Any]
) -> Arrays | None:
    """The arrays of a fitted decoder out of a state dict; None of one that was never fitted.

    Raises ModelError, naming the array, where they are not those of such settings, features and targets.
    """
    samples = read_array(state, "samples", (1,), "iu")
    if samples[0] < 0:
        raise ModelError(f"decoder state: expected samples from 0 on, got {samples[0]}")
    if samples[0] == 0:
        return None
    if isinstance(settings, GSNNContinuousSettings):
        return read_target_weights(settings, features, targets, state).arrays()
    filtered = isinstance(settings, KalmanSettings)
    states = targets * (2 if isinstance(settings, KalmanSettings) and settings.velocity else 1)
    shapes = {"matrix": (features, states), "bias": (states,), "mean": (targets,)}
    if filtered:
        shapes |= {"follow": (states, states), "correct": (states, states)}
    found = {name: read_array(state, name, shape, "f").astype(np.float64) for name, shape in shapes.items()}
    if filtered and np.abs(np.linalg.eigvals(found["correct"])).max() >= 1:
        raise ModelError("decoder state: correct: expected eigenvalues below 1; this filter never settles")
    return found | {"samples": samples.astype(np.int64)}


def check_continuous(
    kind: str, settings: Mapping[str, Any], features: int, targets: int, state: Mapping[str, Any]
) -> None:
    """Raise ModelError unless settings and arrays are those of a decoder of this kind."""
    checked = check_settings(kind, CONTINUOUS[kind], settings)
    assert isinstance(checked, ContinuousSettings)
    read_continuous(checked, features, targets, state)
