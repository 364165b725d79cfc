"""XDF files by range: an index from one scan, and then only the bytes that are asked for.

Timestamps are those of the file, by the sender's clock; `synchronised` gives them by the recorder's. Reading is by
`pread`, not by a map of the file: one that shrinks while it is read is an error, and not the end of the process.
"""

from __future__ import annotations

import os
from bisect import bisect_left
from collections.abc import Iterator
from functools import cache, cached_property, lru_cache
from io import BufferedReader
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from neuroloop_sources.errors import SourceError
from neuroloop_sources.xdf import clocks, layout, samples
from neuroloop_sources.xdf.index import Damage, Index, StreamIndex, scan

F64 = NDArray[np.float64]
Texts = list[list[str]]
KEPT_CHUNKS = 4
ROOM_BYTES = 1 << 18  # of samples on their way from the file


class Samples(NamedTuple):
    """times: (n,) by the sender's clock. values: (n, channels), or n lists of texts."""

    times: F64
    values: NDArray[Any] | Texts


class XdfStream:
    """A stream of a file. Samples are counted from 0; ranges are cut to what there is, as in Python's slices."""

    def __init__(self, file: BufferedReader, path: Path, index: StreamIndex) -> None:
        self.stream_id = index.stream_id
        self.info = index.info
        self.header = index.header
        self.footer = index.footer
        self._file = file
        self._path = path
        self._index = index
        self._starts = np.array(index.starts, np.int64)
        self._edges = np.concatenate([[0], np.cumsum(np.array(index.counts, np.int64))])  # first sample of each chunk
        self._lasts: dict[int, float] = {}
        self._chunk = lru_cache(maxsize=KEPT_CHUNKS)(self._read_chunk)
        self._chunk_times = lru_cache(maxsize=KEPT_CHUNKS)(
            lambda number: self.synchronised(int(self._edges[number]), int(self._edges[number + 1]))
        )
        self._began = cache(lambda number: float(self.synchronised(int(edge := self._edges[number]), int(edge) + 1)[0]))

    @property
    def name(self) -> str:
        return self.info.name

    @property
    def sample_count(self) -> int:
        return int(self._edges[-1])

    @cached_property
    def description(self) -> ElementTree.Element:
        """The header's XML."""
        return layout.parse_header(self.header)[1]

    @cached_property
    def channels(self) -> tuple[str, ...]:
        """Labels; a channel without one is called by its number, from 1, and labels that are not unique get theirs."""
        labels = [label or str(number) for number, label in enumerate(self.of_channels("label"), 1)]
        if len(set(labels)) != len(labels):
            labels = [f"{label}#{number}" for number, label in enumerate(labels, 1)]
        return tuple(labels)

    @property
    def units(self) -> tuple[str, ...]:
        return self.of_channels("unit")

    @property
    def source_id(self) -> str:
        return self.description.findtext("source_id") or ""

    def of_channels(self, path: str) -> tuple[str, ...]:
        """A text of each channel's description, '' where it has none."""
        found = self.description.findall("desc/channels/channel")[: self.info.channel_count]
        texts = [(channel.findtext(path) or "").strip() for channel in found]
        return tuple(texts + [""] * (self.info.channel_count - len(texts)))

    @property
    def clock_offsets(self) -> tuple[tuple[float, float], ...]:
        """(time of the measurement by the sender's clock, seconds to add)."""
        return tuple(self._index.clock_offsets)

    @cached_property
    def clock(self) -> list[clocks.Part]:
        """The sender's clock, fitted; see `clocks`."""
        offsets = self.clock_offsets
        told = None if self.footer is None else self.footer.findtext("sample_count")
        if told is not None and told.isdecimal() and self.sample_count > int(told) and clocks.last_is_stray(offsets):
            offsets = offsets[:-1]
        return clocks.fit(offsets)

    @cached_property
    def clock_edges(self) -> list[int]:
        """The first sample of each part of the clock, and the number of samples."""
        return clocks.split_samples(self.clock, self.sample_count, self.times)

    def synchronised(self, start: int = 0, stop: int | None = None) -> F64:
        """Timestamps by the recorder's clock, (n,)."""
        start, stop = self._cut(start, stop)
        return self._by_recorder(start, self.times(start, stop))

    def times(self, start: int = 0, stop: int | None = None) -> F64:
        """Timestamps by the sender's clock, (n,), as they are in the file or follow from it."""
        return self.read(start, stop).times

    def read(self, start: int = 0, stop: int | None = None) -> Samples:
        """Samples from `start` to before `stop`. Raises SourceError where they are damaged."""
        start, stop = self._cut(start, stop)
        times = np.empty(stop - start)
        if self.info.is_text:
            texts: Texts = []
            for number, first, after in self._spans(start, stop):
                part = self._chunk(number)
                times[len(texts) : len(texts) + after - first] = part.times[first:after]
                texts += part.values[first:after]
            return Samples(times, texts)
        values = np.empty((stop - start, self.info.channel_count), self.info.dtype)
        done = 0
        for number, first, after in self._spans(start, stop):
            into = slice(done, done + after - first)
            self._fill(times[into], values[into], number, first)
            done = into.stop
        return Samples(times, values)

    def find(self, time: float) -> int:
        """The number of the first sample at or after a time of the recorder's clock, where times only ever rise.

        Reads the first sample of some chunks, each once, and the timestamps of one chunk.
        """
        chunk = bisect_left(range(len(self._starts)), time, key=self._began) - 1
        if chunk < 0:
            return 0
        return int(self._edges[chunk] + np.searchsorted(self._chunk_times(chunk), time, "left"))

    def place(self, time: float) -> float:
        """The place of a time of the recorder's clock among the samples: 1.5 is half-way from sample 1 to sample 2.

        Before the first and after the last sample, by the nominal rate.
        """
        after = self.find(time)
        before = max(after - 1, 0)
        around = self.synchronised(before, before + 2)
        if not len(around):
            return 0.0
        if 0 < after < self.sample_count:
            return before + float((time - around[0]) / (around[1] - around[0]))
        return before + float(time - around[0]) * self.info.nominal_srate

    def _cut(self, start: int, stop: int | None) -> tuple[int, int]:
        start, stop, _ = slice(start, stop).indices(self.sample_count)
        return start, max(start, stop)

    def _by_recorder(self, start: int, times: F64) -> F64:
        if not self.clock:
            return times
        if len(self.clock) == 1:
            return self.clock[0].line.apply(times)
        corrected = times.copy()
        for part, first, after in zip(self.clock, self.clock_edges[:-1], self.clock_edges[1:], strict=True):
            chosen = slice(max(first - start, 0), max(after - start, 0))
            corrected[chosen] = part.line.apply(times[chosen])
        return corrected

    def _spans(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """The parts of chunks that a range of samples is in: (chunk, first, after), samples counted in the chunk."""
        number = int(np.searchsorted(self._edges, start, "right")) - 1
        while start < stop:
            edge, after = int(self._edges[number]), int(self._edges[number + 1])
            yield number, start - edge, min(stop, after) - edge
            start = after
            number += 1

    def _fill(self, times: F64, values: NDArray[Any], number: int, first: int) -> None:
        """With samples of a chunk of numbers."""
        if not self._is_uniform(number):
            part = self._chunk(number)
            times[:] = part.times[first : first + len(times)]
            values[:] = part.values[first : first + len(times)]
            return
        sample = layout.stamped(self.info.dtype, self.info.channel_count)
        room = np.empty(min(len(times), max(1, ROOM_BYTES // sample.itemsize)), sample)
        for start in range(0, len(times), len(room)):
            rows = room[: len(times) - start]
            self._pread(rows.view(np.uint8).data, int(self._starts[number]) + (first + start) * sample.itemsize)
            times[start : start + len(rows)] = rows["time"]
            values[start : start + len(rows)] = rows["values"]

    def _is_uniform(self, number: int) -> bool:
        """Whether every sample of a chunk of numbers has a timestamp, so that some can be read alone."""
        row = 1 + layout.STAMP + self.info.channel_count * self.info.dtype.itemsize
        return self._index.sizes[number] == self._index.counts[number] * row

    def _read_chunk(self, number: int) -> Samples:
        """A whole chunk, taken apart."""
        times, given, values = self._parse(number)
        before = 0.0 if given.all() else self._before(number)
        times = samples.deduce(times, given, before, self._interval)
        self._lasts[number] = float(times[-1])
        return Samples(times, values)

    @property
    def _interval(self) -> float:
        return 1 / self.info.nominal_srate if self.info.nominal_srate > 0 else 0.0

    def _before(self, number: int) -> float:
        """The timestamp that the first sample of a chunk follows on: the last one before it."""
        if self._index.first_stamped[number]:
            return 0.0  # no sample follows on it
        start = number
        while start > 0 and not self._index.first_stamped[start] and start - 1 not in self._lasts:
            start -= 1
        before = self._lasts.get(start - 1, 0.0)
        for passed in range(start, number):
            times, given, _ = self._parse(passed)
            before = float(samples.deduce(times, given, before, self._interval)[-1])
            self._lasts[passed] = before
        return before

    def _parse(self, number: int) -> tuple[F64, NDArray[np.bool_], NDArray[Any] | Texts]:
        data = bytearray(self._index.sizes[number])
        self._pread(memoryview(data), int(self._starts[number]))
        count = self._index.counts[number]
        try:
            if self.info.is_text:
                return samples.texts(bytes(data), count, self.info.channel_count)
            return samples.numbers(bytes(data), count, self.info)
        except ValueError as error:
            raise SourceError(
                f"{self._path}: stream {self.name!r}: the chunk at byte {self._starts[number]} is damaged: {error}"
            ) from error

    def _pread(self, into: memoryview, offset: int) -> None:
        done = 0
        while done < len(into):
            count = os.preadv(self._file.fileno(), [into[done:]], offset + done)
            if not count:
                raise SourceError(f"{self._path}: it ends before byte {offset + len(into)}; it has shrunk since opened")
            done += count


class XdfFile:
    """An open XDF file. Close it, or use it in a `with`; streams of a closed file cannot be read."""

    def __init__(self, path: Path | str) -> None:
        """Open and scan. Raises SourceError for a file that is not there or is no XDF.

        A file with damage, or torn off at its end, is read as far as it can be: see `damage` and `is_torn`.
        """
        self.path = Path(path)
        try:
            self._file = open(self.path, "rb")  # noqa: SIM115
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be opened: {error.strerror}") from error
        try:
            self.index: Index = scan(self._file, str(self.path))
        except BaseException:
            self._file.close()
            raise
        self.streams = tuple(XdfStream(self._file, self.path, stream) for stream in self.index.streams.values())

    def __enter__(self) -> XdfFile:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()

    @property
    def damage(self) -> tuple[Damage, ...]:
        """What could not be used, in the order of the file."""
        return tuple(self.index.damage)

    @property
    def is_torn(self) -> bool:
        """Whether the file ends within a chunk, as after a crash."""
        return self.index.is_torn

    def stream(self, which: str | int) -> XdfStream:
        """A stream by its id or its name. Raises SourceError where there is none, or more than one of the name."""
        found = [stream for stream in self.streams if which in (stream.stream_id, stream.name)]
        if len(found) != 1:
            known = ", ".join(f"{stream.stream_id} ({stream.name!r})" for stream in self.streams) or "none"
            several = f"{len(found)} have this name, choose by number; " if found else ""
            raise SourceError(f"{self.path}: no stream {which!r}: {several}the file has {known}")
        return found[0]

    def read(self, which: str | int, start: int = 0, stop: int | None = None) -> Samples:
        """Samples of a stream; see `XdfStream.read`."""
        return self.stream(which).read(start, stop)
