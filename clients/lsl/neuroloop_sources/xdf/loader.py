"""A stream of an XDF file as a recording that can be played and learned from, with the markers beside it.

The file stays open and is read as it is asked for, whatever its size.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from neuroloop_sources.errors import SourceError
from neuroloop_sources.recordings import Recording
from neuroloop_sources.xdf.reader import F64, XdfFile, XdfStream

MARKERS = ("markers", "marker")  # types of streams, in any case of letters


def load_xdf(path: Path, stream: str | None = None, markers: str | None = None) -> Recording:
    """A stream of numbers at a regular rate, by name or number; the only one by default.

    Its markers are the samples of the stream `markers`, by default of all streams of the type `Markers`, at their place
    among the stream's samples by the synchronised clocks.
    """
    file = XdfFile(path)
    chosen = choose(file, stream)
    first_time = float(chosen.synchronised(0, 1)[0])

    def times(start: int, stop: int) -> F64:
        return chosen.synchronised(start, stop) - first_time

    srate = chosen.info.nominal_srate
    return Recording(
        name=chosen.name or path.stem,
        type=chosen.info.type,
        nominal_srate=srate,
        sample_count=chosen.sample_count,
        channels=chosen.channels,
        units=chosen.units,
        format=chosen.info.format,
        read=lambda start, stop: np.asarray(chosen.read(start, stop).values),
        markers=tuple((chosen.place(time) / srate, text) for time, text in read_markers(file, markers)),
        positions_mm=positions_mm(chosen),
        times=times,
    )


def choose(file: XdfFile, which: str | None) -> XdfStream:
    """The stream of that name or number, or the only one that can be meant. Raises SourceError."""
    if which is None:
        fitting = [stream for stream in file.streams if not _hindrance(stream)]
        if len(fitting) == 1:
            return fitting[0]
        known = "; ".join(f"{stream.stream_id}: {stream.name!r}, {_facts(stream)}" for stream in file.streams) or "none"
        several = "several streams can be meant; name one" if fitting else "no stream of samples at a regular rate"
        raise SourceError(f"{file.path}: {several}; the file has {known}")
    stream = _named(file, which)
    if hindrance := _hindrance(stream):
        raise SourceError(f"{file.path}: stream {which!r}: expected samples at a regular rate, but {hindrance}")
    return stream


def read_markers(file: XdfFile, which: str | None = None) -> list[tuple[float, str]]:
    """Synchronised times and texts of a stream, by default of all of the type `Markers`, in order of time.

    The text of a sample of several channels is that of the first one.
    """
    streams = [stream for stream in file.streams if _is_marker(stream)] if which is None else [_named(file, which)]
    return sorted(pair for stream in streams for pair in _markers(stream))


def _markers(stream: XdfStream) -> Iterator[tuple[float, str]]:
    values = stream.read().values
    rows = values if isinstance(values, list) else [[f"{row[0]:.15g}"] for row in values]
    for time, row in zip(stream.synchronised().tolist(), rows, strict=True):
        yield time, row[0]


def _named(file: XdfFile, which: str) -> XdfStream:
    """By name, else by number."""
    numbers = {str(stream.stream_id): stream.stream_id for stream in file.streams}
    is_name = any(stream.name == which for stream in file.streams)
    return file.stream(which if is_name else numbers.get(which, which))


def _is_marker(stream: XdfStream) -> bool:
    return stream.info.type.lower() in MARKERS


def _hindrance(stream: XdfStream) -> str:
    """Why a stream cannot be played; nothing where it can."""
    if stream.info.is_text:
        return "it is text"
    if not stream.info.nominal_srate > 0:
        return "it has no nominal rate"
    return "" if stream.sample_count else "it is empty"


def _facts(stream: XdfStream) -> str:
    info = stream.info
    return f"{info.type or 'no type'}, {info.channel_count} x {info.format} at {info.nominal_srate:g} Hz"


def positions_mm(stream: XdfStream) -> tuple[tuple[float, float, float], ...]:
    """In millimetres, where every channel has one."""
    axes = [stream.of_channels(f"location/{axis}") for axis in "XYZ"]
    try:
        return tuple((float(x), float(y), float(z)) for x, y, z in zip(*axes, strict=True))
    except ValueError:
        return ()
