"""The frames and spike counts of the last bins: for an encoder that comes in later, and for fits.

The last 60 s are kept, or as many bins as `KEPT_BYTES` hold: 64 x 64 pixels at 20 ms for all of it, 256 x 256 for 16 s.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.session.labels import HISTORY_S

F32 = NDArray[np.float32]

KEPT_BYTES = 1 << 28
LEADING_BYTES = 1 << 24  # of the state in a recording: 1000 bins of 64 x 64 pixels, 60 of 256 x 256
AT_ONCE_BYTES = 1 << 16
LEAST_BINS = 2


@dataclass(frozen=True, slots=True)
class Frames:
    """Consecutive bins: the first one's number, frames (bins, pixels), counts (bins, channels), LSL times of centres.

    usable: (bins,) bool, whether both frame and counts can be trusted; those of the others are zeros.
    """

    first: int
    frames: F32
    counts: F32
    centers: NDArray[np.float64]
    usable: NDArray[np.bool_]


class FrameHistory:
    """Bins of `bin_s` seconds; numbered from 0."""

    def __init__(self, pixels: int, channels: int, bin_s: float) -> None:
        self.bin_s = bin_s
        self.added = 0
        row_bytes = 4 * (pixels + channels) + 9
        self.size = max(LEAST_BINS, min(math.ceil(HISTORY_S / bin_s), KEPT_BYTES // row_bytes))
        self._frames = np.zeros((self.size, pixels), np.float32)
        self._counts = np.zeros((self.size, channels), np.float32)
        self._centers = np.zeros(self.size)
        self._usable = np.zeros(self.size, np.bool_)
        self._unbroken = 0  # bins with a frame, each following on the one before

    def add(self, end: float, frame: F32 | None, counts: F32 | None, follows: bool) -> None:
        """A bin that ended at this LSL time. follows: on the one before. None: not known."""
        row = self.added % self.size
        self._centers[row] = end - self.bin_s / 2
        self._usable[row] = frame is not None and counts is not None
        self._frames[row] = 0 if frame is None else frame
        self._counts[row] = 0 if counts is None else counts
        self._unbroken = 0 if frame is None else self._unbroken + 1 if follows else 1
        self.added += 1

    def distrust(self, since: float) -> None:
        """A frame of this time, LSL seconds, came too late: the bins from its own on were held without it."""
        for number in range(self.added - 1, self.first - 1, -1):
            row = number % self.size
            if self._centers[row] + self.bin_s / 2 <= since:
                return
            self._usable[row] = False

    def state_dict(self) -> dict[str, int]:
        """Between two bins; the bins themselves are `leading`."""
        return {"added": self.added, "unbroken": self._unbroken}

    def leading(self, added: int, unbroken: int) -> dict[str, Any]:
        """Of the last bins without a hole when it was in this state, the newest that `LEADING_BYTES` hold.

        In any thread while bins are added, a few rows at a time: a copy holds the interpreter's lock.
        """
        row_bytes = self._frames.strides[0] + self._counts.strides[0]
        at_once = max(1, AT_ONCE_BYTES // row_bytes)
        first = max(added - unbroken, added - LEADING_BYTES // row_bytes, self.first)
        columns = []
        while first < added:
            part = self.since(first, min(at_once, added - first))
            first = part.first + len(part.usable)
            columns.append((np.arange(part.first, first), part.frames, part.counts, part.centers, part.usable))
        joined = [np.concatenate(column) for column in zip(*columns, strict=True)]
        if joined:
            whole = self.added - self.size + 1  # what was overwritten meanwhile, or is about to be, counts for nothing
            is_kept = (joined[0] >= whole) & (joined[0] < added)
            joined = [column[is_kept] for column in joined[1:]]
        return {"added": added, "columns": joined}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """state: what `leading` gave of one of the same size."""
        self.added = state["added"]
        if state["columns"]:
            frames, counts, centers, usable = state["columns"]
            rows = np.arange(self.added - len(usable), self.added) % self.size
            self._frames[rows], self._counts[rows], self._centers[rows] = frames, counts, centers
            self._usable[rows], self._unbroken = usable, len(usable)

    @property
    def first(self) -> int:
        """Number of the oldest bin that is kept."""
        return max(0, self.added - self.size)

    def since(self, number: int, limit: int) -> Frames:
        """Copies of at most `limit` bins from this number on, or from the oldest that is kept."""
        first = max(number, self.first)
        rows = np.arange(first, max(first, min(first + limit, self.added))) % self.size
        return Frames(first, self._frames[rows], self._counts[rows], self._centers[rows], self._usable[rows])

    def unbroken(self, most: int) -> Frames:
        """Copies of the last bins that lead to the next one without a hole, at most so many."""
        return self.since(self.added - min(most, self._unbroken), most)
