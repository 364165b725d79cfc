"""A loop that falls behind: when its bins count as stale, and what it then does, as the configuration says.

- `catch_up`: every bin is computed and answered, as fast as it goes; so is it by the other two, but for what they say.
- `skip_to_latest`: what waits in the ring is let go of, counted as missed, and the loop goes on with the newest sample.
- `hold`: every bin is computed, but a stale one gets no label (`reason: stale`), so that nothing acts on old data. Its
  scores are those that they would have been, and every decoder has seen it.

Behind is what the loop is by its own fault: counted from when a sample arrived in this process.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from neuroloop.config import SessionSettings
from neuroloop.models.base import Scores
from neuroloop.session.journal import Journal

STALE = "stale"
DOES = {
    "catch_up": "it answers every bin until it has caught up",
    "skip_to_latest": "it lets go of what waits, and goes on with the newest samples",
    "hold": "it gives no labels until it has caught up",
}

Event = tuple[str, str, dict[str, Any]]


class Staleness:
    """Of one session; called by its loop for each bin."""

    def __init__(self, session: SessionSettings, journal: Journal) -> None:
        self.bins = 0
        self.is_stale = False
        self._policy = session.staleness
        self._limit_ms = session.stale_after_ms
        self._journal = journal
        self._begun = 0
        self._worst_ms = 0.0

    @property
    def skips(self) -> bool:
        """Whether what waits is to be let go of, after the bin at hand."""
        return self.is_stale and self._policy == "skip_to_latest"

    def bin(self, seq: int, waited_ms: float) -> Event | None:
        """Bin `seq` is at hand so long after its last sample arrived; returns what is new about that."""
        was_stale = self.is_stale
        self.is_stale = self._journal.is_stale(seq, waited_ms > self._limit_ms)
        if self.is_stale:
            self.bins += 1
            if not was_stale:
                self._begun, self._worst_ms = self.bins - 1, waited_ms
                detail = f"the loop is {waited_ms:.0f} ms behind: {DOES[self._policy]} (staleness: {self._policy})"
                return "stale", detail, {"policy": self._policy, "behind_ms": round(waited_ms, 3)}
            self._worst_ms = max(self._worst_ms, waited_ms)
        elif was_stale:
            bins, worst = self.bins - self._begun, round(self._worst_ms, 3)
            return "in_time", f"in time again after {bins} stale bins", {"stale_bins": bins, "worst_ms": worst}
        return None

    def withhold(self, scores: Scores | None, reason: str | None) -> tuple[Scores | None, str | None]:
        """The active decoder's answer as it is to be published."""
        if not self.is_stale or self._policy != "hold" or scores is None or reason is not None:
            return scores, reason
        return replace(scores, index=None, reason=STALE), STALE

    def describe(self) -> dict[str, Any]:
        return {"policy": self._policy, "is_stale": self.is_stale, "bins": self.bins}
