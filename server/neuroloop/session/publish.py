"""Results out of the session process: one MessagePack map per message, over ZeroMQ publish and subscribe.

Publishing never waits. A subscriber that has not taken 20 000 messages loses the newest; it sees that in `seq`.

The last messages are kept, and sent again when somebody subscribes: a server that was started in the place of one that
died has no hole where the session had none. A session has one subscriber, its server; another beside it would get them
twice. A few are sent with each new message, so that no bin waits for them: 32 take 0.24 ms, and a minute of 100
messages per second is there within two seconds.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Protocol

import msgpack
import zmq

from neuroloop.session.curve import Keys, guard

HIGH_WATER = 20_000
KEPT_COUNT = 8192
KEPT_BYTES = 32 * 2**20
SENT_AT_ONCE = 32
SUBSCRIBED = 1  # the first byte of what comes from a subscriber; the topic follows, none for all of them
ONLY_LIVE = frozenset({b"signals"})
"""Topics that are published while somebody wants them: neither kept nor recorded."""


class Publish(Protocol):
    """What a loop publishes with. tap: takes the topic and the packed map of each message, too; must not wait."""

    tap: Callable[[bytes, bytes], None] | None

    def wants(self, topic: bytes, /) -> bool:
        """Whether somebody subscribes to this topic by its name."""
        ...

    def __call__(self, topic: bytes, message: dict[str, Any], /) -> None: ...


class Publisher:
    """The publishing end, used by one thread."""

    def __init__(self, context: zmq.Context[Any], endpoint: str, keys: Keys | None = None) -> None:
        self._socket = context.socket(zmq.XPUB)  # as PUB, and tells when somebody subscribes
        self._socket.setsockopt(zmq.XPUB_VERBOSE, 1)  # of every one, whoever subscribes already or has just gone
        self._socket.setsockopt(zmq.SNDHWM, HIGH_WATER)
        self._socket.setsockopt(zmq.LINGER, 200)
        guard(self._socket, keys)
        self._socket.bind(endpoint)
        self.endpoint = self._socket.last_endpoint.decode()
        self.tap: Callable[[bytes, bytes], None] | None = None
        self._pack = msgpack.Packer(autoreset=True).pack
        self._kept: deque[tuple[bytes, bytes]] = deque()
        self._kept_bytes = 0
        self._unsent = 0  # so many of the newest that are kept
        self._wanted: set[bytes] = set()

    def wants(self, topic: bytes) -> bool:
        return topic in self._wanted

    def __call__(self, topic: bytes, message: dict[str, Any]) -> None:
        packed = self._pack(message)
        if topic in ONLY_LIVE:
            self._socket.send_multipart((topic, packed), zmq.DONTWAIT, copy=True)
            return
        self._keep(topic, packed)
        if self.tap is not None:
            self.tap(topic, packed)
        while self._socket.getsockopt(zmq.EVENTS) & zmq.POLLIN:
            told = self._socket.recv(zmq.DONTWAIT)
            if len(told) > 1:
                (self._wanted.add if told[0] == SUBSCRIBED else self._wanted.discard)(told[1:])
            elif told[0] == SUBSCRIBED:
                self._unsent = len(self._kept)
        if self._unsent == 1:
            self._socket.send_multipart(self._kept[-1], zmq.DONTWAIT, copy=True)
            self._unsent = 0
            return
        first = len(self._kept) - self._unsent
        for kept in islice(self._kept, first, first + SENT_AT_ONCE):
            self._socket.send_multipart(kept, zmq.DONTWAIT, copy=True)
            self._unsent -= 1

    def _keep(self, topic: bytes, packed: bytes) -> None:
        self._kept.append((topic, packed))
        self._kept_bytes += len(packed)
        while len(self._kept) > KEPT_COUNT or self._kept_bytes > KEPT_BYTES:
            self._kept_bytes -= len(self._kept.popleft()[1])
        self._unsent = min(self._unsent + 1, len(self._kept))

    def close(self) -> None:
        self._socket.close()
