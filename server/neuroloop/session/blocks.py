"""Cut a stream into blocks of a fixed number of samples, counted from the first, however it arrived.

A missing sample is held (or zero) in its place and counted, so that sample indices follow time. A hole that covers
whole bins is not filled: the cutter says how many bins it covers, and the loop answers for them without computing.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuroloop.compiled import kernel
from neuroloop.signal.spike_chain import LARGEST

COUNTED = ("filled", "missing", "nonfinite", "owed")


@kernel
def _copy_finite(
    source: NDArray[np.generic],
    columns: NDArray[np.int64],
    target: NDArray[np.float32],
    held: NDArray[np.float32],
    nonfinite: NDArray[np.int64],
) -> int:
    """source (n, all channels) -> target (n, channels) float32; what is not finite takes the channel's last value.

    So does a value beyond LARGEST, which would be infinite a few stages later.
    Returns the number of samples with such a value; `nonfinite` counts them per channel.
    """
    bad_samples = 0
    for i in range(target.shape[0]):
        bad = False
        for c in range(target.shape[1]):
            value = np.float32(source[i, columns[c]])
            if not abs(value) <= LARGEST:
                value = held[c]
                nonfinite[c] += 1
                bad = True
            else:
                held[c] = value
            target[i, c] = value
        bad_samples += bad
    return bad_samples


@dataclass(slots=True)
class Block:
    """Samples (n, channels) float32, valid until the next block is cut; time in LSL seconds of the sender's clock."""

    samples: NDArray[np.float32]
    index: int
    end_time: float
    consumed: int
    missing: int
    nonfinite: int


@dataclass(slots=True)
class Hole:
    """Whole bins without a sample; index: of the first missing sample."""

    bins: int
    index: int
    start_time: float


class BlockCutter:
    """Blocks and holes out of a ring; `index` counts samples, missing ones included, from the first of the session."""

    def __init__(
        self,
        block_samples: int,
        bin_samples: int,
        columns: NDArray[np.int64],
        nominal_srate: float,
        fill: Literal["hold", "zero"],
        dtype: np.dtype[np.generic],
    ) -> None:
        """columns: of the channels to use. dtype: of the samples to come; the copy is compiled for it now."""
        if bin_samples % block_samples:
            raise ValueError(f"block_samples: {block_samples} does not divide the bin of {bin_samples} samples")
        self.nonfinite_by_channel = np.zeros(len(columns), np.int64)
        self.index = 0
        self._block_samples = block_samples
        self._bin_samples = bin_samples
        self._columns = columns
        self._period = 1.0 / nominal_srate
        self._hold = fill == "hold"
        self._buffer = np.zeros((block_samples, len(columns)), np.float32)
        self._held = np.zeros(len(columns), np.float32)
        self._filled = 0
        self._missing = 0
        self._nonfinite = 0
        self._time = 0.0
        self._gaps: deque[tuple[int, int]] = deque()
        self._owed = 0
        nothing = np.zeros((0, len(columns)), dtype)
        _copy_finite(nothing, columns, self._buffer[:0], self._held, self.nonfinite_by_channel)

    @property
    def lacking(self) -> int:
        """Samples that complete the block at hand."""
        return self._block_samples - self._filled

    def last_bin(self) -> tuple[int, float]:
        """Where the last bin ended: index of the sample after it, time of its last sample."""
        into = self.index % self._bin_samples
        return self.index - into, self._time - (into + self._filled) * self._period

    def rejoin(self, index: int, time: float) -> None:
        """Go on after the bin that ended so; see `last_bin`."""
        self.drop_partial()
        self.index, self._time = index, time

    def state_dict(self) -> dict[str, Any]:
        """The unfinished block, and what is known of the samples to come."""
        counted = {name: getattr(self, f"_{name}") for name in COUNTED}
        return counted | {
            "index": self.index,
            "time": self._time,
            "block": self._buffer[: self._filled].copy(),
            "held": self._held.copy(),
            "gaps": [list(gap) for gap in self._gaps],
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in COUNTED:
            setattr(self, f"_{name}", int(state[name]))
        self.index, self._time = int(state["index"]), float(state["time"])
        self._buffer[: self._filled], self._held[:] = state["block"], state["held"]
        self._gaps = deque((count, missing) for count, missing in state["gaps"])

    def add_gaps(self, gaps: Iterable[tuple[int, int]]) -> None:
        """Gaps as (absolute count of the sample after it, samples missing), in order; -n: leave n samples out."""
        self._gaps.extend(gaps)

    def skip(self, consumed: int, until: int) -> None:
        """Take the samples from absolute count `consumed` up to `until` for missing, with the gaps between them."""
        while self._gaps and self._gaps[0][0] < until:
            self._owed += self._gaps.popleft()[1]
        self._owed += until - consumed

    def drop_partial(self) -> None:
        """Forget the samples of an unfinished block, and of the unfinished bin it belongs to.

        For a deliberate stop: what follows starts a bin of its own, and `index` goes on.
        """
        self.index -= self.index % self._bin_samples
        self._filled = self._missing = self._nonfinite = self._owed = 0
        self._gaps.clear()

    def cut(
        self, samples: NDArray[np.generic], times: NDArray[np.float64], consumed: int, released: int
    ) -> Block | Hole | int:
        """The next block or hole out of the circular arrays, or the new count of samples consumed if there is none yet.

        samples (capacity, all channels), times (capacity,); consumed, released: absolute counts.
        """
        capacity = len(times)
        while True:
            while self._owed == 0 and self._gaps and self._gaps[0][0] == consumed:
                missing = self._gaps.popleft()[1]
                self._owed = max(0, missing)
                consumed += max(0, -missing)
            if self._owed:
                if self._filled == 0 and self.index % self._bin_samples == 0 and self._owed >= self._bin_samples:
                    return self._hole()
                count = min(self._block_samples - self._filled, self._owed)
                self._fill(count)
            else:
                until = self._gaps[0][0] if self._gaps else released
                slot = consumed % capacity
                count = min(self._block_samples - self._filled, until - consumed, capacity - slot)
                if count <= 0:
                    return consumed
                target = self._buffer[self._filled : self._filled + count]
                self._nonfinite += _copy_finite(
                    samples[slot : slot + count], self._columns, target, self._held, self.nonfinite_by_channel
                )
                self._time = times[slot + count - 1]
                self._filled += count
                consumed += count
            if self._filled == self._block_samples:
                return self._finish(consumed)

    def _fill(self, count: int) -> None:
        target = self._buffer[self._filled : self._filled + count]
        if self._hold:
            target[:] = self._held
        else:
            target[:] = 0.0
        self._missing += count
        self._owed -= count
        self._filled += count
        self._time += count * self._period

    def _hole(self) -> Hole:
        bins = self._owed // self._bin_samples
        hole = Hole(bins, self.index, self._time + self._period)
        self._owed -= bins * self._bin_samples
        self.index += bins * self._bin_samples
        self._time += bins * self._bin_samples * self._period
        return hole

    def _finish(self, consumed: int) -> Block:
        block = Block(self._buffer, self.index, self._time + self._period, consumed, self._missing, self._nonfinite)
        self.index += self._block_samples
        self._filled = self._missing = self._nonfinite = 0
        return block
