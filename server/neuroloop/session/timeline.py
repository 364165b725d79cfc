"""Where samples are missing, judged from their timestamps alone, one sample after the other.

The judgement depends on the sequence of timestamps and on nothing else, so it is the same however the network chunked
the samples. Two kinds of sender exist, and `auto` tells them apart:

*exact*: consecutive timestamps differ by a whole number of sample periods (to 2 %). A difference of k periods means
k - 1 missing samples, known at once. A sample that is not later than the last one came twice, or when its place was
counted as missing already: it is *surplus*, and left out. Once a stream has been exact for a second, one difference
that is not whole does not make it a jittered one: it is rounded.

*jittered*: the sender stamps a chunk when it sends it, so differences are arbitrary. The timestamps are smoothed by a
second-order tracking loop, and a sample later than the line by more than eight times the usual deviation is *held back*
until 100 ms of samples have confirmed the jump (then that many samples are missing, exactly there) or one of them has
come back to the line (then the sender had merely been late). Only suspicious samples are held, never normal ones.

A sender's clock that is set, forwards or back, is no hole: the timestamps are corrected by the *step* from there on, so
that the line goes on. A jump of more than an hour, or back by more than jitter explains, is one whatever else is known.
A smaller one forwards looks like a hole; where the arrivals are given, and the sender has kept time by them, a sample
that would have come before it was taken tells that it is none, and a pause at the same moment is a hole for all that.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from math import nan
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

from neuroloop.compiled import kernel

WHOLE_TOLERANCE: Final = 0.02
JITTER_MEMORY_S: Final = 10.0
CONFIRM_S: Final = 0.1
FIRST_DEVIATION_S: Final = 0.010
DEVIATIONS: Final = 8.0
TRACKING_HZ: Final = 0.05
MAX_GAP_S: Final = 3600.0
AHEAD_S: Final = 0.25  # of its arrival: no sample can be, but for the error of the clock offset
BACK_S: Final = 0.1  # where timestamps are exact
BACK_JITTERED_S: Final = 1.0
PAUSE_S: Final = 0.5  # at a step; a shorter one is not told from a late chunk
PROVEN_S: Final = 1.0  # of timestamps that are exact, until what contradicts them is the sample's fault

MODES: Final = {"off": 0, "on": 1, "auto": 2}

# Slots of the state vector.
STARTED, RAW, LINE, PERIOD, DEVIATION, JITTER_LEFT, HELD, HELD_MIN, RESUMED, STEPS, BELOW, SHIFT, EXACT = range(13)
SLOTS = 13


@kernel
def _follow(
    times: NDArray[np.float64],
    start: int,
    stop: int,
    nominal_srate: float,
    mode: int,
    state: NDArray[np.float64],
    gap_position: NDArray[np.int64],
    gap_length: NDArray[np.int64],
    arrived: float,
    known: NDArray[np.float64],
    step: NDArray[np.float64],
) -> tuple[int, int]:
    """Judge samples start..stop-1 of a circular array of timestamps, correcting and smoothing them in place.

    start, stop: absolute sample counts; the slot is count % len(times). arrived: the time that the last of them should
    have by when it came, by the corrected clock; NaN if that is not to be used. known: count of a sample at which a
    step is known, -1 for none, and its corrected time. step: gets the count and the corrected time of a step, and
    whether the timestamps alone tell it.
    Returns (released, gaps): samples before `released` are judged; gaps found, their position and length in the arrays,
    and surplus samples as gaps of negative length.
    """
    period = 1.0 / nominal_srate
    size = len(times)
    omega = 2 * np.pi * TRACKING_HZ / nominal_srate
    gain, gain_period, gain_deviation = 1.4 * omega, omega * omega, 1.0 / (2.0 * nominal_srate)
    confirm = max(3.0, CONFIRM_S * nominal_srate)
    proven = PROVEN_S * nominal_srate
    gaps = 0
    i = start
    while i < stop and gaps < len(gap_length):
        raw = times[i % size]
        t = raw - state[SHIFT]
        times[i % size] = t
        if state[STARTED] == 0.0:
            state[STARTED] = 1.0
            state[RAW] = state[LINE] = t
            state[PERIOD] = period
            state[DEVIATION] = FIRST_DEVIATION_S
            state[RESUMED] = 0.0
            if mode == 1:
                state[JITTER_LEFT] = 1.0
            i += 1
            continue
        jump = t - state[RAW]
        back = BACK_S if state[JITTER_LEFT] == 0.0 else BACK_JITTERED_S
        is_ahead = jump > AHEAD_S and t > arrived + AHEAD_S and state[RAW] <= arrived + AHEAD_S
        if i == known[0] or abs(jump) > MAX_GAP_S or jump < -back or is_ahead:  # no hole: the sender's clock was set
            t = state[LINE] + (state[HELD] + 1.0) * period
            missing = np.int64(0)
            if i == known[0]:
                missing = np.int64(np.rint((known[1] - t) * nominal_srate))
                t = known[1]
            else:
                pause = arrived - (stop - 1 - i) * period - t
                if pause > PAUSE_S:
                    missing = np.int64(np.rint(pause * nominal_srate))
                    t += missing * period
            if missing > 0:
                gap_position[gaps], gap_length[gaps] = i, missing
                gaps += 1
            state[STEPS] += 1.0
            state[SHIFT] = raw - t
            state[RAW] = state[LINE] = times[i % size] = t
            state[HELD] = state[RESUMED] = 0.0
            step[0], step[1], step[2] = i, t, 0.0
            return i + 1, gaps
        is_back = 0.0 < state[RESUMED] <= i + 1.0
        if is_back and (state[JITTER_LEFT] > 0.0 or state[HELD] > 0.0 or jump * nominal_srate >= 0.5):
            state[RESUMED] = 0.0  # a stream that was lost and is back: the hole is certain
            missing = np.int64(np.rint((t - state[LINE]) * nominal_srate)) - 1 - np.int64(state[HELD])
            state[HELD] = 0.0
            if missing > 0:
                gap_position[gaps], gap_length[gaps] = i, missing
                gaps += 1
            elif missing < -1:
                state[STEPS] += 1.0
            state[RAW] = state[LINE] = t
            i += 1
            continue
        periods = jump * nominal_srate
        is_proven = mode == 0 or state[EXACT] >= proven
        state[EXACT] += 1.0
        if abs(periods - np.rint(periods)) > WHOLE_TOLERANCE:
            state[EXACT] = 0.0
            if mode == 2 and not is_proven:
                if state[JITTER_LEFT] == 0.0:
                    state[DEVIATION] = FIRST_DEVIATION_S
                    state[PERIOD] = period
                state[JITTER_LEFT] = JITTER_MEMORY_S * nominal_srate
        if state[JITTER_LEFT] == 0.0 and state[HELD] == 0.0:
            if periods < 0.5 and is_proven:
                if gaps > 0 and gap_length[gaps - 1] < 0 and gap_position[gaps - 1] - gap_length[gaps - 1] == i:
                    gap_length[gaps - 1] -= 1
                else:
                    gap_position[gaps], gap_length[gaps] = i, -1
                    gaps += 1
                i += 1
                continue
            missing = np.int64(np.rint(periods)) - 1
            if missing > 0:
                gap_position[gaps], gap_length[gaps] = i, missing
                gaps += 1
            elif periods < 0.5:
                state[STEPS] += 1.0
            state[RAW] = state[LINE] = t
            i += 1
            continue
        state[RAW] = t
        if mode == 2:
            state[JITTER_LEFT] = max(state[JITTER_LEFT] - 1.0, 0.0)
        held = state[HELD]
        expected = state[LINE] + (held + 1.0) * state[PERIOD]
        late = t - expected
        limit = max(0.5 * period, DEVIATIONS * state[DEVIATION])
        if late > limit:
            state[HELD_MIN] = late if held == 0.0 else min(state[HELD_MIN], late)
            state[HELD] = held + 1.0
            if state[HELD] >= confirm:
                missing = np.int64(np.rint(state[HELD_MIN] * nominal_srate))
                first = i - np.int64(held)
                gap_position[gaps], gap_length[gaps] = first, missing
                gaps += 1
                line = state[LINE] + missing * state[PERIOD]
                for j in range(first, i + 1):
                    line += state[PERIOD]
                    times[j % size] = line
                state[LINE] = line
                state[HELD] = 0.0
            i += 1
            continue
        if held > 0.0:  # back on the line: the samples held were late, not missing
            for j in range(i - np.int64(held), i):
                state[LINE] += state[PERIOD]
                times[j % size] = state[LINE]
            state[HELD] = 0.0
        if late < -limit:  # early for a second on end: the sender's clock was set back
            state[BELOW] += 1.0
            if state[BELOW] > nominal_srate:
                state[STEPS] += 1.0
                state[BELOW] = 0.0
                state[SHIFT] += late
                state[RAW] = expected
                late = 0.0
                step[0], step[1], step[2] = i, expected, 1.0
        else:
            state[BELOW] = 0.0
        bounded = min(max(late, -limit), limit)
        state[LINE] = expected + gain * bounded
        state[PERIOD] = min(max(state[PERIOD] + gain_period * bounded, 0.98 * period), 1.02 * period)
        state[DEVIATION] += gain_deviation * (abs(bounded) - state[DEVIATION])
        times[i % size] = state[LINE]
        i += 1
    return int(i - np.int64(state[HELD])), gaps


@dataclass(frozen=True, slots=True)
class Step:
    """The sender's clock was set by so many `seconds`; the sample of this count got this corrected time.

    is_told_by_times: whether the timestamps alone say so, whatever else is known.
    """

    count: int
    time: float
    seconds: float
    is_told_by_times: bool


class Timeline:
    """The judge of one stream's timestamps; see the module's head."""

    def __init__(self, nominal_srate: float, dejitter: Literal["auto", "on", "off"]) -> None:
        self._nominal_srate = nominal_srate
        self._mode = MODES[dejitter]
        self.state = np.zeros(SLOTS)
        self._gap_position = np.zeros(64, np.int64)
        self._gap_length = np.zeros(64, np.int64)
        self._known = np.array([-1.0, 0.0])
        self._step = np.array([-1.0, 0.0, 0.0])
        self._to_come: deque[tuple[int, float]] = deque()
        self._steps: list[Step] = []
        self._judged = 0
        self.follow(np.zeros(1), 0)  # compiles the kernel now, not at the first sample

    def follow(self, times: NDArray[np.float64], stop: int, arrived: float = nan) -> tuple[int, list[tuple[int, int]]]:
        """Judge the samples up to absolute count `stop` of the circular array `times`, seconds, smoothing in place.

        arrived: the time that the last of them should have by when it came; only of a sender that keeps time.
        Returns the count up to which samples are released, and the new gaps as (count of the sample after it, samples
        missing); -n missing are n surplus samples from that count on. Clock steps are in `take_steps`.
        """
        gaps: list[tuple[int, int]] = []
        while True:
            shift, self._step[0] = self.shift, -1.0
            self._known[0], self._known[1] = self._to_come[0] if self._to_come else (-1, 0.0)
            released, found = _follow(
                times,
                self._judged,
                stop,
                self._nominal_srate,
                self._mode,
                self.state,
                self._gap_position,
                self._gap_length,
                arrived,
                self._known,
                self._step,
            )
            if self._step[0] >= 0:
                self._note_step(shift)
            self._judged = released + int(self.state[HELD])
            gaps += [(int(self._gap_position[k]), int(self._gap_length[k])) for k in range(found)]
            if self._judged >= stop:
                return released, gaps

    def resume(self, count: int) -> None:
        """The stream was lost and is back with this sample: the distance to it is a hole, whatever the jitter."""
        self.state[RESUMED] = count + 1.0

    def rejoin(self, count: int, time: float, shift: float) -> None:
        """The last sample was of this time, in another process; what lies between it and this sample is a hole.

        shift: seconds that were taken from the timestamps.
        """
        self.restart(count)
        self.state[STARTED] = 1.0
        self.state[RAW] = self.state[LINE] = time
        self.state[SHIFT] = shift
        self.state[PERIOD], self.state[DEVIATION] = 1.0 / self._nominal_srate, FIRST_DEVIATION_S
        self.state[JITTER_LEFT] = float(self._mode == MODES["on"])
        self.resume(count)

    def state_dict(self) -> dict[str, Any]:
        """All that the judgement of samples to come depends on, but for steps that are expected."""
        return {"state": self.state.copy(), "judged": self._judged}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.state[:], self._judged = state["state"], int(state["judged"])

    def restart(self, count: int) -> None:
        """Forget everything and begin anew with this sample."""
        self.state[:] = 0.0
        self._judged = count

    def _note_step(self, shift: float) -> None:
        count, time, is_told_by_times = self._step
        self._steps.append(Step(int(count), float(time), self.shift - shift, bool(is_told_by_times)))
        if self._to_come and self._to_come[0][0] == count:
            self._to_come.popleft()

    def take_steps(self) -> list[Step]:
        """Those found since the last call."""
        if not self._steps:
            return []
        steps, self._steps = self._steps, []
        return steps

    def expect(self, steps: Iterable[tuple[int, float]]) -> None:
        """Steps, as (count, corrected time), that were found in the same stream before: a replay has no arrivals."""
        self._to_come.extend(steps)

    @property
    def shift(self) -> float:
        """Seconds that are taken from the timestamps at present."""
        return float(self.state[SHIFT])

    @property
    def clock_steps(self) -> int:
        """Times the sender's clock was set, so far."""
        return int(self.state[STEPS])
