"""The ring between an acquire thread and the loop: samples as received, their timestamps, and when they arrived.

One writer, one reader, nothing locked: each side owns its count, and a Python integer is replaced, never changed.
The writer never overwrites what the reader has not consumed; when the ring is full it drops the newest samples and says
so (`overrun`). The reader then lets go of what is in the ring: it would stay behind by all of it otherwise.

A recorder may read beside them. Nobody waits for it: it looks afterwards whether what it copied was still `whole`. The
loop smooths `times` where they are, so the ring keeps them as they were `received`, too.
"""

from __future__ import annotations

from collections import deque
from itertools import count as numbers

import numpy as np
from numpy.typing import NDArray

_serials = numbers(1)


class Ring:
    """Room for `capacity` samples of `channel_count` channels in the stream's own number format."""

    def __init__(self, capacity: int, channel_count: int, dtype: np.dtype[np.generic]) -> None:
        self.samples: NDArray[np.generic] = np.zeros((capacity, channel_count), dtype)
        self.times: NDArray[np.float64] = np.zeros(capacity)
        self.received: NDArray[np.float64] = np.zeros(capacity)
        self.serial = next(_serials)  # tells rings of a process apart
        self.capacity = capacity
        self.most_at_once = max(1, capacity // 4)  # that the writer may be writing at any moment
        self.written = 0
        self.consumed = 0
        self.wanted = 1
        self.is_overrun = False
        self.overrun_until = 0.0
        self.arrivals: deque[tuple[int, float]] = deque(maxlen=4096)

    def room(self) -> tuple[int, int]:
        """(slot, count): where the next samples go, and how many fit there contiguously."""
        slot = self.written % self.capacity
        free = self.capacity - (self.written - self.consumed)
        return slot, min(free, self.capacity - slot)

    def commit(self, count: int, arrival: float) -> None:
        """Publish `count` samples written at `room()`; arrival: LSL clock, seconds."""
        slot = self.written % self.capacity
        self.received[slot : slot + count] = self.times[slot : slot + count]
        self.written += count
        self.arrivals.append((self.written, arrival))

    def whole(self) -> int:
        """The samples from this absolute count on are not being overwritten."""
        return max(0, self.written - self.capacity + self.most_at_once)

    def overrun(self, until: float) -> None:
        """The reader is too slow; holes that are found until this LSL clock are its fault and not the stream's."""
        self.is_overrun = True
        self.overrun_until = until

    def arrival_after(self, count: int, is_hole: bool) -> float:
        """LSL clock at which it was known what comes before absolute count `count`.

        is_hole: samples are missing there, which the next one told.
        """
        return self.arrival_of(count + 1 if is_hole and self.written > count else count)

    def arrival_of(self, count: int) -> float:
        """LSL clock at which the sample before absolute count `count` was committed."""
        arrivals = self.arrivals
        arrival = arrivals[0][1]
        while arrivals:
            end, arrival = arrivals[0]
            if end >= count:
                break
            arrivals.popleft()
        return arrival
