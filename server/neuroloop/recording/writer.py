"""Writes XDF 1.0, the format of LabRecorder: append only, and a valid file at every moment.

A chunk is one `write`, made whole in memory before: what ends the process leaves at most one torn chunk, at the end of
the file. Where the disk takes only a part of a chunk (it is full), that part is cut off again and the caller gets the
error: the file holds whole chunks, and the writer can go on.

Every timestamp is stored, bit for bit; none is left for the reader to deduce. The cost of samples is one copy, which
interleaves timestamps and values, and one `write`.
"""

from __future__ import annotations

import fcntl
import os
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Any
from xml.etree import ElementTree

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import Conflict, ModelError
from neuroloop_sources.errors import SourceError
from neuroloop_sources.xdf import layout

DECLARATION = '<?xml version="1.0"?>'
HEAD_BYTES = 32  # more than what stands before the samples of a chunk


@dataclass
class Written:
    """A stream and what its footer will say."""

    info: layout.StreamInfo
    sample: np.dtype[Any] | None  # with its timestamp; None for text
    sample_count: int = 0
    first_timestamp: float = 0.0
    last_timestamp: float = 0.0
    clock_offsets: list[tuple[float, float]] = field(default_factory=list)


class XdfWriter:
    """An XDF file that grows. Owned by one thread.

    Methods that write raise OSError where the disk does not take it; what they were to write is then not in the file,
    not counted, and everything before it is.
    """

    def __init__(self, path: Path | str) -> None:
        """Make the file, with its header. Raises Conflict where there is one already."""
        self.path = Path(path)
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        except FileExistsError as error:
            raise Conflict(f"recording {self.path}: there is a file already; choose another name") from error
        fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # while it is held, nobody repairs the file
        self.bytes_written = 0
        self.closed = False
        self._streams: dict[int, Written] = {}
        self._room = bytearray(1 << 16)
        try:
            self._write(layout.MAGIC + file_header_chunk(datetime.now(UTC)))
        except OSError:
            os.close(self._file)
            self.path.unlink(missing_ok=True)
            raise

    def __enter__(self) -> XdfWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def add_stream(self, header_xml: str) -> int:
        """A stream, by its LSL description, which is kept as it is; returns the stream's id.

        Raises ModelError where channel_count, nominal_srate and channel_format cannot be read from it.
        """
        try:
            info, _ = layout.parse_header(header_xml)
        except SourceError as error:
            raise ModelError(str(error)) from error
        stream_id = len(self._streams) + 1
        self._write(_chunk(layout.STREAM_HEADER, header_xml.encode(), stream_id))
        sample = None if info.is_text else layout.stamped(info.dtype, info.channel_count)
        self._streams[stream_id] = Written(info, sample)
        return stream_id

    def samples(
        self,
        stream_id: int,
        times: NDArray[np.float64] | Sequence[float],
        values: NDArray[Any] | Sequence[Sequence[str]],
    ) -> None:
        """A chunk of samples.

        times: (n,), seconds of the sender's clock. values: (n, channels), of the stream's format, or n lists of texts.
        Raises ModelError for values of another shape or format.
        """
        stream = self._streams[stream_id]
        times = np.asarray(times, np.float64)
        data: bytes | memoryview
        if stream.sample is None:
            data = self._texts(stream_id, stream.info, times, values)
        else:
            data = self._numbers(stream_id, stream, times, np.asarray(values))
        if not len(times):
            return
        self._write(data)
        if not stream.sample_count:
            stream.first_timestamp = float(times[0])
        stream.last_timestamp = float(times[-1])
        stream.sample_count += len(times)

    def clock_offset(self, stream_id: int, collection_time: float, offset: float) -> None:
        """A measurement of the sender's clock.

        collection_time: when it was made, by the sender's clock. offset: seconds to add to the sender's timestamps.
        """
        content = struct.pack("<dd", collection_time, offset)
        stream = self._streams[stream_id]
        self._write(_chunk(layout.CLOCK_OFFSET, content, stream_id))
        stream.clock_offsets.append((collection_time, offset))

    def boundary(self) -> None:
        """A place from which a reader of a damaged file can go on; about every 10 s is usual."""
        self._write(_chunk(layout.BOUNDARY, layout.BOUNDARY_UUID))

    def sync(self) -> None:
        """Return when everything written is on the disk."""
        os.fsync(self._file)

    def close(self) -> None:
        """Write the footers, wait for the disk, and close the file; all later calls of it do nothing."""
        if self.closed:
            return
        self.closed = True
        try:
            for stream_id, stream in self._streams.items():
                self._write(
                    footer_chunk(
                        stream_id,
                        stream.first_timestamp,
                        stream.last_timestamp,
                        stream.sample_count,
                        stream.clock_offsets,
                    )
                )
            self.sync()
        finally:
            os.close(self._file)

    def _numbers(self, stream_id: int, stream: Written, times: NDArray[np.float64], values: NDArray[Any]) -> memoryview:
        """The chunk, in memory that the next one will be made in."""
        assert stream.sample is not None
        info = stream.info
        expected = (*times.shape, info.channel_count)
        if values.shape != expected or values.dtype != info.dtype:
            raise ModelError(
                f"samples of stream {info.name!r}: expected {expected} {info.format}, "
                f"one row for each of {times.shape} timestamps, got {values.shape} {values.dtype}"
            )
        body = len(times) * stream.sample.itemsize
        if HEAD_BYTES + body > len(self._room):
            self._room = bytearray(HEAD_BYTES + body)
        count = layout.pack_length(len(times))
        head = _head(layout.SAMPLES, len(count) + body, stream_id) + count
        start = HEAD_BYTES - len(head)
        self._room[start:HEAD_BYTES] = head
        rows = np.frombuffer(self._room, stream.sample, len(times), HEAD_BYTES)
        rows["stamp"] = layout.STAMP
        rows["time"] = times
        rows["values"] = values
        return memoryview(self._room)[start : HEAD_BYTES + body]

    def _texts(
        self,
        stream_id: int,
        info: layout.StreamInfo,
        times: NDArray[np.float64],
        values: NDArray[Any] | Sequence[Sequence[str]],
    ) -> bytes:
        if times.ndim != 1 or len(values) != len(times) or any(len(row) != info.channel_count for row in values):
            raise ModelError(
                f"samples of stream {info.name!r}: expected {info.channel_count} texts for each of {times.shape} "
                f"timestamps, got {[len(row) for row in values[:5]]} in {len(values)} rows"
            )
        parts = [layout.pack_length(len(times))]
        for time, row in zip(times.tolist(), values, strict=True):
            parts.append(struct.pack("<Bd", layout.STAMP, time))
            for text in row:
                encoded = text.encode("utf-8", "surrogateescape")  # bytes that were no UTF-8 stay as they came
                parts += [layout.pack_length(len(encoded)), encoded]
        return _chunk(layout.SAMPLES, b"".join(parts), stream_id)

    def _write(self, data: bytes | memoryview) -> None:
        """All of it or nothing."""
        done = 0
        try:
            while done < len(data):  # a disk that is full takes a part, and refuses the rest
                done += os.pwrite(self._file, data[done:], self.bytes_written + done)
        except OSError:
            if done:
                os.ftruncate(self._file, self.bytes_written)
            raise
        self.bytes_written += done


def file_header_chunk(made: datetime) -> bytes:
    """The chunk that begins a file."""
    text = f"{DECLARATION}<info><version>1.0</version><datetime>{made.isoformat(timespec='seconds')}</datetime></info>"
    return _chunk(layout.FILE_HEADER, text.encode())


def footer_chunk(
    stream_id: int,
    first_timestamp: float,
    last_timestamp: float,
    sample_count: int,
    clock_offsets: Sequence[tuple[float, float]],
) -> bytes:
    """The chunk that ends a stream."""
    root = ElementTree.Element("info")
    for key, value in (
        ("first_timestamp", repr(first_timestamp)),
        ("last_timestamp", repr(last_timestamp)),
        ("sample_count", str(sample_count)),
    ):
        ElementTree.SubElement(root, key).text = value
    offsets = ElementTree.SubElement(root, "clock_offsets")
    for collection_time, seconds in clock_offsets:
        offset = ElementTree.SubElement(offsets, "offset")
        ElementTree.SubElement(offset, "time").text = repr(collection_time)
        ElementTree.SubElement(offset, "value").text = repr(seconds)
    text = DECLARATION + ElementTree.tostring(root, encoding="unicode")
    return _chunk(layout.STREAM_FOOTER, text.encode(), stream_id)


def stream_header(
    *,
    name: str,
    type: str,
    channels: Sequence[str],
    format: str,
    nominal_srate: float = 0.0,
    units: Sequence[str] | None = None,
    source_id: str = "",
    created_at: float = 0.0,
    description: Mapping[str, str] | None = None,
) -> str:
    """The header of a stream of our own, of the form in which LSL describes its streams.

    channels: their labels. nominal_srate: Hz, 0 for irregular. units: one for each channel. created_at: LSL seconds.
    description: further elements of `desc`, name and text.
    """
    if units is not None and len(units) != len(channels):
        raise ModelError(
            f"units of stream {name!r}: expected one for each of {len(channels)} channels, got {len(units)}"
        )
    root = ElementTree.Element("info")
    for key, value in (
        ("name", name),
        ("type", type),
        ("channel_count", str(len(channels))),
        ("nominal_srate", repr(float(nominal_srate))),
        ("channel_format", format),
        ("source_id", source_id),
        ("version", "1.1"),
        ("created_at", repr(float(created_at))),
    ):
        ElementTree.SubElement(root, key).text = value
    desc = ElementTree.SubElement(root, "desc")
    for key, value in (description or {}).items():
        ElementTree.SubElement(desc, key).text = value
    described = ElementTree.SubElement(desc, "channels")
    for number, label in enumerate(channels):
        channel = ElementTree.SubElement(described, "channel")
        ElementTree.SubElement(channel, "label").text = label
        ElementTree.SubElement(channel, "type").text = type
        if units is not None:
            ElementTree.SubElement(channel, "unit").text = units[number]
    return DECLARATION + ElementTree.tostring(root, encoding="unicode")


def _head(tag: int, content_bytes: int, stream_id: int | None) -> bytes:
    """What stands before a chunk's content."""
    number = b"" if stream_id is None else struct.pack("<I", stream_id)
    return layout.pack_length(2 + len(number) + content_bytes) + struct.pack("<H", tag) + number


def _chunk(tag: int, content: bytes, stream_id: int | None = None) -> bytes:
    return _head(tag, len(content), stream_id) + content
