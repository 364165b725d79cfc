"""The published forms of LRR and MaxRate, for comparison: what `tests/fixtures` holds, ours must give.

LRR as ezmsg-learn computes it: not centred, absolute ridge, no forgetting. MaxRate as inferno computes it: rates are
sums, inputs are not normalised, silent features belong to class 0. Both come out of the code that the sessions run.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models.class_rates import ClassRates, check_label
from neuroloop.models.maxrate import occurrences, readout_matrix, shares
from neuroloop.signal.covariance import snapshot_of
from neuroloop.signal.regression import solve
from neuroloop.signal.rereference import apply

F64 = NDArray[np.float64]
Indices = NDArray[np.intp]


def lrr_fit(
    X: NDArray[Any],
    channel_clusters: Sequence[Sequence[int]] | None = None,
    ridge_lambda: float = 0.0,
    min_regress: int = 2,
) -> F64:
    """W of every channel on the others of its cluster, (channels, channels); `W[r, c]` predicts channel c.

    X: (..., channels); samples with a value that is not finite are left out. channel_clusters: indices, by default one
    cluster of all. ridge_lambda: added to the diagonal of X^T X. min_regress: smaller clusters stay as they are; 2 is
    ezmsg-learn 1.4, 3 is 1.9 and later. Dead channels are left out, and duplicates solved with the minimum norm.
    Raises ModelError where clusters overlap or name a channel that is not there.
    """
    channels = np.shape(X)[-1]
    clusters = [range(channels)] if channel_clusters is None else channel_clusters
    try:
        snapshot = snapshot_of(X, clusters)
    except ValueError as error:
        raise ModelError(f"channel_clusters: {error}") from error
    weights = solve(
        snapshot,
        [str(channel) for channel in range(channels)],
        ridge=0.0,
        ridge_absolute=ridge_lambda,
        min_cluster=min_regress,
        min_samples_per_channel=0.0,
        center=False,
        version=1,
        source="fit",
    )
    return weights.matrix


def lrr_apply(X: NDArray[Any], W: NDArray[Any]) -> F64:
    """`X (I - W)`. X: (..., channels). Raises ModelError unless W is (channels, channels)."""
    return apply(X, W)


def maxrate_logits(rates: NDArray[Any], inputs: NDArray[Any], proportional: bool) -> F64:
    """Logits, (batch, classes). rates: (*shape, classes). inputs: (batch, *shape)."""
    share = shares(np.asarray(rates, dtype=np.float64).reshape(-1, np.shape(rates)[-1]).T)
    matrix = readout_matrix(share, share.argmax(axis=0), proportional)
    return np.asarray(inputs, dtype=np.float64).reshape(len(inputs), -1) @ matrix


def maxrate_run(
    batches: Iterable[tuple[NDArray[Any], NDArray[Any]]],
    shape: Sequence[int],
    num_classes: int,
    decay: float = 0.0,
) -> list[dict[str, Any]]:
    """Train on batches in order; per batch the prediction before the update, and the state after it.

    batches: (inputs, labels) each; inputs (batch, *shape), or (time, batch, *shape), which is averaged over time;
    labels (batch,). decay: of a class's rates, per sample of it.
    Returns per batch a dict of pred (batch,), logits (batch, classes), both proportional; rates and proportions
    (*shape, classes); assignments (*shape,); occurrences (classes,).
    Raises ModelError where the inputs have another shape, or a label is no class.
    """
    features = int(np.prod(shape))
    classes = tuple(str(k) for k in range(num_classes))
    state = ClassRates.empty(num_classes, features)
    steps = []
    for inputs, labels in batches:
        samples = _flatten(inputs, tuple(shape))
        indices = np.array([check_label(int(label), classes) for label in labels])
        if len(indices) != len(samples):
            raise ModelError(f"labels: expected one for each of {len(samples)} inputs, got {len(indices)}")
        trained = bool(state.counts.any())
        logits = maxrate_logits(state.sums.T, samples, True) if trained else np.zeros((len(samples), num_classes))
        for k in np.unique(indices):
            members = samples[indices == k]
            state = state.learn(members.mean(axis=0), int(k), decay * len(members), None, 0.0)
        share = shares(state.sums)
        assignments: Indices = share.argmax(axis=0)
        steps.append(
            {
                "pred": logits.argmax(axis=1),
                "logits": logits,
                "rates": state.sums.T.reshape(*shape, num_classes),
                "proportions": share.T.reshape(*shape, num_classes),
                "assignments": assignments.reshape(*shape),
                "occurrences": occurrences(assignments, num_classes),
            }
        )
    return steps


def _flatten(inputs: NDArray[Any], shape: tuple[int, ...]) -> F64:
    """(batch, features) float64, averaged over a leading time axis where there is one."""
    values = np.asarray(inputs, dtype=np.float64)
    if values.ndim not in (len(shape) + 1, len(shape) + 2) or values.shape[values.ndim - len(shape) :] != shape:
        raise ModelError(f"inputs: expected (batch, *{shape}) or (time, batch, *{shape}), got {values.shape}")
    if values.ndim == len(shape) + 2:
        values = values.mean(axis=0)
    return values.reshape(len(values), -1)
