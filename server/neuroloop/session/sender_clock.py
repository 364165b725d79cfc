"""A sender's clock beside this machine's: whether it keeps time or drifts, and how its timestamps become LSL time.

Timestamps are taken here by the offset that liblsl measures every few seconds. Where the sender's whole machine had its
clock set, that offset follows after a while what `timeline` has corrected at once; `Offset` then counts it once only.

*Drift* is the median slope of timestamps against arrivals, by the least delayed bin of each second, which a busy
network does not touch; *rate* that of timestamps against the number of samples at the nominal rate. Both are told,
neither is corrected: a slope of arrivals may also be data that come later and later, and an age must not hide that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from math import nan
from typing import Any, Literal

import numpy as np

from neuroloop.session.timeline import AHEAD_S, WHOLE_TOLERANCE, Step

KEEPS_TIME_S = 5.0  # without a jump against the arrivals, until a sender is known to send in real time
BURST_S = 1.0  # of samples that may come before their time
FOLLOWED_S = 1.0  # the measured offset has followed a step if it agrees to this
SECONDS = 60
LEAST_SECONDS = 10
LEAST_PPM = 200.0
JITTER_S = 0.02  # of the least delayed bin of a second, at most

Event = tuple[str, str, dict[str, Any]]


class Offset:
    """Seconds from corrected timestamps to LSL time here; `now` is the last one."""

    def __init__(self) -> None:
        self.now = 0.0
        self._measured = nan
        self.followed = 0.0

    def update(self, measured: float, shift: float) -> float:
        """measured: by liblsl. shift: seconds that are taken from the timestamps; see `timeline`."""
        change = measured - self._measured
        if abs(change) > FOLLOWED_S and abs(change + shift - self.followed) < FOLLOWED_S:
            self.followed = shift
        self._measured = measured
        self.now = measured + self.followed
        return self.now


class SenderClock:
    """Of one stream; called by the loop."""

    def __init__(self, nominal_srate: float) -> None:
        self._period = 1.0 / nominal_srate
        self._points: deque[tuple[float, float, float]] = deque(maxlen=SECONDS)
        self._drifts = {"clock": False, "rate": False}
        self.drift_ppm: float | None = None
        self.rate_ppm: float | None = None
        self.restart()

    def restart(self) -> None:
        """Another run, or a hole: what was seen so far does not go on."""
        self._points.clear()
        self._best: tuple[float, float, float] | None = None
        self._second = -np.inf
        self._first: tuple[int, float] | None = None
        self._ahead_s = 0.0
        self._lead = -np.inf
        self._since = np.inf
        self._late_since = np.inf
        self.offset = Offset()

    def arrived(self, arrival: float) -> float:
        """What a sample that comes now should be stamped, by the corrected clock and the usual delay.

        NaN unless the sender is known to keep time.
        """
        keeps_time = arrival - self._since > KEEPS_TIME_S and self._late_since == np.inf
        return arrival - self.offset.now + self._lead if keeps_time else nan

    @property
    def is_in_real_time(self) -> bool:
        """Whether no more samples have come in this run than the time since its first bin has room for."""
        return self._ahead_s <= BURST_S

    def bin(self, index: int, newest: float, arrival: float) -> None:
        """A bin's last sample: its index, its LSL time here, and when it arrived."""
        if self._first is None:
            self._first = index, arrival
        passed_s = arrival - self._first[1]
        self._ahead_s = (index - self._first[0]) * self._period - passed_s * (1 + WHOLE_TOLERANCE)
        lead = newest - arrival
        self._follow(lead, arrival)
        if arrival - self._second >= 1.0:
            if self._best is not None:
                self._points.append(self._best)
            self._second, self._best = arrival, None
        if self._best is None or lead > self._best[1] - self._best[0]:
            self._best = (arrival, newest, index * self._period)

    def _follow(self, lead: float, arrival: float) -> None:
        """A bin that is earlier than ever, against its arrival, ends what was known; one that was held up does not."""
        self._late_since = min(self._late_since, arrival) if lead < self._lead - AHEAD_S else np.inf
        if lead > self._lead + AHEAD_S or arrival - self._late_since > KEEPS_TIME_S:
            self._lead, self._since, self._late_since = lead, arrival, np.inf

    def second(self) -> Iterator[Event]:
        """Events (name, text, facts) of the second that ended."""
        if len(self._points) < LEAST_SECONDS:
            self.drift_ppm = self.rate_ppm = None
            return
        arrivals, times, samples = np.array(self._points).T
        limit = max(LEAST_PPM, 1e6 * JITTER_S / (arrivals[-1] - arrivals[0]))
        self.drift_ppm = _excess_ppm(times, arrivals)
        self.rate_ppm = _excess_ppm(times, samples)
        against = "the clock here; every age is wrong by what that adds up to"
        yield from self._tell("clock", "clock_drift", self.drift_ppm, limit, against)
        yield from self._tell("rate", "rate_drift", self.rate_ppm, limit, "nominal_srate and the number of samples")

    def _tell(self, what: str, event: str, ppm: float, limit: float, against: str) -> Iterator[Event]:
        """Once when it begins, and once when it is over."""
        if not self._drifts[what] and abs(ppm) > limit:
            self._drifts[what] = True
            yield event, f"the sender's timestamps drift by {ppm:+.0f} ppm against {against}", {"ppm": round(ppm, 1)}
        elif self._drifts[what] and abs(ppm) < limit / 2:
            self._drifts[what] = False
            yield event, "the sender's timestamps do not drift any more", {"ppm": round(ppm, 1)}


def step_event(step: Step, shift: float) -> tuple[Literal["clock_step"], str, dict[str, Any]]:
    """shift: the whole correction from here on."""
    detail = (
        f"the sender's clock was set by {step.seconds:+.3f} s; timestamps are corrected by {-shift:+.3f} s from sample "
        f"{step.count} on, and a recording keeps them as they came"
    )
    return "clock_step", detail, {"seconds": round(step.seconds, 6), "correction_s": round(-shift, 6)}


def _excess_ppm(values: np.ndarray[Any, Any], along: np.ndarray[Any, Any]) -> float:
    """How much faster one grows than the other, in parts per million.

    The median slope of all pairs (Theil and Sen): one second that came late, as a stream's first may, does not tilt it.
    """
    excess = values - along
    first, second = np.triu_indices(len(along), 1)
    apart = along[second] - along[first]
    rises = (excess[second] - excess[first])[apart != 0]
    return float(1e6 * np.median(rises / apart[apart != 0]))
