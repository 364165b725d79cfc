"""What an overloaded session leaves out, one thing after the other, so that its active decoder answers in time.

First nobody is shown the signals, then the shadows get no bins, then the encoders; the active decoder always does. A
second in which many bins were late takes the next thing away; a while without a late bin gives the last one back, and a
longer while where that was too soon. Shadows go on learning from labels, and begin anew, as after a hole, with the bins
that they then get.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from neuroloop.session.loop import Loop

ORDER = ("signals", "shadows", "encoders")
OVERLOAD_SHARE = 0.1  # of the bins of a second, late
CALM_S = 5
LONGEST_CALM_S = 80

Event = tuple[str, str, dict[str, Any]]


class Shedding:
    """Of one session; called by its loop. shed: what is left out at present, in order."""

    def __init__(self, loop: Loop) -> None:
        self.shed: list[str] = []
        self._loop = loop
        self._calm = 0
        self._needed = CALM_S
        self._since_return = LONGEST_CALM_S

    def leaves_out(self, what: str) -> bool:
        return what in self.shed

    def second(self, late_share: float) -> Iterator[Event]:
        """late_share: of the last second's bins."""
        self._since_return += 1
        if late_share > OVERLOAD_SHARE:
            self._calm = 0
            yield from self._take(late_share)
        elif late_share > 0:
            self._calm = 0
        else:
            self._calm += 1
            if self.shed and self._calm >= self._needed:
                yield from self._give_back()

    def _take(self, late_share: float) -> Iterator[Event]:
        what = next((one for one in ORDER if one not in self.shed and self._has(one)), None)
        if what is None or self._loop.swaps.is_promoting or not self._loop.journal.sheds(what, True):
            return
        if self._since_return < self._needed:
            self._needed = min(2 * self._needed, LONGEST_CALM_S)
        skipped = self.change(what, True)
        loses = "are not shown" if what == "signals" else "get no bins"
        detail = f"overload, {late_share:.0%} of the last second's bins late: the {what} {loses} until it is over"
        yield "shed", detail, {"what": what, "skipped": skipped}

    def _give_back(self) -> Iterator[Event]:
        what = self.shed[-1]
        if not self._loop.journal.sheds(what, False):
            return
        self.change(what, False)
        calm, self._calm, self._since_return = self._calm, 0, 0
        gain = "are shown" if what == "signals" else "get bins"
        yield "shed_over", f"no late bin for {calm} s: the {what} {gain} again", {"what": what}

    def change(self, what: str, is_shed: bool) -> int:
        """Leave something out, or give it back; returns how many bins that waited for it are let go of."""
        if not is_shed:
            self.shed.remove(what)
            return 0
        self.shed.append(what)
        chain = self._loop.chain
        return chain.decoders.drop_waiting() if what == "shadows" and chain is not None else 0

    def _has(self, what: str) -> bool:
        chain = self._loop.chain
        if what == "signals":
            return self._loop.signals.are_wanted
        if what == "shadows":
            return chain is not None and bool(chain.decoders.shadows)
        return self._loop.encoders.has_any
