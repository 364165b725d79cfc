"""What a session itself says, as streams of its recording: messages, rates, labels, notes for a replay, and losses.

Each begins with the first thing that is written to it. Maps are JSON, whose numbers read back to the bit; bytes in them
are base64, and of arrays there is the digest. Bytes that are many, such as the weights of a model, have a stream of
their own, in pieces: (digest, base64). They come before the note that names them, and once, however many notes do.
"""

from __future__ import annotations

import json
from base64 import b64encode
from collections import defaultdict
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

import msgpack
import numpy as np
from pylsl import local_clock

from neuroloop.recording.description import BLOBS, CONTROL, LOST
from neuroloop.recording.writer import XdfWriter, stream_header

ENCODED_AT_ONCE = 3 * (1 << 14)  # bytes; more would hold the interpreter's lock for longer than a loop can wait
PREDICTIONS, RATES, ENCODERS, EVENTS = "predictions", "rates", "encoders", "events"
MARKERS = "Markers"  # the type by which other programs know labels
PIECES_AT_ONCE = 64  # of a blob, between which samples are looked after
BLOB_CHANNELS = ("digest", "base64")
LABEL_CHANNELS = ("label", "start", "end", "bins")


def type_of(topic: str) -> str:
    """The type of the stream of a topic."""
    return f"neuroloop-{topic}"


def plain(value: Any) -> Any:
    """For `json.dumps`: what it does not know."""
    if isinstance(value, bytes):
        return {"base64": b64encode(value).decode()}
    if isinstance(value, np.ndarray):
        return {"sha256": sha256(np.ascontiguousarray(value).data).hexdigest(), "shape": value.shape}
    raise TypeError(f"a note cannot have {type(value).__name__}")


class OwnStreams:
    """Of the recording of one session; used by the recorder's thread."""

    def __init__(self, writer: XdfWriter, session: str) -> None:
        self._writer = writer
        self._session = session
        self._streams: dict[tuple[str, int], int] = {}
        self._times: dict[int, list[float]] = defaultdict(list)
        self._rows: dict[int, list[Sequence[Any]]] = defaultdict(list)
        self._blobs: set[str] = set()

    def message(self, topic: str, packed: bytes) -> None:
        """A message as it was published."""
        message = msgpack.unpackb(packed)
        if topic == RATES:
            self._add(self._rates(len(message["rates"])), message["time"], message["rates"])
            return
        if topic == EVENTS and message["event"] == "label_learned":
            self._label(message)
        self._add(self._text(type_of(topic), topic), message["time"], [json.dumps(message)])

    def note(self, time: float, note: dict[str, Any], between: Callable[[], None] = lambda: None) -> None:
        """What a replay needs to know. between: called now and then while many bytes are written. Raises OSError."""
        stream = self._text(CONTROL, "control")
        lean = self._without_blobs(time, note, between)
        self._add(stream, time, [json.dumps(lean, default=plain)])

    def _without_blobs(self, time: float, value: Any, between: Callable[[], None]) -> Any:
        """The same with digests in place of the bytes that are many, which have been written."""
        if isinstance(value, dict):
            return {key: self._without_blobs(time, one, between) for key, one in value.items()}
        if isinstance(value, bytes) and len(value) > ENCODED_AT_ONCE:
            return {"blob": self._blob(time, value, between)}
        return value

    def _blob(self, time: float, data: bytes, between: Callable[[], None]) -> str:
        """Its digest, when it has been written: piece by piece, so that neither the loop nor a ring waits for it."""
        digest = sha256(data).hexdigest()
        if digest in self._blobs:
            return digest
        stream = self._text(BLOBS, "blobs", BLOB_CHANNELS)
        for number, at in enumerate(range(0, len(data), ENCODED_AT_ONCE), 1):
            piece = b64encode(data[at : at + ENCODED_AT_ONCE]).decode()
            self._writer.samples(stream, [time], [[digest, piece]])
            if number % PIECES_AT_ONCE == 0:
                between()
        self._blobs.add(digest)
        return digest

    def lost(self, what: str, facts: dict[str, Any]) -> None:
        """A line of the table of what the recording lacks."""
        self._add(self._text(LOST, "lost"), local_clock(), [json.dumps({"what": what, **facts})])

    def annotation(self, time: float, text: str) -> None:
        """A remark of a person."""
        self._add(self._text(MARKERS, "annotations"), time, [text])

    def write(self) -> None:
        """Everything since the last call, a chunk for each stream. Raises OSError."""
        for stream, rows in self._rows.items():
            if rows:
                numbers = not isinstance(rows[0][0], str)
                self._writer.samples(stream, self._times[stream], np.array(rows, np.float32) if numbers else rows)
                rows.clear()
                self._times[stream].clear()

    def _label(self, event: dict[str, Any]) -> None:
        stream = self._text(MARKERS, "labels", LABEL_CHANNELS)
        texts = [event["label"], repr(event["start"]), repr(event["end"]), str(event["bins"])]
        self._add(stream, event["start"], texts)

    def _add(self, stream: int, time: float, row: Sequence[Any]) -> None:
        self._times[stream].append(time)
        self._rows[stream].append(row)

    def _rates(self, features: int) -> int:
        key = RATES, features
        if key not in self._streams:
            labels = [str(number) for number in range(1, features + 1)]
            self._streams[key] = self._begin(type_of(RATES), RATES, labels, "float32")
        return self._streams[key]

    def _text(self, type: str, name: str, channels: Sequence[str] = ("text",)) -> int:
        key = name, 0
        if key not in self._streams:
            self._streams[key] = self._begin(type, name, channels, "string")
        return self._streams[key]

    def _begin(self, type: str, name: str, channels: Sequence[str], format: str) -> int:
        full = f"{self._session} {name}"
        header = stream_header(
            name=full,
            type=type,
            channels=channels,
            format=format,
            source_id=f"neuroloop-{self._session}-{name}",
            created_at=local_clock(),
        )
        return self._writer.add_stream(header)
