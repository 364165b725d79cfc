"""The data of a decoder's fit out of a recording: rates and labels as a session would have made them.

The rates come out of the stages of a session (`pipeline`), without rereferencing. Markers become labels as a
session's do: by their text, in an interval around each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.config import bin_samples, parse_session
from neuroloop.errors import ConfigError, ModelError
from neuroloop.pipeline import Pipeline
from neuroloop.training.labelling import Interval, label_bins
from neuroloop.training.request import FitRequest, RecordingSource
from neuroloop_sources.errors import SourceError
from neuroloop_sources.loaders import open_source
from neuroloop_sources.recordings import Recording, pauses

PAGE_S = 10.0


def read(path: Path, request: FitRequest) -> dict[str, NDArray[Any]]:
    """The arrays of a decoder's fit; see `arrays`. Raises ModelError where the recording has not what it takes."""
    source = request.source.recording
    assert source is not None
    with opened(path, source) as recording:
        return _labelled(recording, source, request.kind, request.classes)


@contextmanager
def opened(path: Path, source: RecordingSource) -> Iterator[Recording]:
    """The recording, of which nothing is read yet. Raises ModelError, also for what fails within the `with`."""
    runs = None if source.run is None else [source.run]
    try:
        yield open_source(str(path), runs=runs, rate=source.rate, stream=source.stream, markers=source.markers)
    except (SourceError, ConfigError) as error:
        raise ModelError(f"recording {source.name!r}: {error}") from error


def _labelled(
    recording: Recording, source: RecordingSource, kind: str, classes: list[str] | None
) -> dict[str, NDArray[Any]]:
    intervals = list(_intervals(recording, source))
    names = classes or sorted({label for label, _, _ in intervals})
    if len(names) < 2:
        raise ModelError(
            f"recording {source.name!r}: expected markers of two labels or more, got: {', '.join(names) or 'none'}"
        )
    session = parse_session(
        {
            "name": "fit",
            "stream": {"name": recording.name, "nominal_srate": recording.nominal_srate},
            "front_end": source.front_end.model_dump(mode="json"),
            "bin_ms": source.bin_ms,
            "block_ms": source.bin_ms,
            "rereference": {"enabled": False},
            "classes": names,
            "decoders": [{"name": "fit", "kind": kind}],
        }
    )
    pipeline = Pipeline(session, recording.nominal_srate, recording.channels)
    rates, usable = [], []
    for samples in _blocks(recording, bin_samples(session, recording.nominal_srate)):
        finite = bool(np.isfinite(samples).all())
        pipeline.step(np.ascontiguousarray(np.nan_to_num(samples), np.float32), finite)
        outcome = pipeline.finish_bin()
        rates.append(outcome.values.copy())
        usable.append(outcome.reason is None)
    if not rates:
        raise ModelError(f"recording {source.name!r}: it is shorter than a bin of {source.bin_ms:g} ms")
    bin_s = pipeline.bin_samples / recording.nominal_srate
    nominal: NDArray[np.float64] = (np.arange(len(rates)) + 0.5) * np.float64(bin_s)
    labels, numbers = label_bins(nominal, intervals, names)  # markers are told in seconds at the nominal rate
    times = nominal
    if recording.times is not None:
        times = _with_pauses(nominal, recording.times, pipeline.bin_samples, bin_s)
    return {
        "rates": np.stack(rates),
        "labels": labels,
        "trial_numbers": numbers,
        "times": times,
        "usable": np.array(usable),
        "classes": np.array(names),
        "channels": np.array(recording.channels),
    }


def _with_pauses(
    nominal: NDArray[np.float64], times: Callable[[int, int], NDArray[Any]], bin_samples: int, bin_s: float
) -> NDArray[np.float64]:
    """The bins' times at the nominal rate, and between them the pauses that were recorded, without their jitter.

    times: of samples, as recorded.
    """
    firsts = range(0, len(nominal) * bin_samples, bin_samples)
    recorded = np.concatenate([times(first, first + 1) for first in firsts])
    return nominal + np.cumsum(pauses(recorded, bin_s))


def _intervals(recording: Recording, source: RecordingSource) -> Iterator[Interval]:
    for seconds, text in recording.markers:
        label = text if source.labels is None else source.labels.get(text)
        if label is not None:
            yield label, seconds + source.interval[0], seconds + source.interval[1]


def _blocks(recording: Recording, block: int) -> Iterator[NDArray[Any]]:
    """Whole blocks of samples; the recording is read some seconds at a time."""
    page = block * max(1, round(PAGE_S * recording.nominal_srate / block))
    for first in range(0, recording.sample_count, page):
        samples = recording.read(first, min(first + page, recording.sample_count))
        for start in range(0, len(samples) - block + 1, block):
            yield samples[start : start + block]
