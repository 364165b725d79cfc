"""Rereferencing weights from accumulated scatter: every channel regressed on the others of its cluster.

With A = G + lambda I and P = A^-1, the block inverse identity gives all regressions of a cluster at once:
`W[:, c] = -P[:, c] / P[c, c]`, zero on the diagonal. One inverse per cluster, O(k^3), of the matrix scaled to a unit
diagonal, so that channels of very different gain do no harm: 21 ms for one cluster of 1024 channels on one core, of
which 17 are the inverse. The condition number comes with it, from the 1-norms of matrix and inverse.

The rank is that of G, without the ridge. Where the inverse of A leaves no doubt of it (lambda_min(A) >= 1 / |P|_1, so G
keeps what the ridge has not added), nothing more is done; otherwise G is factorised as well.

Where the cluster is singular and nothing is added to the diagonal, the answer is the minimum-norm least-squares
solution of each regression, in closed form from one eigendecomposition: with N an orthonormal basis of the null space
of G, a channel that takes part in it (N[c] != 0) is predicted exactly, by the shortest null vector with 1 at c; any
other from the pseudo-inverse, less its part in N.

After the rereferencing of Parthasarathy et al. as ezmsg-learn implements it; unlike there, near-constant channels are
left out and named, the ridge is relative to the mean of the diagonal by default, and data are centred.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.compiled import kernel
from neuroloop.signal.covariance import CovarianceSnapshot
from neuroloop.signal.weights import Weights

F64 = NDArray[np.float64]

DEAD_BELOW = 1e-10  # of the median power of the cluster: a millionth of its amplitude, ten times over
FLOAT32_STEP = 4 * 2.0**-24  # of a channel's offset: what is left of a constant after float32 rounding
# Of the largest eigenvalue: what float32 rounding leaves of an exact mixture of channels, such as a common average of
# signals that are small beside an offset or a common mode.
FLOAT32_RANK = 1e-9
TILE = 32  # rows and columns; a tile is turned over in a buffer, for rows 8 KiB apart push each other out of the cache


@kernel
def _scale_to_unit(scatter: Any, ridge: float, scale: Any, sums: Any, out: Any) -> float:
    """Upper triangle of scatter + ridge I scaled to a unit diagonal into `out`; returns its 1-norm.

    scale: (k,), reciprocal root of the diagonal, written. sums: (k,), scratch.
    """
    size = len(scale)
    for r in range(size):
        scale[r] = 1.0 / np.sqrt(scatter[r, r] + ridge)
        sums[r] = 1.0
    for r in range(size):
        out[r, r] = 1.0
        row = 0.0
        for c in range(r + 1, size):
            value = scatter[r, c] * scale[r] * scale[c]
            out[r, c] = value
            row += abs(value)
            sums[c] += abs(value)
        sums[r] += row
    return float(sums.max())


@kernel
def _weights_in_place(matrix: Any, scale: Any, factor: Any, sums: Any) -> float:
    """W in the place of the upper triangle of the scaled inverse; returns the inverse's 1-norm.

    scale: (k,), as `_scale_to_unit` leaves it. factor, sums: (k,), scratch.
    """
    size = len(scale)
    for c in range(size):
        factor[c] = -1.0 / (scale[c] * matrix[c, c])
        sums[c] = abs(matrix[c, c])
        matrix[c, c] = 0.0
    tile = np.empty((TILE, TILE))
    for top in range(0, size, TILE):
        bottom = min(top + TILE, size)
        for r in range(top, bottom):
            for c in range(r + 1, bottom):
                value = matrix[r, c]
                sums[r] += abs(value)
                sums[c] += abs(value)
                matrix[r, c] = value * factor[c] * scale[r]
                matrix[c, r] = value * factor[r] * scale[c]
        for left in range(bottom, size, TILE):
            right = min(left + TILE, size)
            for r in range(top, bottom):
                for c in range(left, right):
                    value = matrix[r, c]
                    tile[c - left, r - top] = value
                    sums[c] += abs(value)
                    matrix[r, c] = value * factor[c] * scale[r]
            for c in range(left, right):
                for r in range(top, bottom):
                    value = tile[c - left, r - top]
                    sums[r] += abs(value)
                    matrix[c, r] = value * factor[r] * scale[c]
    return float(sums.max())


def _minimum_norm(scale: F64, values: F64, vectors: F64, rank: int) -> F64:
    """Minimum-norm regressions of a singular cluster; values, vectors: of the scaled matrix, ascending."""
    size = len(scale)
    null, _ = np.linalg.qr(vectors[:, : size - rank] / scale[:, None])
    kept = vectors[:, size - rank :] / scale[:, None]
    pseudo = (kept / values[size - rank :]) @ kept.T
    weights = np.zeros((size, size))
    for c in range(size):
        share = null[c] @ null[c]
        if share > 1e-10:
            solution = null @ null[c] / share
        else:
            solution = pseudo[:, c] / pseudo[c, c]
            solution -= null @ (null.T @ solution)
        weights[:, c] = -solution
        weights[c, c] = 0.0
    return weights


def _is_of_full_rank(scatter: F64, ridge: float, inverse_norm: float, tolerance: float) -> bool:
    """Whether the inverse of scatter + ridge I, scaled to a unit diagonal, shows that the scatter has full rank."""
    least = 1.0 / inverse_norm - ridge / (float(np.diagonal(scatter).min()) + ridge)
    return least > tolerance * len(scatter)


def _unit_diagonal(scatter: F64) -> tuple[F64, F64]:
    scale = np.sqrt(np.diagonal(scatter))
    return scatter / scale[:, None] / scale[None, :], scale


def _rank(values: NDArray[Any], tolerance: float, most: int) -> int:
    """values: eigenvalues, ascending."""
    return min(most, max(1, int(np.count_nonzero(values > tolerance * values[-1]))))


def _solve_cluster(scatter: F64, ridge: float, resolution: float) -> tuple[F64, int, float | None, str]:
    """Weights of a cluster without dead channels, its rank, its condition number (None if singular), the method."""
    from neuroloop.signal.lapack import cholesky, invert  # imports scipy.linalg, 0.1 s of a session's start

    size = len(scatter)
    tolerance = max(size * float(np.finfo(np.float64).eps), resolution)
    scale, scratch, sums, matrix = np.empty(size), np.empty(size), np.empty(size), np.empty((size, size))
    norm, condition = _scale_to_unit(scatter, ridge, scale, sums, matrix), None
    if np.isfinite(norm) and invert(matrix):
        inverse_norm = _weights_in_place(matrix, scale, scratch, sums)
        condition = norm * inverse_norm
        if _is_of_full_rank(scatter, ridge, inverse_norm, tolerance):
            return matrix, size, condition, "cholesky"
    scaled, scale = _unit_diagonal(scatter)
    factor = cholesky(scaled)
    if condition is not None and factor is not None and factor[1] > tolerance:
        return matrix, size, condition, "cholesky"
    most = size if factor is not None else size - 1  # no Cholesky: the smallest eigenvalue is at the edge of rounding
    if condition is not None and ridge > 0:
        return matrix, _rank(np.linalg.eigvalsh(scaled), tolerance, most), condition, "cholesky"
    values, vectors = np.linalg.eigh(scaled)
    rank = _rank(values, tolerance, most)
    if condition is not None and rank == size:
        return matrix, rank, condition, "cholesky"
    rank = min(rank, size - 1)
    return _minimum_norm(scale, values, vectors, rank), rank, None, "least squares"


def warm_up() -> None:
    """Compile and import now: at the first solve, that would hold the interpreter's lock while a loop runs beside."""
    for writeable in (True, False):  # Numba tells them apart; a snapshot's scatter is not, what is left of it may be
        scatter = np.eye(2)
        scatter.flags.writeable = writeable
        _solve_cluster(scatter, 0.0, 0.0)


def _assembled(solved: Sequence[tuple[NDArray[np.intp], F64]], channel_count: int) -> F64:
    """The weights of all channels from those of each cluster."""
    if len(solved) == 1 and np.array_equal(solved[0][0], np.arange(channel_count)):
        return solved[0][1]
    matrix = np.zeros((channel_count, channel_count))
    for targets, weights in solved:
        matrix[np.ix_(targets, targets)] = weights
    return matrix


def solve(
    snapshot: CovarianceSnapshot,
    channels: Sequence[str],
    *,
    ridge: float,
    ridge_absolute: float | None = None,
    min_cluster: int = 2,
    min_samples_per_channel: float = 20,
    center: bool = True,
    version: int,
    source: str,
) -> Weights:
    """Weights of every channel on the others of its cluster.

    channels: labels, one per channel. ridge: relative to the mean of the cluster's diagonal.
    ridge_absolute: in squared units times samples, replaces it. min_cluster: smaller clusters stay as they are.
    min_samples_per_channel: clusters with fewer effective samples than this times their size stay as they are.
    center: about the mean; False takes the raw second moment.

    The report holds plain values: ready (every cluster that is large enough was solved), samples, rejected, center,
    dead (labels), warnings (texts), and per cluster: channels, live, ready, needed (samples), rank, condition
    (of what was inverted, ridge included, scaled to a unit diagonal, in the 1-norm; None where nothing was), ridge
    (absolute) and method.
    """
    labels = tuple(channels)
    solved: list[tuple[NDArray[np.intp], F64]] = []
    dead: list[str] = []
    warnings: list[str] = []
    reports: list[dict[str, Any]] = []
    for number, cluster in enumerate(snapshot.clusters):
        report: dict[str, Any] = {
            "channels": len(cluster),
            "live": len(cluster),
            "ready": True,
            "needed": float(min_samples_per_channel * len(cluster)),
            "rank": None,
            "condition": None,
            "ridge": None,
            "method": "identity",
        }
        reports.append(report)
        if len(cluster) < min_cluster:
            continue
        indices = np.array(cluster, dtype=np.intp)
        if snapshot.samples < max(report["needed"], 1.0):
            report["ready"] = False
            continue
        mean = snapshot.mean[indices]
        scatter = snapshot.scatter[number]
        if not center:
            scatter = scatter + snapshot.samples * np.outer(mean, mean)
        power = np.diagonal(scatter) / snapshot.samples
        alive = power[power > 0]
        floor = np.full(len(cluster), DEAD_BELOW * np.median(alive) if len(alive) else 0.0)
        if center:
            floor = np.maximum(floor, (FLOAT32_STEP * mean) ** 2)
        live = power > floor
        dead += [labels[c] for c in indices[~live]]
        report["live"] = int(live.sum())
        if report["live"] < 2:
            continue
        part = scatter if live.all() else np.ascontiguousarray(scatter[np.ix_(live, live)])
        absolute = ridge * float(np.diagonal(part).mean()) if ridge_absolute is None else ridge_absolute
        weights, rank, condition, method = _solve_cluster(part, absolute, snapshot.resolution)
        report.update(rank=rank, condition=condition, ridge=float(absolute), method=method)
        if rank < report["live"]:
            warnings.append(
                f"cluster {number}: rank {rank} of {report['live']} channels: some are exact mixtures of others, as "
                "after a common average reference or a doubled electrode; little or nothing is left of them"
            )
        targets = indices[live]
        solved.append((targets, weights))
    if dead:
        warnings.insert(0, f"near-constant channels are left out and passed through: {', '.join(dead)}")
    ready = all(report["ready"] for report in reports)
    if not ready:
        needed = max(report["needed"] for report in reports if not report["ready"])
        warnings.append(f"{snapshot.samples:.0f} samples so far; {needed:.0f} are needed")
    return Weights(
        version,
        _assembled(solved, snapshot.channel_count),
        labels,
        source,
        {
            "ready": ready,
            "samples": float(snapshot.samples),
            "rejected": snapshot.rejected,
            "center": center,
            "dead": dead,
            "warnings": warnings,
            "clusters": reports,
        },
    )
