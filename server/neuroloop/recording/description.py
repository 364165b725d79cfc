"""What a recording holds, in plain values: for the API, and for `neuroloop recordings show`."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from neuroloop.recording.reader import XdfFile, XdfStream, open_xdf

CONTROL = "neuroloop-control"
LOST = "neuroloop-lost"
BLOBS = "neuroloop-blobs"


def describe(path: Path) -> dict[str, Any]:
    """One scan over the file, whose samples stay where they are. Raises ModelError for a file that is no XDF.

    lost: what the recorder could not write, as it says itself. damage: what cannot be read.
    """
    with open_xdf(path) as file:
        found = list(notes(file))
        begun = next((note for note in found if note["kind"] == "session"), None)
        made_by = next((note for note in found if note["kind"] == "made_by"), {})
        return {
            "name": path.stem,
            "bytes": file.index.size,
            "is_closed": bool(file.streams) and all(stream.footer is not None for stream in file.streams),
            "damage": [str(damage) for damage in file.damage],
            "streams": [_stream(stream) for stream in file.streams],
            "session": None if begun is None else begun["settings"],
            "made_by": {key: made_by[key] for key in ("python", "machine", "packages") if key in made_by},
            "lost": losses(file),
        }


def notes(file: XdfFile) -> Iterator[dict[str, Any]]:
    """The notes of a recording of our own, in their order; of another, none."""
    return _maps(file, CONTROL)


def losses(file: XdfFile) -> list[dict[str, Any]]:
    """The table of what the recording lacks."""
    return list(_maps(file, LOST))


def of_type(file: XdfFile, type: str) -> list[XdfStream]:
    return [stream for stream in file.streams if stream.info.type == type]


def _maps(file: XdfFile, type: str) -> Iterator[dict[str, Any]]:
    for stream in of_type(file, type):
        for row in stream.read().values:
            yield json.loads(row[0])


def _stream(stream: XdfStream) -> dict[str, Any]:
    count = stream.sample_count
    times = [float(stream.times(at, at + 1)[0]) for at in (0, count - 1)] if count else [None, None]
    return {
        "id": stream.stream_id,
        "name": stream.name,
        "type": stream.info.type,
        "source_id": stream.source_id,
        "format": stream.info.format,
        "channel_count": stream.info.channel_count,
        "nominal_srate": stream.info.nominal_srate,
        "samples": count,
        "first": times[0],
        "last": times[1],
    }
