"""Rereferencing weights as an immutable, versioned value bound to channel labels.

W is (channels, channels) with a zero diagonal; `W[r, c]` is the weight of channel r in predicting channel c, and the
output is `Y = X (I - W)`. Files hold W, not I - W.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError

F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Weights:
    """One version of the weights.

    matrix: (channels, channels) float64, read-only. source: where they come from, such as "fit".
    report: plain values on how they were made; see `solve`.
    """

    version: int
    matrix: F64
    channels: tuple[str, ...]
    source: str
    report: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.matrix.flags.writeable = False


def identity_weights(channels: Sequence[str], *, version: int = 0, source: str = "initial") -> Weights:
    """Weights that leave every channel as it is."""
    return Weights(version, np.zeros((len(channels), len(channels))), tuple(channels), source)


def car_weights(
    channels: Sequence[str], clusters: Sequence[Sequence[int]], *, version: int = 0, source: str = "initial"
) -> Weights:
    """Leave-one-out common average of each cluster of three or more: `y_i = x_i - mean of the other x_j`."""
    matrix = np.zeros((len(channels), len(channels)))
    for cluster in clusters:
        if len(cluster) >= 3:
            matrix[np.ix_(cluster, cluster)] = 1.0 / (len(cluster) - 1)
            matrix[cluster, cluster] = 0.0
    return Weights(version, matrix, tuple(channels), source)


def in_order_of(channels: Sequence[str], matrix: NDArray[Any], given: Sequence[str] | None) -> NDArray[Any]:
    """Weights for `channels`, out of a matrix whose rows and columns are `given`: the same labels in any order.

    given: None where the matrix names no labels: it counts as in order. A shape that is wrong is left to
    `weights_from_array`. Raises ModelError for other labels.
    """
    if given is None or tuple(given) == tuple(channels) or np.shape(matrix) != (len(channels), len(channels)):
        return matrix
    if sorted(given) != sorted(channels):
        unknown = sorted(set(given) - set(channels)) or sorted(set(channels) - set(given))
        raise ModelError(
            f"rereference weights: expected the channels {', '.join(channels[:8])}"
            f"{', ...' if len(channels) > 8 else ''}, got {len(given)} channels; "
            f"they differ in {', '.join(map(str, unknown[:8]))}"
        )
    where = {label: index for index, label in enumerate(given)}
    order = np.array([where[label] for label in channels])
    ordered: NDArray[Any] = matrix[np.ix_(order, order)]
    return ordered


def weights_from_array(
    matrix: NDArray[Any], channels: Sequence[str], *, version: int = 1, source: str = "upload"
) -> Weights:
    """Weights from an array made elsewhere.

    matrix: (channels, channels), any numeric type.
    Raises ModelError for another shape, a value that is not finite, or a diagonal that is not zero.
    """
    expected = (len(channels), len(channels))
    shape = np.shape(matrix)
    if shape != expected:
        affine = shape in ((expected[0] + 1, expected[1]), (expected[0], expected[1] + 1))
        advice = "upload W, not the affine form" if affine else "one row and one column per channel"
        raise ModelError(
            f"rereference weights: expected {expected} for {len(channels)} channels, got {shape}; {advice}"
        )
    array = np.asarray(matrix)
    if not (np.issubdtype(array.dtype, np.integer) or np.issubdtype(array.dtype, np.floating)):
        raise ModelError(f"rereference weights: expected real numbers, got {array.dtype}")
    values = np.array(array, dtype=np.float64)
    wrong = np.argwhere(~np.isfinite(values))
    if len(wrong):
        row, column = wrong[0]
        raise ModelError(
            f"rereference weights: {len(wrong)} values are not finite, the first is {values[row, column]} at row "
            f"{row}, column {column}; replace them, by 0 for no weight"
        )
    diagonal = np.diagonal(values)
    if np.any(diagonal != 0.0):
        at = int(np.flatnonzero(diagonal)[0])
        advice = "this looks like I - W; upload W" if np.all(diagonal == 1.0) else "no channel may predict itself"
        raise ModelError(
            f"rereference weights: expected a zero diagonal, got {diagonal[at]:g} at channel {at}; {advice}"
        )
    return Weights(version, values, tuple(channels), source)
