"""Rereferencing weights from accumulated scatter: every channel regressed on the others of its cluster.

With A = G + lambda I and P = A^-1, the block inverse identity gives all regressions of a cluster at once:
`W[:, c] = -P[:, c] / P[c, c]`, zero on the diagonal. One Cholesky factorisation and inverse per cluster, O(k^3), of the
matrix scaled to a unit diagonal, so that channels of very different gain do no harm.

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
from neuroloop.signal.lapack import cholesky, inverse
from neuroloop.signal.weights import Weights

F64 = NDArray[np.float64]

DEAD_BELOW = 1e-10  # of the median power of the cluster: a millionth of its amplitude, ten times over
FLOAT32_STEP = 4 * 2.0**-24  # of a channel's offset: what is left of a constant after float32 rounding


@kernel
def _weights_of_inverse(inverse: Any, scale: Any, weights: Any) -> None:
    """W from the upper triangle of the inverse of the scaled matrix; weights: (k, k), written."""
    size = len(scale)
    for r in range(size):
        for c in range(size):
            value = inverse[r, c] if r <= c else inverse[c, r]
            weights[r, c] = 0.0 if r == c else -value / inverse[c, c] * scale[c] / scale[r]


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


def _solve_cluster(scatter: F64, ridge: float, resolution: float) -> tuple[F64, int, float | None, str]:
    """Weights of a cluster without dead channels, its rank, its condition number (None if singular), the method."""
    size = len(scatter)
    scale = np.sqrt(np.diagonal(scatter))
    scaled = scatter / scale[:, None] / scale[None, :]
    tolerance = max(size * float(np.finfo(np.float64).eps), resolution)
    rank, condition, values, vectors = size, None, np.empty(0), np.empty((0, 0))
    solved = cholesky(scaled)
    if solved is not None and solved[1] > tolerance:
        condition = 1.0 / solved[1]
    else:
        values, vectors = np.linalg.eigh(scaled)
        rank = max(1, int(np.count_nonzero(values > tolerance * values[-1])))
        if solved is not None and rank == size:
            condition = float(values[-1] / values[0])
        else:
            # Full rank by its eigenvalues, yet no Cholesky: the smallest is at the edge of rounding.
            solved, rank = None, min(rank, size - 1)
    if ridge > 0:
        ridged = scatter + ridge * np.eye(size)
        scale = np.sqrt(np.diagonal(ridged))
        solved = cholesky(ridged / scale[:, None] / scale[None, :])
    if solved is None:
        return _minimum_norm(np.sqrt(np.diagonal(scatter)), values, vectors, rank), rank, None, "least squares"
    weights = np.empty_like(scatter)
    _weights_of_inverse(inverse(solved[0]), scale, weights)
    return weights, rank, condition, "cholesky"


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
    (None where singular or not solved), ridge (absolute) and method.
    """
    labels = tuple(channels)
    matrix = np.zeros((snapshot.channel_count, snapshot.channel_count))
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
        indices = np.array(cluster)
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
        matrix[np.ix_(targets, targets)] = weights
    if dead:
        warnings.insert(0, f"near-constant channels are left out and passed through: {', '.join(dead)}")
    ready = all(report["ready"] for report in reports)
    if not ready:
        needed = max(report["needed"] for report in reports if not report["ready"])
        warnings.append(f"{snapshot.samples:.0f} samples so far; {needed:.0f} are needed")
    return Weights(
        version,
        matrix,
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
