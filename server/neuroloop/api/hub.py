"""What a session publishes, given to each of its subscribers and kept for those who ask later.

A message arrives packed and leaves as it came, or as JSON; each form is made at most once, however many want it.
Every subscriber has a queue of its own. When that is full, the oldest message goes and is counted; the subscriber is
then told `lagged` and goes on with the newest `RESUME_LENGTH` messages, because old ones would keep it behind.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import groupby, islice
from typing import Any

import msgpack
from pydantic_core import to_json

TOPICS = ("predictions", "rates", "events", "status")
QUEUE_LENGTH = 256
RESUME_LENGTH = 8
HISTORY_S = 60.0
HISTORY_LENGTH = 100_000
EVENT_COUNT = 200


class Message:
    """One published map, in the forms it has been asked for in."""

    __slots__ = ("_json", "_map", "packed", "topic")

    def __init__(self, topic: str, packed: bytes) -> None:
        self.topic = topic
        self.packed = packed
        self._map: dict[str, Any] | None = None
        self._json: str | None = None

    @classmethod
    def of(cls, topic: str, content: dict[str, Any]) -> Message:
        return cls(topic, msgpack.packb(content))

    @property
    def map(self) -> dict[str, Any]:
        if self._map is None:
            self._map = msgpack.unpackb(self.packed)
        return self._map

    @property
    def json(self) -> str:
        """JSON text, where values that are not finite are null."""
        if self._json is None:
            self._json = to_json(self.map, inf_nan_mode="null").decode()
        return self._json


class Subscriber:
    """The queue of one consumer of some topics."""

    def __init__(self, length: int = QUEUE_LENGTH) -> None:
        self._queue: deque[Message] = deque()
        self._length = length
        self._missed = 0
        self._closed = False
        self._wake = asyncio.Event()

    def put(self, message: Message) -> None:
        if len(self._queue) >= self._length:
            self._queue.popleft()
            self._missed += 1
        self._queue.append(message)
        self._wake.set()

    def close(self) -> None:
        """Let the consumer take what is queued, and then end."""
        self._closed = True
        self._wake.set()

    async def get(self) -> Message | None:
        """The next message, as soon as there is one; None at the end."""
        while not self._queue:
            if self._closed:
                return None
            self._wake.clear()
            await self._wake.wait()
        if self._missed:
            return self._lagged()
        return self._queue.popleft()

    def _lagged(self) -> Message:
        while len(self._queue) > RESUME_LENGTH:
            self._queue.popleft()
            self._missed += 1
        missed, self._missed = self._missed, 0
        return Message.of("lagged", {"type": "lagged", "missed": missed})


@dataclass(frozen=True, slots=True)
class _Prediction:
    """A prediction as it is kept: packed, because a minute of decoded maps would weigh on the garbage collector."""

    arrived: float
    seq: int
    model: str
    role: str
    packed: bytes


class Hub:
    """The results of one session: its subscribers, its last status and events, a minute of predictions."""

    def __init__(self) -> None:
        self.status: dict[str, Any] | None = None
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENT_COUNT)
        self._predictions: deque[_Prediction] = deque(maxlen=HISTORY_LENGTH)
        self._subscribers: dict[str, list[Subscriber]] = {topic: [] for topic in TOPICS}

    def publish(self, message: Message) -> None:
        """Give a message to those who subscribe its topic; called in the event loop, never waits."""
        for subscriber in self._subscribers[message.topic]:
            subscriber.put(message)
        asyncio.get_running_loop().call_soon(self._keep, message)  # after the senders that were woken just now

    @contextmanager
    def subscribe(self, topics: Collection[str], length: int = QUEUE_LENGTH) -> Iterator[Subscriber]:
        subscriber = Subscriber(length)
        for topic in topics:
            self._subscribers[topic].append(subscriber)
        try:
            yield subscriber
        finally:
            for topic in topics:
                self._subscribers[topic].remove(subscriber)

    def close(self) -> None:
        """End every subscription."""
        for subscriber in {s for subscribers in self._subscribers.values() for s in subscribers}:
            subscriber.close()

    def latest(self, model: str | None = None) -> Message | None:
        """The newest prediction of a model, of the active one by default."""
        for kept in reversed(self._predictions):
            if kept.model == model or (model is None and kept.role == "active"):
                return Message("predictions", kept.packed)
        return None

    def since(self, seq: int, bin_limit: int, model: str | None = None) -> list[Message]:
        """The predictions of the first `bin_limit` bins after bin `seq`, oldest first; all models by default."""
        wanted = (p for p in self._predictions if p.seq > seq and model in (None, p.model))
        bins = islice(groupby(wanted, key=lambda p: p.seq), bin_limit)
        return [Message("predictions", p.packed) for _, in_bin in bins for p in in_bin]

    def seq_range(self) -> tuple[int, int] | None:
        """The oldest and the newest bin whose predictions are kept."""
        return (self._predictions[0].seq, self._predictions[-1].seq) if self._predictions else None

    def _keep(self, message: Message) -> None:
        if message.topic == "predictions":
            self._keep_prediction(message)
        elif message.topic == "events":
            self.events.append(message.map)
        elif message.topic == "status":
            self.status = message.map

    def _keep_prediction(self, message: Message) -> None:
        content = message.map
        now = time.monotonic()
        kept = _Prediction(now, content["seq"], content["model"]["name"], content["role"], message.packed)
        self._predictions.append(kept)
        while self._predictions[0].arrived < now - HISTORY_S:
            self._predictions.popleft()
