"""The bytes of XDF 1.0: magic, tags, number formats, and lengths of variable length. Everything is little-endian."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Any
from xml.etree import ElementTree

import numpy as np

from neuroloop_sources.errors import SourceError

MAGIC = b"XDF:"
FILE_HEADER, STREAM_HEADER, SAMPLES, CLOCK_OFFSET, BOUNDARY, STREAM_FOOTER = range(1, 7)
OF_A_STREAM = (STREAM_HEADER, SAMPLES, CLOCK_OFFSET, STREAM_FOOTER)
BOUNDARY_UUID = bytes.fromhex("43a546dccbf5410fb30ed5467383cbe4")
STRING = "string"
NUMBERS: dict[str, np.dtype[Any]] = {
    "float32": np.dtype("<f4"),
    "double64": np.dtype("<f8"),
    "int8": np.dtype("<i1"),
    "int16": np.dtype("<i2"),
    "int32": np.dtype("<i4"),
    "int64": np.dtype("<i8"),
}
STAMP = 8  # bytes of a timestamp; 0 before a sample means that the timestamp follows from the one before


def pack_length(length: int) -> bytes:
    """The number of bytes of a length, and the length."""
    if length < 1 << 8:
        return struct.pack("<BB", 1, length)
    if length < 1 << 32:
        return struct.pack("<BI", 4, length)
    return struct.pack("<BQ", 8, length)


def unpack_length(data: bytes | memoryview, at: int) -> tuple[int, int]:
    """The length at a place, and the place after it. Raises ValueError for damage, IndexError where data end."""
    size = data[at]
    after = at + 1 + size
    if size not in (1, 4, 8):
        raise ValueError(f"a length has 1, 4 or 8 bytes, not {size}")
    if after > len(data):
        raise IndexError
    return int.from_bytes(data[at + 1 : after], "little"), after


def stamped(dtype: np.dtype[Any], channel_count: int) -> np.dtype[Any]:
    """A sample with its timestamp, as it lies in the file."""
    row = dtype.itemsize * channel_count
    return np.dtype(
        {
            "names": ["stamp", "time", "values"],
            "formats": ["u1", "<f8", (dtype, (channel_count,))],
            "offsets": [0, 1, 1 + STAMP],
            "itemsize": 1 + STAMP + row,
        }
    )


@dataclass(frozen=True)
class StreamInfo:
    """What the bytes of a stream depend on."""

    name: str
    type: str
    channel_count: int
    nominal_srate: float
    format: str

    @property
    def is_text(self) -> bool:
        return self.format == STRING

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of a value; only of numbers."""
        return NUMBERS[self.format]


def parse_header(text: str) -> tuple[StreamInfo, ElementTree.Element]:
    """A stream's header, which is its LSL description. Raises SourceError where nothing can be read by it."""
    try:
        root = ElementTree.fromstring(text)
    except (ElementTree.ParseError, ValueError) as error:
        raise SourceError(f"stream header: expected XML, as LSL describes a stream: {error}") from error
    name = root.findtext("name") or ""
    info = StreamInfo(
        name=name,
        type=root.findtext("type") or "",
        channel_count=int(_number(root, name, "channel_count")),
        nominal_srate=_number(root, name, "nominal_srate"),
        format=root.findtext("channel_format") or "",
    )
    if info.format != STRING and info.format not in NUMBERS:
        known = ", ".join([*NUMBERS, STRING])
        raise SourceError(f"stream {name!r}: channel_format: expected one of {known}, got {info.format!r}")
    return info, root


def _number(root: ElementTree.Element, name: str, key: str) -> float:
    text = root.findtext(key)
    try:
        number = float(text or "")
        if number >= 0 and number < float("inf") and (key != "channel_count" or number == int(number)):
            return number
    except ValueError:
        pass
    raise SourceError(f"stream {name!r}: {key}: expected a number, 0 or more, got {text!r}")
