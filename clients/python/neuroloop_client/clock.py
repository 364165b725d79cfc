"""LSL time for programs without LSL: the server's clock, estimated from round trips, over this machine's own."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

ROUND_TRIPS = 10


@dataclass(frozen=True)
class Clock:
    """offset: LSL seconds minus `time.monotonic()`. uncertainty: seconds that it is off at most.

    Clocks of two machines drift apart, by some milliseconds an hour: make another one now and then.
    """

    offset: float
    uncertainty: float

    def now(self) -> float:
        """LSL seconds now."""
        return self.lsl(time.monotonic())

    def lsl(self, monotonic: float) -> float:
        """LSL seconds at a time of `time.monotonic()`."""
        return monotonic + self.offset

    def monotonic(self, lsl: float) -> float:
        """The time of `time.monotonic()` at LSL seconds, as those of a prediction."""
        return lsl - self.offset


def estimate(round_trips: Iterable[tuple[float, float, float]]) -> Clock:
    """From (sent, the server's clock, received): the quickest tells most, and is off by half its time at most."""
    sent, server, received = min(round_trips, key=lambda trip: trip[2] - trip[0])
    return Clock(server - (sent + received) / 2, (received - sent) / 2)
