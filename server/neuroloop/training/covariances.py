"""Rereference weights (LRR) from recordings: a map, the covariance of each, and a sum, which is solved.

The map reads a recording once and leaves the scatter of its training and of its held-out samples, in float64; the sum
adds them in the order of the recordings. So it does not matter where, or in which order, the maps were made, and
recordings of terabytes cost their solver kilobytes: 16 k^2 bytes for each recording and cluster of k channels.

Held-out figures come from the held-out scatter S: W leaves diag((I - W)^T S (I - W)) of diag(S).
"""

from __future__ import annotations

import hashlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.signal.covariance import CovarianceSnapshot, merge
from neuroloop.signal.lrr import LRR, SLICE
from neuroloop.training.arrays import read as read_arrays
from neuroloop.training.fitted import Fitted, Tell
from neuroloop.training.job import RECORDING, link_name, part_name, write_whole
from neuroloop.training.request import FitRequest, RecordingSource
from neuroloop.training.settings import rereference_settings
from neuroloop.training.splits import last_share


@dataclass(frozen=True)
class Part:
    """What is left of a recording. digest: of its data."""

    channels: tuple[str, ...]
    training: CovarianceSnapshot
    held_out: CovarianceSnapshot
    digest: str


def _silent(_progress: float, _loss: float | None) -> None:
    return None


def measure(request: FitRequest, folder: Path, index: int, tell: Tell = _silent) -> Part:
    """The map: of one recording, of which some seconds at a time are in memory. Raises ModelError."""
    from neuroloop.training import recordings
    from neuroloop.training.process import digest_head

    name = RECORDING if request.source.recordings is None else link_name(index)
    path = next(folder.glob(f"{name}.*"))
    with recordings.opened(path, _sources(request)[index]) as recording:
        count, channels = recording.sample_count, np.array(recording.channels)
        split = count - int(last_share(count, request.held_out).sum())
        total = hashlib.sha256(digest_head("channels", channels.dtype, channels.shape) + channels.tobytes())
        total.update(digest_head("samples", recording.read(0, 0).dtype, (count, len(channels))))

        def scatter(start: int, stop: int) -> CovarianceSnapshot:
            lrr = LRR(channels.tolist(), rereference_settings(request))
            page = max(1, SLICE // len(channels))
            for first in range(start, stop, page):
                last = min(first + page, stop)
                samples = np.ascontiguousarray(recording.read(first, last))
                total.update(samples.data)
                lrr.partial_fit(samples)
                tell(last / count, None)
            return lrr.covariance

        training, held_out = scatter(0, split), scatter(split, count)
    return Part(tuple(channels.tolist()), training, held_out, f"sha256:{total.hexdigest()}")


def _sources(request: FitRequest) -> list[RecordingSource]:
    """One or several."""
    alone, several = request.source.recording, request.source.recordings
    if several is not None:
        return several
    assert alone is not None
    return [alone]


def keep(part: Part, path: Path) -> None:
    """Write a part as an NPZ file."""
    content = {"channels": np.array(part.channels), "digest": np.array(part.digest)}
    for name, snapshot in (("training", part.training), ("held_out", part.held_out)):
        content |= {f"{name}.{key}": value for key, value in _arrays(snapshot).items()}
    file = io.BytesIO()
    np.savez(file, **content)  # type: ignore[arg-type]
    write_whole(path, file.getvalue())


def _arrays(snapshot: CovarianceSnapshot) -> dict[str, NDArray[Any]]:
    numbers = np.array([snapshot.samples, snapshot.resolution, snapshot.rejected])
    return {"numbers": numbers, "mean": snapshot.mean} | {str(i): s for i, s in enumerate(snapshot.scatter)}


def kept(path: Path, settings_of: FitRequest) -> Part:
    """Read a part. Raises ModelError where the file is damaged."""
    content = read_arrays(path)
    channels = tuple(str(name) for name in content["channels"])
    clusters = LRR(channels, rereference_settings(settings_of)).clusters
    training, held_out = (_snapshot(content, name, clusters) for name in ("training", "held_out"))
    return Part(channels, training, held_out, str(content["digest"]))


def _snapshot(content: dict[str, NDArray[Any]], name: str, clusters: tuple[tuple[int, ...], ...]) -> CovarianceSnapshot:
    samples, resolution, rejected = content[f"{name}.numbers"]
    mean = content[f"{name}.mean"]
    scatter = tuple(content[f"{name}.{number}"] for number in range(len(clusters)))
    return CovarianceSnapshot(clusters, len(mean), float(samples), mean, scatter, float(resolution), int(rejected))


def fit(request: FitRequest, folder: Path, tell: Tell) -> tuple[Fitted, str]:
    """The sum, over parts that lie in the folder and those that are measured now; and the digest of the data.

    Raises ModelError where recordings differ in their channels, and as a fit from arrays does.
    """
    from neuroloop.training.process import digest

    sources = _sources(request)
    parts: list[Part] = []
    for index, source in enumerate(sources):

        def tell_share(progress: float, loss: float | None, before: int = index) -> None:
            tell((before + progress) / len(sources), loss)

        path = folder / part_name(index)
        parts.append(kept(path, request) if path.exists() else measure(request, folder, index, tell_share))
        tell_share(1.0, None)
        if parts[index].channels != parts[0].channels:
            raise ModelError(
                f"recording {source.name!r}: expected the channels of {sources[0].name!r}, "
                f"{', '.join(parts[0].channels[:8])}, ...; got {', '.join(parts[index].channels[:8])}, ..."
            )
    training, held_out = (reduce(merge, each) for each in _columns(parts))
    lrr = LRR(parts[0].channels, rereference_settings(request)).add(training)
    if not lrr.report["ready"]:
        raise ModelError(f"rereference fit: {'; '.join(lrr.report['warnings'])}")
    metrics = {}
    if held_out.samples:
        residual = residual_variance(lrr, held_out)
        metrics = {"residual_variance": residual, "explained_variance": 1.0 - residual}
    about = {"settings": lrr.settings.model_dump(mode="json"), "channels": list(lrr.channels)}
    amounts = {
        "training_samples": int(training.samples) + training.rejected,
        "held_out_samples": int(held_out.samples) + held_out.rejected,
    }
    of_data = parts[0].digest
    if request.source.recordings is not None:
        amounts["recordings"] = len(parts)
        of_data = digest({"recordings": np.array([part.digest for part in parts])})
    return Fitted(lrr.save("safetensors"), about | {"features": len(lrr.channels)}, metrics, amounts), of_data


def _columns(parts: Sequence[Part]) -> tuple[list[CovarianceSnapshot], list[CovarianceSnapshot]]:
    return [part.training for part in parts], [part.held_out for part in parts]


def residual_variance(lrr: LRR, covariance: CovarianceSnapshot) -> float:
    """As `rereference.residual_variance`, from a covariance."""
    ratios = np.ones(len(lrr.channels))
    for cluster, scatter in zip(covariance.clusters, covariance.scatter, strict=True):
        where = np.array(cluster, dtype=np.intp)
        left = np.eye(len(where)) - lrr.weights.matrix[np.ix_(where, where)]
        before, after = np.diagonal(scatter), np.einsum("ij,ik,kj->j", left, scatter, left, optimize=True)
        ratios[where] = np.where(before > 0, after / np.where(before > 0, before, 1.0), 1.0)
    return float(ratios.mean())
