"""The stages of one session, put together from its configuration: block -> front end -> bin -> rate window.

Pure like the stages themselves: what comes out depends on the blocks and on nothing else. The loop calls `step` with
each block and `finish_bin` when a bin is complete.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.config import SessionSettings, bin_samples, block_samples
from neuroloop.front_ends import make_front_end
from neuroloop.signal.rates import RateWindow

F32 = NDArray[np.float32]


@dataclass(slots=True)
class Bin:
    """values: (features,) of this bin; rates: (features,), mean over the window. Both valid until the next bin.

    reason: why nothing should be decoded or learned from it, or None.
    """

    values: F32
    rates: F32
    reason: str | None
    gap: bool


class Pipeline:
    """From blocks to rate vectors, for a stream of this rate, in hertz, with these channel labels."""

    def __init__(self, session: SessionSettings, nominal_srate: float, channels: tuple[str, ...]) -> None:
        self.channels = channels
        self.nominal_srate = nominal_srate
        self.bin_samples = bin_samples(session, nominal_srate)
        self.block_samples = block_samples(session, nominal_srate)
        self.bin_s = self.bin_samples / nominal_srate
        self.front_end = make_front_end(session, nominal_srate, channels)
        self.features = self.front_end.features
        settle_s = self.front_end.settle_s if session.settle_ms is None else session.settle_ms / 1000
        self._settle_samples = round(settle_s * nominal_srate)
        self._unsettled = self._settle_samples
        self._window = RateWindow(len(self.features), session.window)
        self._nothing = np.zeros(len(self.features), np.float32)
        self._gap = False
        self._settling = False
        self._uncalibrated = False

    def step(self, block: F32, complete: bool) -> None:
        """Take in a block, (block_samples, channels) float32. complete: no sample of it was missing or not finite."""
        self._uncalibrated |= not self.front_end.calibrated
        self._settling |= self._unsettled > 0
        self.front_end.step(block, complete and self._unsettled == 0)
        if complete:
            self._unsettled = max(0, self._unsettled - len(block))
        else:
            self._gap = True
            self._unsettled = self._settle_samples
            self.front_end.interrupt()

    def accumulate(self) -> None:
        """Do what the answer to the last block did not need; to be called after it, before the next block."""
        self.front_end.accumulate()

    def finish_bin(self) -> Bin:
        """The bin that the last block completed. Bins that cannot be trusted stay out of the rate window."""
        values = self.front_end.finish_bin()
        gap = self._gap
        reason = None
        if gap:
            reason = "gap"
        elif self._settling:
            reason = "settling"
        elif self._uncalibrated:
            reason = "calibrating"
        self._gap = self._settling = self._uncalibrated = False
        rates = self._window.mean if reason else self._window.push(values)
        return Bin(values, rates, reason, gap)

    def missing_bin(self) -> Bin:
        """A bin of which no sample came."""
        return Bin(self._nothing, self._window.mean, "gap", True)

    def reset(self) -> None:
        """The next block does not follow the last one: filters settle again, the rate window starts anew."""
        self.front_end.reset()
        self._window.reset()
        self._unsettled = self._settle_samples
        self._gap = self._settling = self._uncalibrated = False

    def warm_up(self) -> None:
        """Run a bin of zeros through fresh stages, so that nothing compiles or allocates at the first block."""
        state = self.state_dict()
        for _ in range(self.bin_samples // self.block_samples):
            self.step(np.zeros((self.block_samples, len(self.channels)), np.float32), False)
            self.accumulate()
        self.finish_bin()
        self.load_state_dict(state)

    def state_dict(self) -> dict[str, Any]:
        return self._state(self.front_end.state_dict())

    def stream_state(self) -> dict[str, Any]:
        """The state but for what `front_end.rereference` gives access to; `load_state_dict` takes it, too."""
        front_end = self.front_end
        return self._state(getattr(front_end, "stream_state", front_end.state_dict)())

    def _state(self, front_end: dict[str, Any]) -> dict[str, Any]:
        return {
            "front_end": front_end,
            "window": self._window.state_dict(),
            "unsettled": self._unsettled,
            "gap": self._gap,
            "settling": self._settling,
            "uncalibrated": self._uncalibrated,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.front_end.load_state_dict(state["front_end"])
        self._window.load_state_dict(state["window"])
        self._unsettled = int(state["unsettled"])
        self._gap, self._settling = bool(state["gap"]), bool(state["settling"])
        self._uncalibrated = bool(state["uncalibrated"])
