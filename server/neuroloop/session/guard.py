"""Watches the answers of one decoder from bin to bin, and says when it fails, is slow, or is well again.

Told once when it changes, not for every bin. A decoder that fails is still asked for each bin: a fault that passes, as
one rate vector that overflows, costs the bins that it spoils and no others.
"""

from __future__ import annotations

LEAST_BUDGET_MS = 1.0


class Guard:
    """budget_ms: longest that an answer may take; overrun_bins: how many in a row may take longer, less one."""

    def __init__(self, budget_ms: float, overrun_bins: int) -> None:
        self.budget_ms = budget_ms
        self.fails = False
        self._overrun_bins = overrun_bins
        self._overruns = 0

    @property
    def is_slow(self) -> bool:
        return self._overruns >= self._overrun_bins

    def answered(self, predict_ms: float) -> str | None:
        """The decoder gave a usable answer; returns what is new about that."""
        was_slow = self.is_slow
        self._overruns = self._overruns + 1 if predict_ms > self.budget_ms else 0
        if self.fails:
            self.fails = False
            return "answers again"
        if self.is_slow and not was_slow:
            return f"took longer than its budget of {self.budget_ms:g} ms for {self._overrun_bins} bins in a row"
        if was_slow and not self.is_slow:
            return "answers within its budget again"
        return None

    def failed(self, why: str) -> str | None:
        """The decoder gave no usable answer; returns the reason if that is new."""
        self._overruns = 0
        was_failing, self.fails = self.fails, True
        return None if was_failing else why


def budget_ms(given: float | None, bin_ms: float) -> float:
    """The budget that a setting stands for: half a bin by default, but never less than a millisecond."""
    return max(LEAST_BUDGET_MS, bin_ms / 2) if given is None else given
