"""Streams of a recording as NWB series, of any length: values and times are read while they are written (extra `nwb`).

Where every timestamp is within half a sample of a grid, a series has the grid's start and rate, which NWB asks for;
otherwise, as where samples are missing, it has the timestamps.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from hdmf.backends.hdf5 import H5DataIO
from hdmf.data_utils import GenericDataChunkIterator
from numpy.typing import NDArray

from neuroloop.recording.reader import XdfStream

Read = Callable[[int, int], NDArray[Any]]

CHUNK_BYTES = 1 << 20  # of the file's chunks, before compression
CHUNKS_AT_ONCE = 8  # in memory
GZIP_LEVEL = 1
PAGE = 1 << 16  # timestamps, looked at together


class _Pages(GenericDataChunkIterator):  # type: ignore[misc]  # without the extra, its base is not known
    """Rows that are read when they are asked for."""

    def __init__(self, read: Read, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self._read = read
        self._rows = shape
        self._kind = dtype
        row_bytes = dtype.itemsize * int(np.prod(shape[1:], dtype=np.int64))
        rows = max(1, CHUNK_BYTES // row_bytes)
        super().__init__(
            chunk_shape=(min(shape[0], rows), *shape[1:]),
            buffer_shape=(min(shape[0], rows * CHUNKS_AT_ONCE), *shape[1:]),
        )

    def _get_data(self, selection: tuple[slice, ...]) -> NDArray[Any]:
        rows, *others = selection
        return self._read(rows.start, rows.stop)[(slice(None), *others)]

    def _get_maxshape(self) -> tuple[int, ...]:
        return self._rows

    def _get_dtype(self) -> np.dtype[Any]:
        return self._kind


def values_of(stream: XdfStream) -> Any:
    """The samples of a stream of numbers, (samples, channels), in their own format."""

    def read(start: int, stop: int) -> NDArray[Any]:
        return np.asarray(stream.read(start, stop).values)

    return _compressed(_Pages(read, (stream.sample_count, stream.info.channel_count), np.dtype(stream.info.dtype)))


def timing_of(stream: XdfStream, origin: float) -> dict[str, Any]:
    """`starting_time` and `rate`, or `timestamps`: seconds after the origin, by the recorder's clock."""

    def read(start: int, stop: int) -> NDArray[Any]:
        return stream.synchronised(start, stop) - origin

    count = stream.sample_count
    grid = _grid(read, count, stream.info.nominal_srate)
    return grid or {"timestamps": _compressed(_Pages(read, (count,), np.dtype(np.float64)))}


def timing_at(times: NDArray[np.float64]) -> dict[str, Any]:
    """The same for times that are there."""
    return _grid(lambda start, stop: times[start:stop], len(times), 0.0) or {"timestamps": times}


def _grid(times: Read, count: int, nominal_srate: float) -> dict[str, Any]:
    """Start and rate of the grid that the times are on; nothing where they are on none."""
    first, last = float(times(0, 1)[0]), float(times(count - 1, count)[0])
    seen = (count - 1) / (last - first) if last > first else 0.0
    for rate in (nominal_srate, seen):
        if rate > 0 and count > 1 and _is_grid(times, count, first, rate):
            return {"starting_time": first, "rate": float(rate)}
    return {}


def _is_grid(times: Read, count: int, first: float, rate: float) -> bool:
    for start in range(0, count, PAGE):
        page = times(start, min(start + PAGE, count))
        if np.abs((page - first) * rate - np.arange(start, start + len(page))).max() >= 0.5:
            return False
    return True


def _compressed(pages: _Pages) -> Any:
    return H5DataIO(pages, compression="gzip", compression_opts=GZIP_LEVEL, shuffle=True)
