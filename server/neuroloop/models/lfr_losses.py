"""The loss and the schedule of learning from randomness, on arrays; `lfr_torch` has the loss as it is trained.

    c = q v^T,    loss = sum_i (c_ii - 1)^2 + lambda sum_{i != j} c_ij^2

with the rows of the predictions q and the targets v, (batch, dim) both, at unit norm: what is predicted for a sample
must point where its own target does, and away from those of the others.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError

F64 = NDArray[np.float64]

LEAST_NORM = 1e-12


def barlow_twins(predictions: NDArray[Any], targets: NDArray[Any], diag_lambda: float, normalize: bool) -> float:
    """The loss of one target. Both: (batch, dim). normalize: over the batch's size, so that it has no say.

    Raises ModelError where the shapes differ, or there is no sample.
    """
    p, z = np.asarray(predictions, np.float64), np.asarray(targets, np.float64)
    if p.ndim != 2 or p.shape != z.shape or p.size == 0:
        raise ModelError(f"barlow twins: expected two arrays (batch, dim) of one shape, got {p.shape} and {z.shape}")
    alike = np.clip(_unit_rows(p) @ _unit_rows(z).T, -1.0, 1.0)
    own = np.diagonal(alike)
    loss = np.square(own - 1.0).sum() + diag_lambda * (np.square(alike).sum() - np.square(own).sum())
    return float(loss / len(p) if normalize else loss)


def _unit_rows(values: F64) -> F64:
    unit: F64 = values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), LEAST_NORM)
    return unit


def backbone_is_frozen(epoch: int, predictor_training_epochs: int | None) -> bool:
    """Whether an epoch, from 0 on, trains the predictors alone: all but each (p + 1)th, with p epochs > 0."""
    alone = predictor_training_epochs or 0
    return alone > 0 and epoch % (alone + 1) != 0
