"""Which samples of the stimulus belong to which bin of the neural stream, judged from their timestamps alone.

The frame of a bin is the mean of the stimulus samples whose timestamps lie in its interval. Where there is none, as
with frames slower than bins, the newest sample before it holds, for a limited time. Sums run in float64 in the order of
the samples, so that the frame is the same to the bit however the network chunked them.

The clocks of two LSL streams agree to a fraction of a millisecond. A bin therefore begins and ends a little early for
samples of the stimulus: by a quarter of a bin, half a sample, or `SLACK_S`, whichever is least. So two streams on one
grid of timestamps do not change bins by chance.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.compiled import kernel

F32 = NDArray[np.float32]

SLACK_S = 0.0005
STREAM_DTYPES = ("f4", "f8", "i1", "i2", "i4", "i8")


@kernel
def _take(
    samples: NDArray[Any],
    times: NDArray[np.float64],
    first: int,
    stop: int,
    since: float,
    until: float,
    total: NDArray[np.float64],
    last: NDArray[np.float32],
) -> tuple[int, int]:
    """Take samples first..stop-1 (absolute counts) of circular arrays up to the first that is not before `until`.

    Those from `since` on are added to `total`; `last` becomes the newest one taken.
    Returns the count of the first sample not taken, and how many were before `since`.
    """
    size, early = len(times), 0
    i = first
    while i < stop and times[i % size] < until:
        if times[i % size] < since:
            early += 1
        else:
            for c in range(samples.shape[1]):
                total[c] += samples[i % size, c]
        i += 1
    if i > first:
        for c in range(samples.shape[1]):
            last[c] = samples[(i - 1) % size, c]
    return i, early


def compile_for_every_format() -> None:
    """Compile the kernel for all numbers that a stream can be of, so that none is compiled beside a running loop."""
    for dtype in STREAM_DTYPES:
        _take(np.zeros((1, 1), dtype), np.zeros(1), 0, 0, 0.0, 0.0, np.zeros(1), np.zeros(1, np.float32))


class Alignment:
    """One bin after the other: `begin`, `take` until `is_passed`, `finish`.

    pixels: values of a stimulus sample. bin_s: of the neural stream. period_s: of the stimulus, 0 for an irregular one.
    hold_s: longest that a sample holds; at least one and a half periods.
    """

    def __init__(self, pixels: int, bin_s: float, period_s: float, hold_s: float) -> None:
        self.follows = False  # the bin at hand on the one before
        self.is_passed = False
        self.frames = 0  # samples in the bin at hand
        self.late_frames = 0  # samples that came when their bin had been finished without them
        self.late_since = math.inf  # time of the first of these that was seen with the bin at hand
        self.samples_per_bin = bin_s / period_s if period_s else 1.0
        self._bin_s = bin_s
        self._slack = min(SLACK_S, bin_s / 4, period_s / 2 if period_s else math.inf)
        self._hold_s = max(hold_s, 1.5 * period_s)
        self._since = self._end = -math.inf
        self._total = np.zeros(pixels)
        self._last = np.zeros(pixels, np.float32)
        self._last_time = -math.inf

    def begin(self, end: float) -> None:
        """The next bin, by its end in LSL seconds. One that begins about where the last one ended follows on it."""
        start = end - self._bin_s
        self.follows = abs(start - self._end) < self._bin_s / 2
        self._since, self._end = self._end if self.follows else start, end
        self._total[:] = 0
        self.frames, self.is_passed, self.late_since = 0, False, math.inf

    def state_dict(self) -> dict[str, Any]:
        """All that the frames of bins to come depend on, between two bins."""
        about = {"end": self._end, "last_time": self._last_time, "late_frames": self.late_frames}
        return about | {"last": self._last.copy()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._end, self._last_time, self.late_frames = state["end"], state["last_time"], state["late_frames"]
        self._last[:] = state["last"]

    def take(
        self, samples: NDArray[Any], times: NDArray[np.float64], consumed: int, released: int, offset: float
    ) -> int:
        """Take what has come for this bin out of circular arrays; returns the new count of samples consumed.

        samples (capacity, pixels), times (capacity,); consumed, released: absolute counts. offset: seconds to add to
        the times.
        """
        shift = self._slack + offset
        since, until = self._since - shift, self._end - shift
        taken: tuple[int, int] = _take(samples, times, consumed, released, since, until, self._total, self._last)
        reached, early = taken
        if reached > consumed:
            self.frames += reached - consumed - early
            self._last_time = float(times[(reached - 1) % len(times)]) + offset
            if early and self.follows:
                self.late_frames += early
                self.late_since = min(self.late_since, float(times[consumed % len(times)]) + offset)
        self.is_passed = reached < released
        return reached

    def finish(self) -> F32 | None:
        """The bin's frame, (pixels,), valid until the next bin; None if no sample has come for too long."""
        if self.frames:
            return (self._total / self.frames).astype(np.float32)
        if self._end - self._last_time > self._hold_s:
            return None
        return self._last
