"""A recording: samples by number, and the markers between them. Where they come from is each loader's business."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop_sources.errors import SourceError

Array = NDArray[Any]
JITTER_S = 1.0  # no pause, where timestamps jitter


@dataclass(frozen=True, eq=False)
class Recording:
    """A recording that can be streamed.

    read: (start, stop) -> samples, (stop - start, channels), of the format. format: as LSL names it. markers: seconds
    after the first sample, and text, in order of time. positions_mm: of every channel, or none at all.
    times: (start, stop) -> recorded seconds after the first sample, where they are known to differ from sample / srate.
    """

    name: str
    type: str
    nominal_srate: float
    sample_count: int
    channels: tuple[str, ...]
    units: tuple[str, ...]
    format: str
    read: Callable[[int, int], Array]
    markers: tuple[tuple[float, str], ...] = ()
    positions_mm: tuple[tuple[float, float, float], ...] = ()
    times: Callable[[int, int], Array] | None = None

    @property
    def seconds(self) -> float:
        """Length at the nominal rate."""
        return self.sample_count / self.nominal_srate


def reader(samples: Array) -> Callable[[int, int], Array]:
    """`read` of a recording whose samples, (samples, channels), are at hand."""
    return lambda start, stop: samples[start:stop]


def pauses(times: NDArray[np.float64], interval: float) -> NDArray[np.float64]:
    """Seconds that are missing before each sample, 0 where it follows on the one before it: (n,).

    times: as recorded, an interval apart but for jitter and for what was lost. A step counts that is too long by half
    an interval. Jitter makes steps too short as well: where those are more than a quarter as many as the long ones,
    only what is off by a second counts. Where the clock goes back, an interval is missing.
    """
    late = np.diff(times) - interval
    least = interval / 2
    if 4 * np.count_nonzero(late < -least) > np.count_nonzero(late > least):
        least = max(least, JITTER_S)
    missing = np.zeros(len(times))
    missing[1:] = np.where(late > least, late, np.where(late < -least, interval, 0.0))
    return missing


def chain(recordings: Sequence[Recording], name: str | None = None) -> Recording:
    """One recording after the other, without a pause; as if they had been one.

    Raises SourceError where they differ in channels, rate or format.
    """
    if not recordings:
        raise SourceError("chain: expected one recording or more, got none")
    first = recordings[0]
    for other in recordings[1:]:
        for key in ("channels", "units", "nominal_srate", "format"):
            expected, came = getattr(first, key), getattr(other, key)
            if expected != came:
                raise SourceError(
                    f"chain: {key} of {other.name!r}: expected {expected}, as in {first.name!r}, got {came}"
                )
    starts = list(accumulate((r.sample_count for r in recordings), initial=0))

    def read(start: int, stop: int) -> Array:
        parts = []
        while start < stop:
            number = bisect_right(starts, start) - 1
            after = min(stop, starts[number + 1])
            parts.append(recordings[number].read(start - starts[number], after - starts[number]))
            start = after
        return np.concatenate(parts) if parts else first.read(0, 0)

    return Recording(
        name=name or "+".join(r.name for r in recordings),
        type=first.type,
        nominal_srate=first.nominal_srate,
        sample_count=starts[-1],
        channels=first.channels,
        units=first.units,
        format=first.format,
        read=read,
        markers=tuple(
            (start / first.nominal_srate + seconds, text)
            for start, recording in zip(starts, recordings, strict=False)
            for seconds, text in recording.markers
        ),
        positions_mm=first.positions_mm,
    )
