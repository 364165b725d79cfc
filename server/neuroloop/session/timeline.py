"""Where samples are missing, judged from their timestamps alone, one sample after the other.

The judgement depends on the sequence of timestamps and on nothing else, so it is the same however the network chunked
the samples. Two kinds of sender exist, and `auto` tells them apart:

*exact*: consecutive timestamps differ by a whole number of sample periods (to 2 %). A difference of k periods means
k - 1 missing samples, known at once.

*jittered*: the sender stamps a chunk when it sends it, so differences are arbitrary. The timestamps are smoothed by a
second-order tracking loop, and a sample later than the line by more than eight times the usual deviation is *held back*
until 100 ms of samples have confirmed the jump (then that many samples are missing, exactly there) or one of them has
come back to the line (then the sender had merely been late). Only suspicious samples are held, never normal ones.
"""

from __future__ import annotations

from typing import Final, Literal

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

MODES: Final = {"off": 0, "on": 1, "auto": 2}

# Slots of the state vector.
STARTED, RAW, LINE, PERIOD, DEVIATION, JITTER_LEFT, HELD, HELD_MIN, RESUMED, STEPS, BELOW, SLOTS = range(12)


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
) -> tuple[int, int]:
    """Judge samples start..stop-1 of a circular array of timestamps, smoothing them in place.

    start, stop: absolute sample counts; the slot is count % len(times).
    Returns (released, gaps): samples before `released` are judged; gaps found, their position and length in the arrays.
    """
    period = 1.0 / nominal_srate
    size = len(times)
    omega = 2 * np.pi * TRACKING_HZ / nominal_srate
    gain, gain_period, gain_deviation = 1.4 * omega, omega * omega, 1.0 / (2.0 * nominal_srate)
    confirm = max(3.0, CONFIRM_S * nominal_srate)
    gaps = 0
    i = start
    while i < stop and gaps < len(gap_length):
        t = times[i % size]
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
        step = (t - state[RAW]) * nominal_srate
        if abs(step) > MAX_GAP_S * nominal_srate:  # no hole: the sender's clock was set
            state[STEPS] += 1.0
            state[RAW] = state[LINE] = t
            state[HELD] = state[RESUMED] = 0.0
            i += 1
            continue
        if 0.0 < state[RESUMED] <= i + 1.0:  # a stream that was lost and is back: the hole is certain
            state[RESUMED] = 0.0
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
        if mode == 2 and abs(step - np.rint(step)) > WHOLE_TOLERANCE:
            if state[JITTER_LEFT] == 0.0:
                state[DEVIATION] = FIRST_DEVIATION_S
                state[PERIOD] = period
            state[JITTER_LEFT] = JITTER_MEMORY_S * nominal_srate
        state[RAW] = t
        if state[JITTER_LEFT] == 0.0 and state[HELD] == 0.0:
            missing = np.int64(np.rint(step)) - 1
            if missing > 0:
                gap_position[gaps], gap_length[gaps] = i, missing
                gaps += 1
            elif step < 0.5:
                state[STEPS] += 1.0
            state[LINE] = t
            i += 1
            continue
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
                expected, late = t, 0.0
        else:
            state[BELOW] = 0.0
        bounded = min(max(late, -limit), limit)
        state[LINE] = expected + gain * bounded
        state[PERIOD] = min(max(state[PERIOD] + gain_period * bounded, 0.98 * period), 1.02 * period)
        state[DEVIATION] += gain_deviation * (abs(bounded) - state[DEVIATION])
        times[i % size] = state[LINE]
        i += 1
    return int(i - np.int64(state[HELD])), gaps


class Timeline:
    """The judge of one stream's timestamps; see the module's head."""

    def __init__(self, nominal_srate: float, dejitter: Literal["auto", "on", "off"]) -> None:
        self._nominal_srate = nominal_srate
        self._mode = MODES[dejitter]
        self.state = np.zeros(SLOTS)
        self._gap_position = np.zeros(64, np.int64)
        self._gap_length = np.zeros(64, np.int64)
        self._judged = 0
        self.follow(np.zeros(1), 0)  # compiles the kernel now, not at the first sample

    def follow(self, times: NDArray[np.float64], stop: int) -> tuple[int, list[tuple[int, int]]]:
        """Judge the samples up to absolute count `stop` of the circular array `times`, seconds, smoothing in place.

        Returns the count up to which samples are released, and the new gaps as (count of the sample after it, samples
        missing). Jumps beyond an hour are no gaps but clock steps, counted in `clock_steps`.
        """
        gaps: list[tuple[int, int]] = []
        while True:
            released, found = _follow(
                times,
                self._judged,
                stop,
                self._nominal_srate,
                self._mode,
                self.state,
                self._gap_position,
                self._gap_length,
            )
            self._judged = released + int(self.state[HELD])
            gaps += [(int(self._gap_position[k]), int(self._gap_length[k])) for k in range(found)]
            if self._judged >= stop:
                return released, gaps

    def resume(self, count: int) -> None:
        """The stream was lost and is back with this sample: the distance to it is a hole, whatever the jitter."""
        self.state[RESUMED] = count + 1.0

    def restart(self, count: int) -> None:
        """Forget everything and begin anew with this sample."""
        self.state[:] = 0.0
        self._judged = count

    @property
    def clock_steps(self) -> int:
        """Times the sender's clock was set, so far."""
        return int(self.state[STEPS])
