"""Results out of the session process: one MessagePack map per message, over ZeroMQ publish and subscribe.

Publishing never waits. A subscriber that has not taken 20 000 messages loses the newest; it sees that in `seq`.
"""

from __future__ import annotations

from typing import Any

import msgpack
import zmq

HIGH_WATER = 20_000


class Publisher:
    """The publishing end, used by one thread."""

    def __init__(self, context: zmq.Context[Any], endpoint: str) -> None:
        self._socket = context.socket(zmq.PUB)
        self._socket.setsockopt(zmq.SNDHWM, HIGH_WATER)
        self._socket.setsockopt(zmq.LINGER, 200)
        self._socket.bind(endpoint)
        self._pack = msgpack.Packer(autoreset=True).pack

    def __call__(self, topic: bytes, message: dict[str, Any]) -> None:
        self._socket.send_multipart((topic, self._pack(message)), zmq.DONTWAIT, copy=True)

    def close(self) -> None:
        self._socket.close()
