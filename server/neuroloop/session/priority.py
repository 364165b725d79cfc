"""Which threads of a session run first: the loop and its samples, then all else, and last what computes beside it.

Threads inherit this from those that start them, also liblsl's and ZeroMQ's. Linux gives real time (SCHED_RR) to root,
with CAP_SYS_NICE, or within RLIMIT_RTPRIO; elsewhere all threads stay as they are.

Beside 500 subscribers, on 2 cores, 1 of 100 bins of 96 channels at 30 kHz took longer than 5.6 ms without it, 3.4 ms at
niceness -19, and 0.7 ms with it, as beside one subscriber.
"""

from __future__ import annotations

import os
from enum import IntEnum

BEHIND_S = 0.1


class Level(IntEnum):
    """A thread's place in real time; BESIDE: none."""

    BESIDE = 0
    SESSION = 1
    LOOP = 2


def run_at(level: Level) -> bool:
    """Put the calling thread at this level; returns whether the system allows it."""
    if not hasattr(os, "sched_setscheduler"):
        return False
    policy = os.SCHED_OTHER if level is Level.BESIDE else os.SCHED_RR
    try:
        os.sched_setscheduler(0, policy, os.sched_param(level))
    except PermissionError:
        return False
    return True


def step_back(level: Level) -> Level:
    """Put the calling thread no further than this level, whichever it inherited; returns the one it had."""
    if not hasattr(os, "sched_setscheduler"):
        return Level.BESIDE
    before = Level(min(os.sched_getparam(0).sched_priority, Level.LOOP))
    run_at(min(before, level))
    return before


class Place:
    """In real time while it keeps up, and beside all others while it does not: for the thread of a loop.

    Who has long holes to answer, or more bins than it can, would keep this machine's subscribers from reading them.
    """

    def __init__(self) -> None:
        self._busy_since: float | None = None
        self._left: Level | None = None

    def has_more(self, now: float) -> None:
        """The loop has more to do, and does not wait; now: seconds of any clock."""
        if self._busy_since is None:
            self._busy_since = now
        elif self._left is None and now - self._busy_since > BEHIND_S:
            self._left = step_back(Level.BESIDE)

    def waits(self) -> None:
        """The loop has done all that there is."""
        self._busy_since = None
        if self._left is not None:
            run_at(self._left)
            self._left = None
