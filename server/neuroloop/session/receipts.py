"""What a swap cost: the bins around it, told to whoever asked for it once they are done."""

from __future__ import annotations

from collections import deque
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

BINS = 5  # before a swap, and after it
PATIENCE_S = 2.0  # without samples, no bins come


@dataclass(slots=True)
class _Open:
    facts: dict[str, Any]
    reply: Future[Any]
    until: float
    bin_samples: int
    times_ms: list[float]
    left: int = BINS
    lost_samples: int = 0


class Receipts:
    """The swaps whose bins are not all done yet."""

    def __init__(self) -> None:
        self._recent: deque[float] = deque(maxlen=BINS)
        self._open: list[_Open] = []

    def open(self, facts: dict[str, Any], reply: Future[Any], now: float, bin_samples: int) -> None:
        """A swap has just taken effect."""
        self._open.append(_Open(facts, reply, now + PATIENCE_S, bin_samples, list(self._recent)))

    def bin(self, process_ms: float) -> None:
        """A bin was answered so long after its last sample had arrived."""
        self._recent.append(process_ms)
        for receipt in self._open:
            receipt.times_ms.append(process_ms)
            receipt.left -= 1
        if self._open and self._open[0].left == 0:
            self._close([receipt for receipt in self._open if receipt.left == 0])

    def lost(self, samples: int) -> None:
        """The session was too slow for these."""
        for receipt in self._open:
            receipt.lost_samples += samples

    def expire(self, now: float) -> None:
        """Wait no longer for bins that do not come."""
        if self._open and self._open[0].until <= now:
            self._close([receipt for receipt in self._open if receipt.until <= now])

    def close(self) -> None:
        """No bins will come."""
        self._recent.clear()
        self._close(list(self._open))

    def _close(self, receipts: list[_Open]) -> None:
        for receipt in receipts:
            self._open.remove(receipt)
            cost = {
                "missed_bins": -(-receipt.lost_samples // receipt.bin_samples),
                "slowest_bin_ms": round(max(receipt.times_ms), 3) if receipt.times_ms else None,
                "window_bins": len(receipt.times_ms),
            }
            receipt.reply.set_result(receipt.facts | cost)
