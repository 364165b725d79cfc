"""Where everything is in an XDF file: one scan over the heads of its chunks, which reads no sample but texts.

What is damaged is left out and told. After damage the scan goes on behind the next boundary chunk. A file that was torn
off ends before the chunk that is not whole.
"""

from __future__ import annotations

import os
import struct
from array import array
from collections.abc import Callable
from dataclasses import dataclass, field
from io import BufferedReader
from xml.etree import ElementTree

from neuroloop_sources.errors import SourceError
from neuroloop_sources.xdf import layout
from neuroloop_sources.xdf.samples import text_places

HEAD_BYTES = 32  # length, tag, stream id, number of samples, and the first sample's stamp, at their longest
SEARCH_BYTES = 1 << 20
XML_BYTES = 1 << 26  # of a header or footer; what says that it has more is damaged


@dataclass(frozen=True)
class Damage:
    """Bytes that could not be used: from `start`, to before `stop`."""

    start: int
    stop: int
    reason: str

    def __str__(self) -> str:
        return f"bytes {self.start} to {self.stop}: {self.reason}"


@dataclass
class StreamIndex:
    """A stream and its chunks of samples: `starts` of the first sample's bytes, `sizes` of all of them in bytes.

    first_stamped: whether a chunk's first sample has its timestamp, and does not follow from the sample before.
    """

    stream_id: int
    info: layout.StreamInfo
    header: str
    starts: array[int] = field(default_factory=lambda: array("q"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    counts: array[int] = field(default_factory=lambda: array("q"))
    first_stamped: array[int] = field(default_factory=lambda: array("b"))
    clock_offsets: list[tuple[float, float]] = field(default_factory=list)
    footer: ElementTree.Element | None = None


@dataclass
class Index:
    """What a file holds. damage: in the order of the file. end: of the last whole chunk; size: of the file."""

    header: str = ""
    streams: dict[int, StreamIndex] = field(default_factory=dict)
    damage: list[Damage] = field(default_factory=list)
    end: int = 0
    size: int = 0

    @property
    def is_torn(self) -> bool:
        """Whether something that is no whole chunk follows the last one."""
        return self.end < self.size


class _Bad(Exception):
    """A chunk that is not what its head says."""


def scan(file: BufferedReader, name: str) -> Index:
    """The index of an open file. Raises SourceError for a file that is no XDF.

    About 5 microseconds for every chunk; texts are read, samples of numbers are not.
    """
    index = Index(size=os.fstat(file.fileno()).st_size)
    file.seek(0)
    magic = file.read(len(layout.MAGIC))
    if magic != layout.MAGIC:
        packed = "; it is compressed: unpack it first, as a .gz file" if magic[:2] == b"\x1f\x8b" else ""
        raise SourceError(f"{name}: expected an XDF file, which begins with {layout.MAGIC!r}, got {magic!r}{packed}")
    scanner = _Scanner(file, index)
    index.end = position = len(layout.MAGIC)
    while position < index.size:
        try:
            position = index.end = scanner.chunk(position)
        except _Bad as bad:
            found = find_boundary(file, position, index.size)
            index.damage.append(Damage(position, found or index.size, str(bad)))
            if found is None:
                break
            position = index.end = found
    return index


def find_boundary(file: BufferedReader, start: int, size: int) -> int | None:
    """The place after the next boundary chunk."""
    overlap = len(layout.BOUNDARY_UUID) - 1
    while start < size:
        file.seek(start)
        block = file.read(SEARCH_BYTES + overlap)
        at = block.find(layout.BOUNDARY_UUID)
        if at >= 0:
            return start + at + len(layout.BOUNDARY_UUID)
        start += SEARCH_BYTES
    return None


class _Scanner:
    """Reads chunks into an index."""

    def __init__(self, file: BufferedReader, index: Index) -> None:
        self._file = file
        self._index = index
        self._of_stream: dict[int, Callable[[StreamIndex, int, int], None]] = {
            layout.CLOCK_OFFSET: self._clock_offset,
            layout.STREAM_FOOTER: self._footer,
        }

    def chunk(self, position: int) -> int:
        """Take in the chunk at a place; returns the place after it."""
        self._file.seek(position)
        head = self._file.read(HEAD_BYTES)
        try:
            length, at = layout.unpack_length(head, 0)
        except ValueError as error:
            raise _Bad(str(error)) from error
        except IndexError:
            raise _Bad("the file ends within a chunk") from None
        after = position + at + length
        if after > self._index.size:
            raise _Bad(f"a chunk of {length} bytes does not end before the file does")
        if length < 2:
            raise _Bad(f"a chunk has 2 bytes or more, not {length}")
        (tag,) = struct.unpack_from("<H", head, at)
        if tag == layout.FILE_HEADER:
            self._index.header = self._index.header or self._text(position + at + 2, after)
        elif tag in layout.OF_A_STREAM:
            if length < 6:
                raise _Bad(f"a chunk of a stream has 6 bytes or more, not {length}")
            (stream_id,) = struct.unpack_from("<I", head, at + 2)
            self._stream_chunk(tag, stream_id, head, at + 6, position, after)
        elif tag != layout.BOUNDARY and self._hides_boundary(position, after):
            raise _Bad(f"a chunk of the unknown kind {tag} goes beyond a boundary")
        return after

    def _hides_boundary(self, start: int, stop: int) -> bool:
        """Whether a boundary begins there, which the scan would miss."""
        after = find_boundary(self._file, start, stop)
        return after is not None and after - len(layout.BOUNDARY_UUID) < stop

    def _stream_chunk(self, tag: int, stream_id: int, head: bytes, at: int, position: int, after: int) -> None:
        content = position + at
        if tag == layout.STREAM_HEADER:
            self._header(stream_id, content, after)
            return
        stream = self._index.streams.get(stream_id)
        if stream is None:
            self._tell(position, after, f"a chunk of stream {stream_id}, which has no header")
        elif tag == layout.SAMPLES:
            self._samples(stream, head, at, position, after)
        else:
            self._of_stream[tag](stream, content, after)

    def _header(self, stream_id: int, start: int, stop: int) -> None:
        text = self._text(start, stop)
        try:
            info, _ = layout.parse_header(text)
        except SourceError as error:
            raise _Bad(str(error)) from error
        if stream_id in self._index.streams:
            self._tell(start, stop, f"a second header of stream {stream_id}; the first one holds")
        else:
            self._index.streams[stream_id] = StreamIndex(stream_id, info, text)

    def _samples(self, stream: StreamIndex, head: bytes, at: int, position: int, after: int) -> None:
        try:
            count, at = layout.unpack_length(head, at)
        except (ValueError, IndexError):
            raise _Bad("a chunk of samples without their number") from None
        start = position + at
        size = after - start
        if size < 0:
            raise _Bad("a chunk of samples without their number")
        if not count:
            return
        info = stream.info
        if info.is_text:
            self._file.seek(start)
            if text_places(self._file.read(size), count, info.channel_count) is None:
                self._tell(position, after, f"texts of stream {stream.stream_id} that are not whole")
                return
        else:
            stamps = size - count * (1 + info.channel_count * info.dtype.itemsize)
            if not 0 <= stamps <= count * layout.STAMP or stamps % layout.STAMP:
                raise _Bad(f"{size} bytes cannot be {count} samples of stream {stream.stream_id}")
        stream.starts.append(start)
        stream.sizes.append(size)
        stream.counts.append(count)
        stream.first_stamped.append(head[at] != 0)

    def _clock_offset(self, stream: StreamIndex, start: int, stop: int) -> None:
        if stop - start != 16:
            raise _Bad(f"a clock offset has 16 bytes, not {stop - start}")
        self._file.seek(start)
        stream.clock_offsets.append(struct.unpack("<dd", self._file.read(16)))

    def _footer(self, stream: StreamIndex, start: int, stop: int) -> None:
        try:
            stream.footer = ElementTree.fromstring(self._text(start, stop))
        except (ElementTree.ParseError, ValueError) as error:
            self._tell(start, stop, f"the footer of stream {stream.stream_id} is no XML: {error}")

    def _tell(self, start: int, stop: int, reason: str) -> None:
        self._index.damage.append(Damage(start, stop, reason))

    def _text(self, start: int, stop: int) -> str:
        if stop - start > XML_BYTES:
            raise _Bad(f"a header or footer of {stop - start} bytes")
        self._file.seek(start)
        return self._file.read(stop - start).decode("utf-8", "replace")
