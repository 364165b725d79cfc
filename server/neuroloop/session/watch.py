"""What the loop tells once a second: channels that are not finite, late bins, samples that were dropped or left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from neuroloop.session.chain import Chain
from neuroloop.session.messages import Health

OVERLOAD_SHARE = 0.1  # of the bins of a second, late: more is told as overload

Event = tuple[str, str, dict[str, Any]]


class Watch:
    """Looks at one chain from second to second."""

    def __init__(self, chain: Chain, health: Health) -> None:
        self._chain = chain
        self._health = health
        self._bins = self._late = self._lost = self._surplus = 0
        self._skipped_as_stale = False
        self.late_share = 0.0
        self._nonfinite = chain.cutter.nonfinite_by_channel.copy()

    def bin(self, process_ms: float) -> None:
        """A bin was answered so long after its last sample had arrived; longer than a bin is late."""
        self._bins += 1
        if process_ms > 1000 * self._chain.pipeline.bin_s:
            self._late += 1
            self._health.tally.late_bins += 1

    def lost(self, samples: int, is_stale: bool) -> None:
        """Samples were missed because this process was too slow. is_stale: let go of by the configured policy."""
        self._lost += samples
        self._skipped_as_stale = is_stale

    def surplus(self, samples: int) -> None:
        """Samples are left out that came twice, or after they were counted as missing."""
        self._surplus += samples
        self._health.tally.surplus_samples += samples

    def second(self) -> Iterator[Event]:
        """Events (name, text, facts) of the second that ended."""
        yield from self._tell_nonfinite()
        yield from self._tell_surplus()
        yield from self._tell_lost()
        yield from self._tell_overload()

    def _tell_nonfinite(self) -> Iterator[Event]:
        counts = self._chain.cutter.nonfinite_by_channel
        fresh = counts - self._nonfinite
        if not fresh.any():
            return
        self._nonfinite = counts.copy()
        labels = self._chain.pipeline.channels
        channels = {labels[c]: int(fresh[c]) for c in np.flatnonzero(fresh)}
        names = ", ".join(list(channels)[:8]) + (", ..." if len(channels) > 8 else "")
        advice = "a channel that stays so can be left out with stream.channels"
        yield "nonfinite", f"NaN or Inf on {names}: counted as missing; {advice}", {"channels": channels}

    def _tell_surplus(self) -> Iterator[Event]:
        if self._surplus:
            detail = f"{self._surplus} samples came twice, or after they were counted as missing: they are left out"
            yield "surplus", detail, {"surplus_samples": self._surplus}
            self._surplus = 0

    def _tell_lost(self) -> Iterator[Event]:
        if not self._lost:
            return
        missed = -(-self._lost // self._chain.pipeline.bin_samples)
        self._health.tally.missed_bins += missed
        what = "stale_after_ms, staleness: skip_to_latest" if self._skipped_as_stale else "its buffer, stream.buffer_s"
        detail = f"this process fell behind by more than it may ({what}): {self._lost} samples were missed"
        yield "overrun", detail, {"dropped_samples": self._lost, "missed_bins": missed}
        self._lost = 0

    def _tell_overload(self) -> Iterator[Event]:
        late, bins = self._late, self._bins
        self._late = self._bins = 0
        self.late_share = late / bins if bins else 0.0
        if late > OVERLOAD_SHARE * bins:
            self._health.detail = f"overload: {late} of {bins} bins late in the last second"
            yield "overload", self._health.detail, {"late_bins": late, "bins": bins}
        elif self._health.detail.startswith("overload"):
            self._health.detail = "answering in time again"
