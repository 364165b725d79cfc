"""The ring between an acquire thread and the loop: samples as received, their timestamps, and when they arrived.

One writer, one reader, nothing locked: each side owns its count, and a Python integer is replaced, never changed.
The writer never overwrites what the reader has not consumed; when the ring is full it drops the newest samples and says
so (`overrun`). The reader then lets go of what is in the ring: it would stay behind by all of it otherwise.
"""

from __future__ import annotations

from collections import deque

import numpy as np
from numpy.typing import NDArray


class Ring:
    """Room for `capacity` samples of `channel_count` channels in the stream's own number format."""

    def __init__(self, capacity: int, channel_count: int, dtype: np.dtype[np.generic]) -> None:
        self.samples: NDArray[np.generic] = np.zeros((capacity, channel_count), dtype)
        self.times: NDArray[np.float64] = np.zeros(capacity)
        self.capacity = capacity
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
        self.written += count
        self.arrivals.append((self.written, arrival))

    def overrun(self, until: float) -> None:
        """The reader is too slow; holes that are found until this LSL clock are its fault and not the stream's."""
        self.is_overrun = True
        self.overrun_until = until

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
