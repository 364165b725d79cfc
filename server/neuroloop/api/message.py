"""One published map, in the forms that somebody has asked for: each is made at most once, however many want it."""

from __future__ import annotations

from typing import Any

import msgpack
from pydantic_core import to_json

TOPICS = ("predictions", "rates", "encoders", "signals", "events", "status")
BIN_TOPICS = frozenset({"predictions", "rates", "encoders", "signals"})
"""Topics whose `seq` is the message's own bin; an event's or a status's is the next bin."""
ON_DEMAND = ("signals",)
"""Topics that a session publishes only while somebody subscribes to them."""

TEXT, BINARY = 0x81, 0x82  # the first byte of a whole WebSocket message


class Message:
    """A message arrives packed and leaves as it came, or as JSON, or as a WebSocket frame of either."""

    __slots__ = ("_frames", "_json", "_map", "_seq", "packed", "topic")

    def __init__(self, topic: str, packed: bytes) -> None:
        self.topic = topic
        self.packed = packed
        self._seq: int | None = None
        self.forget()

    @classmethod
    def of(cls, topic: str, content: dict[str, Any]) -> Message:
        return cls(topic, msgpack.packb(content))

    def forget(self) -> None:
        """Keep the packed form alone."""
        self._map: dict[str, Any] | None = None
        self._json: bytes | None = None
        self._frames: list[bytes | None] = [None, None]

    @property
    def map(self) -> dict[str, Any]:
        if self._map is None:
            self._map = msgpack.unpackb(self.packed)
        return self._map

    @property
    def json(self) -> bytes:
        """JSON text, where values that are not finite are null."""
        if self._json is None:
            self._json = to_json(self.map, inf_nan_mode="null")
        return self._json

    @property
    def seq(self) -> int:
        """The number of its bin; 0 where it has none."""
        if self._seq is None:
            self._seq = _seq_in(self.packed)
        return self._seq

    def frame(self, binary: bool) -> bytes:
        """A whole WebSocket message: unmasked, as servers send, and without extensions (RFC 6455, 5.2)."""
        made = self._frames[binary]
        if made is None:
            made = self._frames[binary] = _framed(BINARY, self.packed) if binary else _framed(TEXT, self.json)
        return made


def _framed(first: int, payload: bytes) -> bytes:
    size = len(payload)
    if size < 126:
        return bytes((first, size)) + payload
    if size < 65_536:
        return bytes((first, 126)) + size.to_bytes(2, "big") + payload
    return bytes((first, 127)) + size.to_bytes(8, "big") + payload


def _seq_in(packed: bytes) -> int:
    """The member `seq`, found without unpacking the vectors behind it."""
    unpacker = msgpack.Unpacker()
    unpacker.feed(packed)
    for _ in range(unpacker.read_map_header()):
        if unpacker.unpack() == "seq":
            return int(unpacker.unpack() or 0)
        unpacker.skip()
    return 0
