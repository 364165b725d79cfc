"""One consumer of some topics, and what becomes of it when it is slow.

A consumer that waits gets a message at once: by `write`, if its connection can take it, without waking a task. One that
is behind has no queue: with policy `all` or `every` it goes on reading the history from where it is, so that stalled
connections hold no memory, however many; more than `BEHIND_LIMIT` messages behind, it is told `lagged` and goes on with
the newest `RESUME_LENGTH`, because old ones would keep it behind. With `latest` it finds the newest message of each
topic, decoder and encoder, and is told nothing. One that resumes may be a whole history behind.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import Literal

from neuroloop.api.history import History
from neuroloop.api.message import BIN_TOPICS, Message

BEHIND_LIMIT = 256
RESUME_LENGTH = 8
NAMED_BY = {"predictions": "decoder", "encoders": "encoder"}  # topic -> member that tells several of a bin apart

Write = Callable[[Message], bool]


@dataclass(frozen=True)
class Policy:
    """every: of the topics that have messages for each bin, only those of bins that this divides."""

    name: Literal["all", "latest", "every"] = "all"
    every: int = 1

    def takes(self, message: Message) -> bool:
        return self.every == 1 or message.topic not in BIN_TOPICS or message.seq % self.every == 0


ALL = Policy()


class Subscriber(ABC):
    """`get` is for one task; everything else is called in the event loop's thread and never waits."""

    def __init__(self, history: History, topics: Collection[str], policy: Policy, write: Write | None) -> None:
        """write: sends a message now, or returns False if the connection can't take it at once."""
        self.topics = frozenset(topics)
        self._history = history
        self._policy = policy
        self._write = write
        self._waits = False
        self._closed = False
        self._wake = asyncio.Event()

    def offer(self, message: Message) -> None:
        """Send the message that the history just got, or take note of it."""
        if not self._policy.takes(message):
            return
        if self._waits and not self._wake.is_set() and self._write is not None and self._write(message):
            return
        self._note(message)
        self._wake.set()

    def close(self) -> None:
        """Let the consumer take what is left, and then end."""
        self._closed = True
        self._wake.set()

    async def get(self) -> Message | None:
        """The next message, as soon as there is one; None at the end."""
        while (message := self._take()) is None:
            if self._closed:
                return None
            self._wake.clear()
            self._waits = True
            try:
                await self._wake.wait()
            finally:
                self._waits = False
        return message

    @property
    @abstractmethod
    def behind(self) -> int:
        """Messages that wait for it."""

    @abstractmethod
    def resume(self, seq: int) -> None:
        """Go back to a bin, or as far as the history goes."""

    @abstractmethod
    def _note(self, message: Message) -> None: ...

    @abstractmethod
    def _take(self) -> Message | None: ...


class HistoryReader(Subscriber):
    """Policies `all` and `every`: every message once, or `lagged`."""

    def __init__(self, history: History, topics: Collection[str], policy: Policy, write: Write | None) -> None:
        super().__init__(history, topics, policy, write)
        self._position = history.end
        self._behind = 0  # messages of its own from its position on
        self._resumes = False
        self._lagged: Message | None = None

    @property
    def behind(self) -> int:
        return self._behind

    def resume(self, seq: int) -> None:
        history = self._history
        if seq < history.oldest_seq:
            self._lagged = _lagged(history.oldest_seq - seq, history.oldest_seq)
        self._position = history.position_of(seq)
        self._behind = sum(self._is_mine(history[p]) for p in range(self._position, history.end))
        self._resumes = True

    def _note(self, message: Message) -> None:
        if self._behind == 0:
            self._position = self._history.end - 1  # those before it were written, or are of other topics
        self._behind += 1

    def _take(self) -> Message | None:
        if self._lagged is not None:
            told, self._lagged = self._lagged, None
            return told
        if self._behind == 0:
            self._resumes = False
            return None
        if self._position < self._history.first or (self._behind > BEHIND_LIMIT and not self._resumes):
            return self._skip()
        while True:
            message = self._history[self._position]
            self._position += 1
            if self._is_mine(message):
                self._behind -= 1
                return message

    def _skip(self) -> Message:
        """Go on with the newest messages; returns what tells the client."""
        kept, position = 0, self._history.end
        while kept < min(RESUME_LENGTH, self._behind) and position > self._history.first:
            position -= 1
            kept += self._is_mine(self._history[position])
        missed, self._behind = self._behind - kept, kept
        self._position, self._resumes = position, False
        return _lagged(missed, self._history[position].seq if kept else self._history.next_seq)

    def _is_mine(self, message: Message) -> bool:
        return message.topic in self.topics and self._policy.takes(message)


class LatestReader(Subscriber):
    """Policy `latest`: the newest message of each topic, decoder and encoder that was not sent yet, oldest first."""

    def __init__(self, history: History, topics: Collection[str], policy: Policy, write: Write | None) -> None:
        super().__init__(history, topics, policy, write)
        self._newest: dict[tuple[str, str | None], Message] = {}

    @property
    def behind(self) -> int:
        return len(self._newest)

    def resume(self, seq: int) -> None:
        for position in range(self._history.position_of(seq), self._history.end):
            message = self._history[position]
            if message.topic in self.topics:
                self._note(message)

    def _note(self, message: Message) -> None:
        key = (message.topic, message.map[NAMED_BY[message.topic]] if message.topic in NAMED_BY else None)
        self._newest.pop(key, None)  # so that the order is that of the messages
        self._newest[key] = message

    def _take(self) -> Message | None:
        return self._newest.pop(next(iter(self._newest))) if self._newest else None


def _lagged(missed: int, oldest_seq: int) -> Message:
    return Message.of("lagged", {"type": "lagged", "missed": missed, "oldest_seq": oldest_seq})
