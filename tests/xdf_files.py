"""XDF files as other programs write them, byte by byte: deduced timestamps, unknown chunks, damage."""

import struct

import numpy as np

from neuroloop.recording.writer import stream_header
from neuroloop_sources.xdf.layout import BOUNDARY_UUID, NUMBERS, pack_length


def chunk(tag: int, content: bytes) -> bytes:
    return pack_length(2 + len(content)) + struct.pack("<H", tag) + content


def file_header() -> bytes:
    return b"XDF:" + chunk(1, b'<?xml version="1.0"?><info><version>1.0</version></info>')


def boundary() -> bytes:
    return chunk(5, BOUNDARY_UUID)


def header(stream_id: int, name: str, format: str = "float32", channel_count: int = 2, srate: float = 100.0, **more):
    channels = more.pop("channels", [f"{name}{number}" for number in range(channel_count)])
    facts = {"type": "EEG", "source_id": f"id-{name}"} | more
    text = stream_header(name=name, channels=channels, format=format, nominal_srate=srate, **facts)
    return chunk(2, struct.pack("<I", stream_id) + text.encode())


def samples(stream_id: int, times, values) -> bytes:
    """times: None for a sample whose timestamp follows from the one before. values: an array, or lists of texts."""
    parts = [struct.pack("<I", stream_id), pack_length(len(times))]
    for time, row in zip(times, values, strict=True):
        parts.append(b"\0" if time is None else struct.pack("<Bd", 8, time))
        if isinstance(row, np.ndarray):
            parts.append(row.tobytes())
        else:
            parts += [pack_length(len(text.encode())) + text.encode() for text in row]
    return chunk(3, b"".join(parts))


def clock_offset(stream_id: int, time: float, offset: float) -> bytes:
    return chunk(4, struct.pack("<Idd", stream_id, time, offset))


def footer(stream_id: int, sample_count: int) -> bytes:
    text = f"<info><first_timestamp>0</first_timestamp><sample_count>{sample_count}</sample_count></info>"
    return chunk(6, struct.pack("<I", stream_id) + text.encode())


def values(generator: np.random.Generator, count: int, format: str = "float32", channel_count: int = 2):
    if format == "string":
        return [[f"{generator.integers(1000)} µV"] * channel_count for _ in range(count)]
    return generator.integers(-100, 100, (count, channel_count)).astype(NUMBERS[format])
