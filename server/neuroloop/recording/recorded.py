"""A recording of a session, as far as a replay asks: what came in, when, and what was answered."""

from __future__ import annotations

import json
from base64 import b64decode
from collections import defaultdict
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from hashlib import sha256
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.recording.description import BLOBS, losses, notes, of_type
from neuroloop.recording.reader import Samples, XdfFile, XdfStream

ROWS = 1024  # of a text stream, read at once
PIECE = 8192  # samples, read at once
PIECES = 64  # of blobs, read at once
NO_BLOBS: Mapping[str, bytes] = MappingProxyType({})

Note = dict[str, Any]


@dataclass(frozen=True)
class Lost:
    """Samples that the recorder could not write: counts of the ring, from `first` to before `stop`."""

    first: int
    stop: int


class RingSamples:
    """The samples of one ring, by their count there. first: count of the first one that was recorded."""

    def __init__(self, stream: XdfStream, first: int, lost: list[Lost]) -> None:
        self.first = first
        self.stop = first + stream.sample_count + sum(part.stop - part.first for part in lost)
        self._stream = stream
        self._lost = lost
        self._reader = ThreadPoolExecutor(1, thread_name_prefix="read-ahead")
        self._pieces: dict[int, Future[Samples]] = {}

    def whole_until(self, count: int) -> int:
        """The samples from `count` to before this are there."""
        if not self._lost:
            return max(count, self.stop)
        later = [part.first for part in self._lost if part.stop > count]
        return max(count, min([self.stop, *later]))

    def read(self, start: int, stop: int) -> Samples:
        """start, stop: counts, between which nothing was lost. Gives fewer at the end of a piece, at least one."""
        missing = self.first + sum(part.stop - part.first for part in self._lost if part.stop <= start)
        number, first = divmod(start - missing, PIECE)
        times, values = self._piece(number)
        after = min(stop - missing - number * PIECE, PIECE)
        return Samples(times[first:after], values[first:after])

    def _piece(self, number: int) -> Samples:
        """A piece, while the next one is read beside."""
        for wanted in (number, number + 1):
            if wanted not in self._pieces:
                start = wanted * PIECE
                self._pieces[wanted] = self._reader.submit(self._stream.read, start, start + PIECE)
        for old in [one for one in self._pieces if one < number]:
            del self._pieces[old]
        return self._pieces[number].result()

    def close(self) -> None:
        self._reader.shutdown(cancel_futures=True)


class RecordedSession:
    """An open recording that a session of ours made. Raises ModelError for another one."""

    def __init__(self, file: XdfFile) -> None:
        self._file = file
        found = blobs(file)
        self.notes = [revived(note, found) for note in notes(file)]
        begun = [note for note in self.notes if note["kind"] == "session"]
        if not begun:
            raise ModelError(
                f"{file.path}: it has no stream of notes (neuroloop-control), so no session of neuroloop made it; "
                "play it instead: neuroloop play"
            )
        self.begun = begun[0]
        self.lost = losses(file)

    def ring(self, serial: int) -> RingSamples:
        """The samples that went into this ring. Raises ModelError where the recording has none."""
        found = [note for note in self.notes if note["kind"] == "ring" and note["ring"] == serial]
        if not found:
            raise ModelError(f"{self._file.path}: the recording ends before the first sample of its stream")
        stream = self._file.stream(found[0]["stream"])
        lost = [
            Lost(entry["first"], entry["first"] + entry["count"])
            for entry in self.lost
            if entry["what"] == "samples" and entry["stream"] == stream.stream_id
        ]
        return RingSamples(stream, found[0]["first"], lost)

    def predictions(self) -> Iterator[dict[str, Any]]:
        """As they were published, in that order; read as they are asked for."""
        return (json.loads(row[0]) for row, _ in self._rows("neuroloop-predictions"))

    def encoders(self) -> Iterator[dict[str, Any]]:
        """What encoders answered, in the same way."""
        return (json.loads(row[0]) for row, _ in self._rows("neuroloop-encoders"))

    def labels(self) -> list[tuple[str, float, float]]:
        """(label, start, end) of those that were learned."""
        rows = [row for stream in self._file.streams if stream.name.endswith(" labels") for row in stream.read().values]
        return [(row[0], float(row[1]), float(row[2])) for row in rows if len(row) == 4]

    def rates(self) -> Iterator[tuple[float, NDArray[np.float32]]]:
        """(time, rates) of every bin."""
        return ((time, row) for row, time in self._rows("neuroloop-rates"))

    def _rows(self, type: str) -> Iterator[tuple[Any, float]]:
        for stream in of_type(self._file, type):
            for start in range(0, stream.sample_count, ROWS):
                times, rows = stream.read(start, start + ROWS)
                yield from zip(rows, times.tolist(), strict=True)


def blobs(file: XdfFile) -> dict[str, bytes]:
    """What notes name by its digest."""
    found: dict[str, bytearray] = defaultdict(bytearray)
    for stream in of_type(file, BLOBS):
        for start in range(0, stream.sample_count, PIECES):
            for digest, piece in stream.read(start, start + PIECES).values:
                found[digest] += b64decode(piece)
    return {digest: bytes(data) for digest, data in found.items()}


def revived(value: Any, blobs: Mapping[str, bytes] = NO_BLOBS) -> Any:
    """A value of a note with its bytes. Raises ModelError where they are not in the recording."""
    if isinstance(value, list):
        return [revived(item, blobs) for item in value]
    if not isinstance(value, dict):
        return value
    if value.keys() == {"base64"}:
        return b64decode(value["base64"])
    if value.keys() == {"blob"}:
        data = blobs.get(value["blob"], b"")
        if (got := sha256(data).hexdigest()) != value["blob"]:
            raise ModelError(
                f"recording: expected the bytes of SHA-256 {value['blob']}, which a note names, "
                f"got {len(data)} bytes of {got}"
            )
        return data
    return {key: revived(item, blobs) for key, item in value.items()}
