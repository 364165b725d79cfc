"""Choosing targets that differ: a determinantal point process over random projectors, greedily.

What a projector sees in n samples is their similarity, S = A A^T, with the rows of its outputs A (n, dim) at unit norm.
Two projectors are alike as far as their similarities point the same way:

    K_pq = <S_p, S_q> / (|S_p| |S_q|),    <S_p, S_q> = |A_p^T A_q|^2   (Frobenius)

The right-hand form needs no matrix of n x n: O(P^2 n dim^2) operations and P n dim numbers for P projectors, where
the flattened similarities of 1000 samples are a million numbers each.

`select` takes the projector that adds the most to the volume that the chosen ones span, again and again: with the
Cholesky factor L of the chosen part of K, the gain of p is K_pp - |L^-1 K_{chosen,p}|^2. One row of L^-1 K more per
choice: O(P m) each, O(P m^2) for m choices (Chen, Zhang and Zhou, 2018).

As published, gains are compared with 1e-10 whatever the kernel's scale, and a kernel of zeros or NaN gives the same
index again and again. Here the threshold is relative to the largest diagonal element, what was chosen is out, and what
is not finite was never in.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError

F64 = NDArray[np.float64]

LEAST_GAIN = 1e-10
LEAST_NORM = 1e-12


@dataclass(frozen=True)
class Selection:
    """indices: in the order of choice, each once. reason: why they are fewer than asked for, or None."""

    indices: list[int]
    reason: str | None


def lfr_kernel(outputs: NDArray[Any]) -> F64:
    """How alike projectors are, (projectors, projectors), from 0 to 1.

    outputs: (projectors, samples, dim), what each gives for the same samples. One whose outputs are all 0, or not all
    finite, is like none, not even itself: its row, column and diagonal element are 0.
    Raises ModelError for another number of axes, or without any value.
    """
    given = np.asarray(outputs)
    if given.ndim != 3 or given.size == 0 or given.dtype.kind not in "biuf":
        raise ModelError(f"outputs: expected real numbers (projectors, samples, dim), got {given.dtype} {given.shape}")
    values = given.astype(np.float64)
    values[~np.isfinite(values).all(axis=(1, 2))] = 0.0
    rows = values / np.maximum(np.linalg.norm(values, axis=2, keepdims=True), LEAST_NORM)
    kernel = np.empty((len(rows), len(rows)))
    for number, row in enumerate(rows):
        kernel[number] = np.square(np.matmul(row.T, rows)).sum(axis=(1, 2))
    size = np.sqrt(np.diagonal(kernel))
    scale = np.divide(1.0, size, out=np.zeros_like(size), where=size > LEAST_NORM)
    return kernel * scale[:, None] * scale


def select(kernel: NDArray[Any], max_length: int, least_gain: float | None = None) -> Selection:
    """The projectors to keep.

    kernel: (projectors, projectors), symmetric. max_length: how many at most; 0, less, or more than there are: all.
    least_gain: where it stops; by default 1e-10 of the largest diagonal element.
    Starts from the largest diagonal element; of equal gains, the first index. Raises ModelError unless it is square.
    """
    values = np.asarray(kernel)
    if values.ndim != 2 or values.shape[0] != values.shape[1] or values.dtype.kind not in "biuf":
        raise ModelError(f"kernel: expected real numbers (projectors, projectors), got {values.dtype} {values.shape}")
    values = values.astype(np.float64)
    count = len(values)
    asked = max_length if 0 < max_length < count else count
    finite = np.isfinite(values)
    usable = np.diagonal(finite) & (finite.sum(axis=1) >= np.diagonal(finite).sum())
    values = np.where(usable[:, None] & usable, values, 0.0)
    gains = np.where(usable, np.diagonal(values), -np.inf)
    threshold = LEAST_GAIN * float(gains.max(initial=0.0)) if least_gain is None else least_gain
    factor = np.zeros((asked, count))
    indices: list[int] = []
    while len(indices) < asked:
        best = int(gains.argmax())
        # NaN fails the comparison; a first gain of 0 is no gain whatever the threshold
        if not (gains[best] >= threshold and gains[best] > 0):
            break
        chosen = len(indices)
        row = (values[best] - factor[:chosen, best] @ factor[:chosen]) / np.sqrt(gains[best])
        factor[chosen] = row
        gains = gains - np.square(row)
        indices.append(best)
        gains[indices] = -np.inf
    return Selection(indices, _why_fewer(len(indices), asked, int(count - usable.sum())))


def _why_fewer(chosen: int, asked: int, unusable: int) -> str | None:
    if chosen == asked:
        return None
    why = f"{chosen} of the {asked} targets asked for: the others add nothing to what these tell"
    return why + (f" ({unusable} have values that are not finite)" if unusable else "")
