"""Whether the state of a decoder on class rates can be one, checked without the decoder and without a compiler.

The registry asks before it stores a file, a decoder before it takes a state over: the same functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError

TRIALS = 256  # that a calibration keeps


def check_class_rates(state: Mapping[str, Any], classes: int, features: int) -> None:
    """Raise ModelError unless sums, weights and counts are those of so many classes and features, and finite."""
    for name, shape in (("sums", (classes, features)), ("weights", (classes,)), ("counts", (classes,))):
        array = _array(state, name, shape)
        if not np.isfinite(array).all():
            raise ModelError(f"decoder state: {name} holds values that are not finite")
        if name != "sums" and (array < 0).any():
            raise ModelError(f"decoder state: expected {name} from 0 on, got {array.min()}")
    _whole_number(state, "missing")
    if not isinstance(state.get("signed"), bool):
        raise ModelError(f"decoder state: expected signed to be true or false, got {state.get('signed')!r}")


def check_trials(state: Mapping[str, Any], classes: int) -> None:
    """Raise ModelError unless the trials of a calibration are those of so many classes.

    Every trial has a largest logit of 0; -inf is a class that could not be the answer.
    """
    filled = min(_whole_number(state, "trial_count"), TRIALS)
    logits = _array(state, "trial_logits", (classes, filled))
    labels = _array(state, "trial_labels", (filled,))
    sharpness = state.get("sharpness")
    # NaN fails the first comparison
    fits = (logits <= 0).all() and (filled == 0 or (logits.max(axis=0) == 0).all())
    sharp = isinstance(sharpness, int | float) and 0 <= sharpness <= np.finfo(np.float64).max
    if not (fits and sharp and np.isin(labels, range(classes)).all()):
        raise ModelError("decoder state: the trials of the calibration are not finite logits of the decoder's classes")


def _array(state: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    if name not in state:
        raise ModelError(f"decoder state: {name} is missing")
    array = np.asarray(state[name])
    if array.shape != shape:
        raise ModelError(f"decoder state: expected {name} of shape {shape}, got {array.shape}")
    if array.dtype.kind not in "iuf":
        raise ModelError(f"decoder state: expected {name} as real numbers, got {array.dtype}")
    return array


def _whole_number(state: Mapping[str, Any], name: str) -> int:
    value = state.get(name)
    if type(value) is not int or value < 0:
        raise ModelError(f"decoder state: expected {name} as a whole number from 0 on, got {value!r}")
    return value
