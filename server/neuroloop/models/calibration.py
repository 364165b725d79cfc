"""Probabilities from logits: softmax at a temperature fitted on the decoder's own past answers.

Every labelled trial is first answered, then learned from, so logits and label together are a fair test of the decoder
as it was. Over the last 256 such trials, the sharpness b = 1 / temperature minimises the cross-entropy

    sum over n of  log sum_k exp(b z_nk) - b sum_k t_nk z_nk,    b >= 0

which is convex in b: Newton's method, kept inside a bracket, from the last answer on; about 0.1 ms for 8 classes.
The targets t are Platt's (1999): with N trials, N / (N + 1) on the label and the rest spread evenly, so that a decoder
that never failed yet is not certain, and one without any trial says 1 / classes. Classes that the decoder could not
have answered (not eligible) have no part.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError

F64 = NDArray[np.float64]
Mask = NDArray[np.bool_]

TRIALS = 256


@dataclass(frozen=True, eq=False, slots=True)
class Calibration:
    """Past trials and what they say. Never changes; observing makes a new one.

    logits: (trials, classes), less the largest eligible one, 0 where not eligible. eligible: (trials, classes).
    labels: (trials,). sharpness: 1 / temperature.
    """

    logits: F64
    eligible: Mask
    labels: NDArray[np.int64]
    sharpness: float = 0.0

    @staticmethod
    def empty(classes: int) -> Calibration:
        return Calibration(np.zeros((0, classes)), np.zeros((0, classes), np.bool_), np.zeros(0, np.int64))

    def observe(self, logits: F64, eligible: Mask, label: int) -> Calibration:
        """With one trial more, the oldest forgotten; logits, eligible: (classes,). label: an eligible class."""
        shifted = np.where(eligible, logits - logits[eligible].max(), 0.0)
        rows = np.concatenate((self.logits[-TRIALS + 1 :], shifted[None]))
        masks = np.concatenate((self.eligible[-TRIALS + 1 :], eligible[None]))
        labels = np.append(self.labels[-TRIALS + 1 :], label)
        return Calibration(rows, masks, labels, fit_sharpness(rows, masks, labels, self.sharpness))

    def state_dict(self) -> dict[str, Any]:
        return {
            "trial_logits": self.logits.copy(),
            "trial_eligible": self.eligible.copy(),
            "trial_labels": self.labels.copy(),
            "sharpness": self.sharpness,
        }


def restore(state: dict[str, Any], classes: int) -> Calibration:
    """From a state dict. Raises ModelError where the trials are those of another decoder."""
    logits = np.array(state["trial_logits"], dtype=np.float64)
    eligible = np.array(state["trial_eligible"], dtype=np.bool_)
    labels = np.array(state["trial_labels"], dtype=np.int64)
    expected = (len(labels), classes)
    for name, array in (("trial_logits", logits), ("trial_eligible", eligible)):
        if array.shape != expected:
            raise ModelError(f"decoder state: expected {name} of shape {expected}, got {array.shape}")
    sharpness = float(state["sharpness"])
    if not (np.isfinite(logits).all() and 0 <= sharpness < np.inf and np.isin(labels, range(classes)).all()):
        raise ModelError("decoder state: the trials of the calibration are not finite logits of the decoder's classes")
    return Calibration(logits, eligible, labels, sharpness)


def fit_sharpness(logits: F64, eligible: Mask, labels: Sequence[int] | NDArray[np.int64], start: float = 0.0) -> float:
    """The b of the module's head.

    logits: (trials, classes), at most 0, largest eligible 0 in each row, 0 where not eligible. start: a first guess.
    """
    trials = len(logits)
    deepest = -float(logits.min(initial=0.0))
    if deepest == 0.0:
        return 0.0
    depth = logits / deepest
    even = depth.sum(axis=1) / eligible.sum(axis=1)
    target = (trials * depth[np.arange(trials), labels] + even) / (trials + 1)
    if even.mean() >= target.mean():
        return 0.0
    low, high = 0.0, np.inf
    sharpness = start * deepest or 1.0
    for _ in range(60):
        weights = np.exp(sharpness * depth) * eligible
        weights /= weights.sum(axis=1, keepdims=True)
        weighted = weights * depth
        mean = weighted.sum(axis=1)
        slope = float((mean - target).mean())
        curvature = float(((weighted * depth).sum(axis=1) - mean * mean).mean())
        low, high = (low, sharpness) if slope > 0 else (sharpness, high)
        following = sharpness - slope / curvature if curvature > 0 else high
        if not low < following < high:
            following = 2 * sharpness if high == np.inf else (low + high) / 2
        converged = abs(following - sharpness) <= 1e-6 * sharpness
        sharpness = following
        if converged:
            break
    return sharpness / deepest
