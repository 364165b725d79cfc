"""What a session publishes, given to each of its subscribers and kept for those who ask later."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from itertools import groupby, islice
from typing import Any

from neuroloop.api.history import History
from neuroloop.api.message import ON_DEMAND, TOPICS, Message
from neuroloop.api.subscriber import ALL, HistoryReader, LatestReader, Policy, Subscriber, Write
from neuroloop.errors import Conflict, Unavailable

EVENT_COUNT = 200


class Hub:
    """The results of one session: its subscribers, its last status and events, a minute of everything."""

    def __init__(self, want: Callable[[str, bool], None] = lambda topic, is_wanted: None) -> None:
        """want: called with a topic that is published on demand, and whether anybody subscribes to it."""
        self._want = want
        self.status: dict[str, Any] | None = None
        self.events: deque[dict[str, Any]] = deque(maxlen=EVENT_COUNT)
        self._history = History()
        self._subscribers: dict[str, list[Subscriber]] = {topic: [] for topic in TOPICS}
        self._closed = False

    @property
    def next_seq(self) -> int:
        """The bin after the newest one."""
        return self._history.next_seq

    @property
    def subscribers(self) -> set[Subscriber]:
        """Of any topic."""
        return {subscriber for of_topic in self._subscribers.values() for subscriber in of_topic}

    def publish(self, message: Message) -> None:
        """Give a message to those who subscribe its topic; called in the event loop, never waits."""
        self._history.add(message)
        for subscriber in self._subscribers[message.topic]:
            subscriber.offer(message)
        if message.topic == "events":
            self.events.append(message.map)
        elif message.topic == "status":
            self.note_status(message.map)

    def note_status(self, status: dict[str, Any]) -> None:
        """Keep what a session says of itself, unless it has said something newer: there are two ways here."""
        if self.status is None or status["time"] >= self.status["time"]:
            self.status = status

    def check_resumption(self, seq: int) -> None:
        """Raise Conflict if bin `seq` is in the future, Unavailable while nothing is known of this session."""
        if self._history.end == 0:
            raise Unavailable("the session has published nothing yet; try again when /readyz says so")
        if seq > self.next_seq:
            raise Conflict(
                f"resume_from: bin {seq} is in the future, the next one is {self.next_seq}; "
                "was it of another run of the session?"
            )

    @contextmanager
    def subscribe(
        self,
        topics: Collection[str],
        policy: Policy = ALL,
        resume_from: int | None = None,
        write: Write | None = None,
    ) -> Iterator[Subscriber]:
        """write: of the subscriber's connection; see `Subscriber`."""
        kind = LatestReader if policy.name == "latest" else HistoryReader
        subscriber = kind(self._history, topics, policy, write)
        if resume_from is not None:
            subscriber.resume(resume_from)
        if self._closed:
            subscriber.close()
        for topic in topics:
            self._subscribers[topic].append(subscriber)
        self._tell_wanted(topics)
        try:
            yield subscriber
        finally:
            for topic in topics:
                self._subscribers[topic].remove(subscriber)
            self._tell_wanted(topics)

    def _tell_wanted(self, topics: Collection[str]) -> None:
        for topic in ON_DEMAND:
            if topic in topics:
                self._want(topic, bool(self._subscribers[topic]))

    def close(self) -> None:
        """End every subscription, those to come too."""
        self._closed = True
        for subscriber in self.subscribers:
            subscriber.close()

    def latest(self, model: str | None = None) -> Message | None:
        """The newest prediction of a decoder, of the active one by default."""
        backwards = range(self._history.end - 1, self._history.first - 1, -1)
        return next((p for p in self._predictions(backwards) if _is_of(p, model, "active")), None)

    def since(self, seq: int, bin_limit: int, model: str | None = None) -> list[Message]:
        """The predictions of the first `bin_limit` bins after bin `seq`, in their order; all decoders by default."""
        after = range(self._history.position_of(seq + 1), self._history.end)
        wanted = [p for p in self._predictions(after) if p.seq > seq and _is_of(p, model)]
        wanted.sort(key=lambda p: p.seq)  # answers of shadows may come late
        bins = islice(groupby(wanted, key=lambda p: p.seq), bin_limit)
        return [prediction for _, in_bin in bins for prediction in in_bin]

    def seq_range(self) -> tuple[int, int] | None:
        """The oldest and the newest bin whose predictions are kept."""
        oldest = next(self._predictions(range(self._history.first, self._history.end)), None)
        return None if oldest is None else (oldest.seq, self.next_seq - 1)

    def _predictions(self, positions: range) -> Iterator[Message]:
        return self._history.of_topic("predictions", positions)


def _is_of(prediction: Message, model: str | None, role: str | None = None) -> bool:
    """Whether it is of this decoder, or has this role where none is named."""
    if model is None:
        return role is None or bool(prediction.map["role"] == role)
    return bool(prediction.map["decoder"] == model)
