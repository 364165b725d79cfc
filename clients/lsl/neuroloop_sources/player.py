"""The player: a recording over LSL, in real time or faster.

Timestamps advance by one nominal sample period per sample whatever the speed and the chunk; markers carry the time they
were recorded at. Played faster than real time, a stream therefore runs ahead of the clock (see `stream`).
"""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np

from neuroloop_sources.errors import SourceError
from neuroloop_sources.outlets import FORMATS, StreamLayout
from neuroloop_sources.recordings import Array, Recording
from neuroloop_sources.stream import Feed, Ready, stream

CHUNK_S = 0.02


def make_feed(
    recording: Recording,
    *,
    name: str | None = None,
    source_id: str | None = None,
    format: str | None = None,
    loop: bool = False,
    recorded_times: bool = False,
) -> Feed:
    """What is streamed of a recording; arguments as in `play`."""
    if recording.sample_count < 1:
        raise SourceError(f"recording {recording.name!r}: expected one sample or more, got none")
    if recorded_times and (recording.times is None or loop):
        raise SourceError(f"recorded_times: recording {recording.name!r} has none, or it is looped")
    layout = StreamLayout(
        name=name or recording.name,
        source_id=source_id or name or recording.name,
        type=recording.type,
        nominal_srate=recording.nominal_srate,
        format=format or recording.format,
        channels=recording.channels,
        units=recording.units,
        positions_mm=recording.positions_mm,
    )
    dtype = np.dtype(FORMATS[layout.format])
    length = recording.sample_count
    positions = [seconds * recording.nominal_srate for seconds, _ in recording.markers]

    def samples(start: int, after: int) -> Array:
        parts = [recording.read(first, last) for _, first, last in _laps(start, after, length)]
        return _convert(parts[0] if len(parts) == 1 else np.concatenate(parts), dtype)

    def markers(start: int, after: int) -> Iterator[tuple[float, str]]:
        for lap, first, last in _laps(start, after, length):
            for number in range(*np.searchsorted(positions, (first, last)).tolist()):
                yield lap * length + positions[number], recording.markers[number][1]

    return Feed(layout, samples, markers, None if loop else length, recording.times if recorded_times else None)


def play(
    recording: Recording,
    *,
    stop: threading.Event,
    name: str | None = None,
    source_id: str | None = None,
    format: str | None = None,
    chunk: int | None = None,
    speed: float = 1.0,
    loop: bool = False,
    recorded_times: bool = False,
    ready: Ready | None = None,
    wait_for_consumers: bool = False,
    start_time: float | None = None,
    blocking: bool = False,
) -> int:
    """Stream a recording until its end, or `stop`; returns the number of samples pushed.

    name, source_id, format: of the stream; by default the recording's name, the stream's name, the recording's format.
    In an integer format values are rounded and limited to its range. chunk: samples pushed at once, about 20 ms by
    default. loop: begin again at the end; sample and time go on counting. recorded_times: send the recording's own
    timestamps. Other arguments: see `stream`.
    """
    feed = make_feed(recording, name=name, source_id=source_id, format=format, loop=loop, recorded_times=recorded_times)
    return stream(
        feed,
        max(1, round(CHUNK_S * recording.nominal_srate)) if chunk is None else chunk,
        stop=stop,
        ready=ready,
        wait_for_consumers=wait_for_consumers,
        speed=speed,
        start_time=start_time,
        blocking=blocking,
    )


def _laps(start: int, after: int, length: int) -> Iterator[tuple[int, int, int]]:
    """A run of samples of a looped recording, as (lap, first, last) of each lap it touches."""
    for lap in range(start // length, (after - 1) // length + 1):
        yield lap, max(start - lap * length, 0), min(after - lap * length, length)


def _convert(samples: Array, dtype: np.dtype[np.generic]) -> Array:
    if samples.dtype == dtype:
        return samples
    if np.issubdtype(dtype, np.integer) and np.issubdtype(samples.dtype, np.floating):
        samples = np.rint(samples)
    if np.issubdtype(dtype, np.integer):
        limits = np.iinfo(str(dtype))
        samples = np.clip(samples, limits.min, limits.max)
    return samples.astype(dtype)
