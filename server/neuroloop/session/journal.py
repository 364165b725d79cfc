"""What reaches a session from outside, and where its loop then was: with the samples, all that a replay needs.

The loop is a function of its samples and of what comes between two turns: commands, labels of marker streams, streams
found, work done beside it. It passes each of these through here. Live, they are noted for whoever records; a replay has
a journal of its own, which answers with what was noted.

A note names the place: `given`, the samples whose timestamps the loop had judged, `steps`, the blocks that it had
processed and the holes that it had found, and `seq`, the next bin.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import Any

from neuroloop.session.ring import Ring
from neuroloop.session.streams import StreamDescription
from neuroloop.session.timeline import Step

# The commands that change what is computed.
CHANGING = {
    "start",
    "stop",
    "label",
    "rereference_load",
    "rereference_mode",
    "rereference_fit",
    "decoder_load",
    "decoder_rollback",
    "decoder_promote",
    "decoder_remove",
    "encoder_load",
    "encoder_rollback",
    "encoder_promote",
    "encoder_remove",
}

Note = dict[str, Any]


@dataclass(slots=True)
class Place:
    """Where the loop is between two of its steps."""

    given: int = 0
    steps: int = 0
    seq: int = 0


class Journal:
    """Of a live session; used by its loop alone. keep: takes each note, or None while nobody records.

    has_threads: shadows have.
    """

    has_threads = True

    def __init__(self) -> None:
        self.shadows = 0  # that have begun
        self.place = Place()
        self.keep: Callable[[Note], None] | None = None
        self._offset: float | None = None

    def begin(self, keep: Callable[[Note], None]) -> None:
        """Somebody records from now on."""
        self.keep, self._offset = keep, None

    def end(self) -> None:
        self.keep = None

    def note(self, kind: str, **facts: Any) -> None:
        """Something that came, at the present place."""
        if self.keep is not None:
            place = self.place
            where = {"given": place.given, "steps": place.steps, "seq": place.seq}
            self.keep({"kind": kind, **where, **facts})

    def command(self, name: str, arguments: dict[str, Any]) -> None:
        """Somebody asked for something, which the loop has not done yet."""
        if name in CHANGING:
            self.note("command", name=name, arguments=arguments)

    def stream(self, ring: Ring, description: StreamDescription, start: int, is_new: bool) -> None:
        """A stream was found, and goes into this ring from count `start` on. is_new: with a chain of its own."""
        facts = {"ring": ring.serial, "start": start, "is_new": is_new, "dtype": ring.samples.dtype.str}
        self.note("stream", **facts, description=asdict(description))

    def clock_offset(self, measured: float) -> float:
        """The clock offset to use for the bin at hand."""
        if measured != self._offset:
            self._offset = measured
            self.note("clock_offset", offset=measured)
        return measured

    def arrived(self, measured: float) -> float:
        """What `SenderClock.arrived` says, for the timeline."""
        return measured

    def clock_step(self, ring: Ring, step: Step) -> None:
        """The sender's clock was set. Where the arrivals told it, a replay can't find it by itself."""
        if not step.is_told_by_times:
            self.note("clock_step", ring=ring.serial, count=step.count, time=step.time)

    def is_stale(self, number: int, found: bool) -> bool:
        """Whether bin `number` is to be taken for stale."""
        if found:
            self.note("stale", bin=number)
        return found

    def sheds(self, what: str, is_shed: bool) -> bool:
        """Whether the loop may leave something out now, or give it back."""
        self.note("shed", what=what, is_shed=is_shed)
        return True

    def is_due(self, what: str, number: int, block: int, result: Future[Any]) -> bool:
        """Whether work beside the loop, the `number`-th of its kind, is to come into use after this block of the run.

        What says yes comes into use.
        """
        if not result.done():
            return False
        self.note("due", what=what, number=number, block=block)
        return True

    def too_slow(self, number: int, found: bool) -> bool:
        """Whether the active decoder is to be taken for too slow after its answer for bin `number`."""
        if found:
            self.note("too_slow", bin=number)
        return found

    def encoders_miss(self, number: int) -> bool:
        """Whether bin `number` is not for the encoders, because their queue will lose it."""
        return False

    def encoders_missed(self, numbers: Sequence[int]) -> None:
        """Their queue was full, and has lost these bins, which rise."""
        self.note("encoders_missed", bins=ranges(numbers))

    def shadow_begins(self) -> int:
        """What this shadow is called from now on: they begin in the same order in a replay."""
        self.shadows += 1
        return self.shadows - 1

    def drops(self, shadow: int, given: int, is_full: bool) -> bool:
        """Whether a shadow that was given so many items is to let go of those that wait."""
        return is_full

    def dropped(self, shadow: int, given: int, waiting: Sequence[int]) -> None:
        """It has, after so many. waiting: the numbers of its items that it had not come to, rising."""
        self.note("shadow_dropped", shadow=shadow, items=given, waiting=ranges(waiting))

    def holds(self, shadow: int, number: int) -> bool:
        """Whether the shadow is not to come to this item before it drops what waits."""
        return False


def ranges(numbers: Sequence[int]) -> list[list[int]]:
    """[first, after] of each run of numbers, which rise."""
    found: list[list[int]] = []
    for number in numbers:
        if found and found[-1][1] == number:
            found[-1][1] += 1
        else:
            found.append([number, number + 1])
    return found
