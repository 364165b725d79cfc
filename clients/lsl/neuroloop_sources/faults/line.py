"""Between what came in and what goes out: which fault is next, what it does, and what was done so far. No I/O.

Faults come one at a time, every kind once in random order, then again; the same seed gives the same faults. They begin
at moments of the stream's own time, counted in samples; time in which nobody receives, or all waits, does not count.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import count
from typing import Any

import numpy as np

from neuroloop_sources.errors import SourceError
from neuroloop_sources.faults.kinds import KINDS, Chunk, Effect, stretch_samples


@dataclass(frozen=True, eq=False, slots=True)
class Send:
    """Send these. is_other: to those who receive the stream with another number of channels."""

    chunk: Chunk
    is_other: bool = False


@dataclass(frozen=True, slots=True)
class Close:
    """End the stream, then, if so, open one with another number of channels."""

    other_channels: bool


@dataclass(frozen=True, slots=True)
class Open:
    """Open the stream as it was."""


@dataclass(frozen=True, slots=True)
class Tell:
    """A fault has been applied."""

    facts: dict[str, Any]


Action = Send | Close | Open | Tell


@dataclass(slots=True)
class Sent:
    """What an account begins with, in samples: `sent + dropped + unsent - repeated` were the sender's.

    unsent: came while there was no stream. late: sent, after a later one. nonfinite: values. step_s: by how much the
    clock is set at present. first, newest: timestamps that were sent.
    """

    sent: int = 0
    dropped: int = 0
    unsent: int = 0
    repeated: int = 0
    late: int = 0
    nonfinite: int = 0
    step_s: float = 0.0
    first: float | None = None
    newest: float | None = None
    faults: dict[str, int] = field(default_factory=dict)

    def add(self, kind: str, effect: Effect) -> None:
        self.faults[kind] = self.faults.get(kind, 0) + 1
        self.dropped += effect.dropped
        self.repeated += effect.repeated
        self.late += effect.late
        self.nonfinite += effect.nonfinite
        self.step_s += effect.step_s

    def told(self) -> dict[str, Any]:
        """As JSON has it; `Sent(**told)` is the same again."""
        return {one.name: getattr(self, one.name) for one in fields(self)}


def check(kinds: Sequence[str], every_s: float) -> None:
    """Raises SourceError for what no line can be made of."""
    for kind in kinds:
        if kind not in KINDS:
            raise SourceError(f"fault: expected one of {', '.join(KINDS)}, got {kind!r}")
    if not every_s > 0:
        raise SourceError(f"every: expected more than 0 s, got {every_s!r}")


class Line:
    """Give it what comes, and do what it says."""

    def __init__(
        self,
        kinds: Sequence[str],
        nominal_srate: float,
        seed: int,
        every_s: float = 2.0,
        rounds: int | None = None,
    ) -> None:
        """kinds: of faults; none for a line without any. every_s: from the end of one to the next, on average.

        rounds: be calm after every kind came so often.
        """
        check(kinds, every_s)
        self.sent = Sent()
        self.is_calm = False
        self._rng = np.random.default_rng(seed)
        self._nominal_srate = nominal_srate
        self._every = every_s * nominal_srate
        self._kinds = self._in_turn(list(kinds), rounds)
        self._has_faults = bool(kinds)
        self._kind: str | None = None
        self._stretch: list[Chunk] = []
        self._lacking = 0
        self._outgoing: deque[Chunk] = deque()
        self._held_until = self._out_until = -np.inf
        self._is_out = self._is_other = False
        self._is_received = True
        self._pause = self._draw_pause()

    def _in_turn(self, kinds: list[str], rounds: int | None) -> Iterator[str]:
        for _ in count() if rounds is None else range(rounds):
            for number in self._rng.permutation(len(kinds)):
                yield kinds[number]

    def _draw_pause(self) -> int:
        return round(self._every * self._rng.uniform(0.5, 1.5))

    def calm(self) -> None:
        """No further fault; what is under way ends as it would."""
        self.is_calm = True

    @property
    def is_idle(self) -> bool:
        """Whether no fault is under way, and everything that came was sent."""
        return self._kind is None and not self._outgoing and not self._is_out

    def take(self, chunk: Chunk | None, now: float, is_received: bool = True) -> Iterator[Action]:
        """What to do now that this has come, or nothing; now: seconds of any clock. is_received: by somebody."""
        self._is_received = is_received
        while chunk is not None and len(chunk):
            chunk = yield from self._enter(chunk, now)
        if self._is_out and now >= self._out_until:
            self._is_out = self._is_other = False
            yield Open()
        if now >= self._held_until:
            while self._outgoing:
                yield from self._leave(self._outgoing.popleft())

    def _enter(self, chunk: Chunk, now: float) -> Generator[Action, None, Chunk]:
        """Take the samples up to where a fault begins or ends; returns the rest."""
        if self._kind is None:
            ahead = len(chunk)
            is_due = self._is_due(now)
            if is_due:
                ahead = min(ahead, self._pause)
                self._pause -= ahead
            if ahead:
                self._outgoing.append(self._shifted(chunk[:ahead]))
            if is_due and self._pause == 0:
                self._begin()
            return chunk[ahead:]
        part = chunk[: self._lacking]
        self._stretch.append(part)
        self._lacking -= len(part)
        if self._lacking == 0:
            yield from self._apply(self._kind, now)
        return chunk[len(part) :]

    def _is_due(self, now: float) -> bool:
        return self._has_faults and self._is_received and not (self.is_calm or self._is_out or now < self._held_until)

    def _begin(self) -> None:
        self._kind = next(self._kinds, None)
        if self._kind is None:
            self.is_calm = True
        else:
            self._lacking = stretch_samples(self._kind, self._rng, self._nominal_srate)

    def _apply(self, kind: str, now: float) -> Iterator[Action]:
        stretch, effect = KINDS[kind](Chunk.joined(self._stretch), self._rng, self._nominal_srate)
        self.sent.add(kind, effect)
        self._kind, self._stretch, self._pause = None, [], self._draw_pause()
        if effect.outage_s:  # what waits to be sent was before it
            while self._outgoing:
                yield from self._leave(self._outgoing.popleft())
            self._is_out, self._is_other, self._out_until = True, effect.other_channels, now + effect.outage_s
            yield Close(effect.other_channels)
        if effect.hold_s:
            self._held_until = now + effect.hold_s
        if len(stretch):
            self._outgoing.append(self._shifted(stretch))
        yield Tell({"fault": kind, **effect.told()})

    def _shifted(self, chunk: Chunk) -> Chunk:
        return replace(chunk, times=chunk.times + self.sent.step_s) if self.sent.step_s else chunk

    def _leave(self, chunk: Chunk) -> Iterator[Action]:
        if self._is_out:
            self.sent.unsent += len(chunk)
            if self._is_other:
                yield Send(chunk, is_other=True)
            return
        self.sent.sent += len(chunk)
        if self.sent.first is None:
            self.sent.first = float(chunk.times[0])
        self.sent.newest = float(chunk.times[-1])
        yield Send(chunk)
