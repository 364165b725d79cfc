"""The last minute of what a session published, in the order in which it came.

Messages have positions, counted from the first; the oldest go, a whole bin at a time, when they are older than
`HISTORY_S` or when all together are larger than `HISTORY_BYTES`; while no bin comes, events and statuses go one by one.
Only the newest keep their JSON and their frames.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator

from neuroloop.api.message import BIN_TOPICS, Message

HISTORY_S = 60.0
HISTORY_BYTES = 48 * 2**20
MESSAGE_BYTES = 300  # of the objects around a packed map
FORMS_KEPT = 256  # messages; clients that return after a moment get the forms that the others had


class History:
    """`messages[position]` for `first <= position < end`."""

    def __init__(self) -> None:
        self.first = 0
        self.next_seq = 0
        self._messages: deque[Message] = deque()
        self._seqs: deque[tuple[float, int]] = deque()  # when each message came, and the bin it counts for
        self._bytes = 0

    @property
    def end(self) -> int:
        return self.first + len(self._messages)

    @property
    def oldest_seq(self) -> int:
        """The oldest bin that is kept."""
        return self._seqs[0][1] if self._seqs else self.next_seq

    def __getitem__(self, position: int) -> Message:
        message = self._messages[position - self.first]
        return message if self.end - position <= FORMS_KEPT else Message(message.topic, message.packed)

    def add(self, message: Message) -> None:
        seq = max(message.seq, self._seqs[-1][1] if self._seqs else 0)
        self.next_seq = max(self.next_seq, message.seq + (message.topic in BIN_TOPICS))
        now = time.monotonic()
        self._messages.append(message)
        self._seqs.append((now, seq))
        self._bytes += _size(message)
        if len(self._messages) > FORMS_KEPT:
            self._messages[-FORMS_KEPT - 1].forget()
        while self._seqs[0][0] < now - HISTORY_S or (self._bytes > HISTORY_BYTES and len(self._seqs) > 1):
            self._drop_oldest(seq)

    def position_of(self, seq: int) -> int:
        """Of the first message that counts for this bin or a later one."""
        for back, (_, other) in enumerate(reversed(self._seqs)):
            if other < seq:
                return self.end - back
        return self.first

    def of_topic(self, topic: str, positions: range) -> Iterator[Message]:
        return (self[p] for p in positions if self._messages[p - self.first].topic == topic)

    def _drop_oldest(self, newest_seq: int) -> None:
        seq = self._seqs[0][1]
        while True:
            self._seqs.popleft()
            self._bytes -= _size(self._messages.popleft())
            self.first += 1
            if seq == newest_seq or self._seqs[0][1] != seq:
                return


def _size(message: Message) -> int:
    return len(message.packed) + MESSAGE_BYTES
