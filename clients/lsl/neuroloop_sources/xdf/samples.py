"""The bytes of a chunk of samples, taken apart: timestamps, given or deduced, and values."""

from __future__ import annotations

import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop_sources.xdf.layout import STAMP, StreamInfo, stamped, unpack_length

Stamps = NDArray[np.float64]
Places = tuple[list[int], list[tuple[int, int]]]


def deduce(times: Stamps, given: NDArray[np.bool_], before: float, interval: float) -> Stamps:
    """The timestamps of all samples: one that is not given is an interval after that of the sample before.

    times: (n,), of any value where not given. before: of the last sample of the chunk before. The sums are made one by
    one, as the format has it, so that their rounding is the same.
    """
    if given.all():
        return times
    times = times.copy()
    edges = np.flatnonzero(np.diff(given, prepend=True, append=True))  # of the runs that are not given
    for first, after in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        run = np.full(after - first + 1, interval)
        run[0] = times[first - 1] if first else before
        times[first:after] = np.add.accumulate(run)[1:]
    return times


def numbers(data: bytes, count: int, info: StreamInfo) -> tuple[Stamps, NDArray[np.bool_], NDArray[Any]]:
    """Timestamps, whether they are given, and values (n, channels) of a chunk of numbers.

    Raises ValueError for bytes that cannot be that.
    """
    row = info.channel_count * info.dtype.itemsize
    if len(data) == count * (1 + STAMP + row):
        rows = np.frombuffer(data, stamped(info.dtype, info.channel_count), count)
        return rows["time"].astype(np.float64), np.ones(count, np.bool_), rows["values"]
    starts = np.empty(count, np.int64)
    at = 0
    try:
        for number in range(count):
            at += 1 + STAMP if data[at] else 1
            starts[number] = at
            at += row
    except IndexError:
        at = -1
    if at != len(data):
        raise ValueError(f"{len(data)} bytes are not {count} samples")
    given = np.diff(starts, prepend=-row) > 1 + row
    values = np.empty((count, info.channel_count), info.dtype)
    if row:
        # Every place of the chunk as the start of a row: no index of every byte is made.
        anywhere = np.ndarray((len(data) - row + 1,), f"V{row}", data, strides=(1,))
        values = anywhere[starts].view(info.dtype).reshape(count, info.channel_count)
    times = np.zeros(count)
    if given.any():
        anywhere = np.ndarray((len(data) - STAMP + 1,), f"V{STAMP}", data, strides=(1,))
        times[given] = anywhere[starts[given] - STAMP].view("<f8")
    return times, given, values


def text_places(data: bytes, count: int, channel_count: int) -> Places | None:
    """Where the samples of a chunk of texts begin, and where each of their texts is; None where it is not whole."""
    at, samples, texts = 0, [], []
    try:
        for _ in range(count):
            samples.append(at)
            at += 1 + STAMP if data[at] else 1
            for _ in range(channel_count):
                length, at = unpack_length(data, at)
                texts.append((at, at + length))
                at += length
    except (ValueError, IndexError):
        return None
    return (samples, texts) if at == len(data) else None


def texts(data: bytes, count: int, channel_count: int) -> tuple[Stamps, NDArray[np.bool_], list[list[str]]]:
    """The same of a chunk of texts; bytes that are no UTF-8 are replaced. Raises ValueError as `numbers` does."""
    places = text_places(data, count, channel_count)
    if places is None:
        raise ValueError(f"{len(data)} bytes are not {count} samples of text")
    starts, spans = places
    given = np.array([data[start] != 0 for start in starts])
    times = np.array(
        [struct.unpack_from("<d", data, start + 1)[0] if data[start] else 0.0 for start in starts], np.float64
    )
    decoded = [data[first:after].decode("utf-8", "replace") for first, after in spans]
    return times, given, [decoded[row * channel_count : (row + 1) * channel_count] for row in range(count)]
