"""The encoders of one session: who answers a bin, who takes over from whom. Owned by the encoders' thread.

One encoder is active, the others are shadows; all answer every bin, so that a shadow is promoted as it is. What was
active before is kept, as it was, for a rollback; where the active one fails, the newest of these takes its place and
answers the same bin. An encoder that comes in is shown the frames and spikes that lead to the next bin, so that its
first answer is as good as any.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import inf
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import Conflict, Deleted, ModelError, NotFound
from neuroloop.session.frame_history import FrameHistory
from neuroloop.session.guard import Guard
from neuroloop.session.messages import BinTime
from neuroloop.session.running import Fault
from neuroloop.session.running_encoder import EncoderNeeds, RunningEncoder, named

F32 = NDArray[np.float32]

KEPT = 4
MOST_SHADOWS = 8

FAILED = "encoder failed"
NO_STIMULUS = "no stimulus"
SETTLING = "settling"


@dataclass(frozen=True, slots=True)
class Measured:
    """A bin with its stimulus. frame: (pixels,), None for none. counts: (channels,), None where nobody can trust them.

    reason: why, of the neural stream. follows: on the bin before. frames: samples of the stimulus that `frame` is the
    mean of. late_ms: how long the bin waited for them.
    """

    time: BinTime
    frame: F32 | None
    counts: F32 | None
    reason: str | None
    gap: bool
    follows: bool
    frames: int
    late_ms: float


@dataclass(frozen=True, slots=True)
class View:
    """Who is there, for other threads to read: made anew with each change."""

    active: RunningEncoder | None
    past: tuple[RunningEncoder, ...]
    shadows: tuple[RunningEncoder, ...]

    def everyone(self) -> Iterator[RunningEncoder]:
        """The active one first."""
        if self.active is not None:
            yield self.active
        yield from self.shadows


class Encoding:
    """tell: takes the name of an event, its text, its facts. online: whether encoders learn."""

    def __init__(self, session: str, online: bool, tell: Callable[[str, str, dict[str, Any]], None]) -> None:
        self.view = View(None, (), ())
        self.needs: EncoderNeeds | None = None
        self.history: FrameHistory | None = None
        self._session = session
        self._online = online
        self._tell = tell
        self._active: RunningEncoder | None = None
        self._past: deque[RunningEncoder] = deque(maxlen=KEPT)
        self._shadows: dict[str, RunningEncoder] = {}
        self._shadow_names: set[str] = set()  # of all that there were
        self._guards: dict[RunningEncoder, Guard] = {}

    def attach(self, needs: EncoderNeeds) -> None:
        """Go on with these streams; encoders that do not fit them are dropped."""
        self.needs = needs
        self.history = FrameHistory(needs.pixels, len(needs.channels), needs.bin_s)
        self._past = deque((past for past in self._past if self._goes_on(past, needs)), KEPT)
        if self._active is not None and not self._goes_on(self._active, needs):
            self._active = None
        self._shadows = {name: one for name, one in self._shadows.items() if self._goes_on(one, needs)}
        self._show()

    def _goes_on(self, running: RunningEncoder, needs: EncoderNeeds) -> bool:
        try:
            running.attach(needs)
            running.reset()
        except (ModelError, Fault) as error:
            detail = f"{running.role} encoder {running.name!r} is dropped, for it does not fit the new stream: {error}"
            self._tell("encoder_dropped", detail, {"encoder": running.name, "model": running.identity()})
            return False
        return True

    def restore(self, found: list[tuple[str, RunningEncoder]]) -> None:
        """Who was there: active, past, shadow; before there are streams."""
        for place, running in found:
            if place == "active":
                self._active = running
            elif place == "past":
                self._past.append(running)
            else:
                self._shadows[running.name] = running
        self._show()

    def _everyone_and_past(self) -> list[RunningEncoder]:
        """In the order of `kept_encoders`."""
        active = [] if self._active is None else [self._active]
        return [*active, *self._past, *self._shadows.values()]

    def state_dict(self) -> dict[str, Any]:
        """Between two bins: all that answers to come depend on, beside what `restore` takes and the frames kept."""
        everyone = self._everyone_and_past()
        return {
            "needs": None if self.needs is None else asdict(self.needs),
            "memories": [running.memory() for running in everyone],
            "failing": [running in self._guards and self._guards[running].fails for running in everyone],
            "shadow_names": sorted(self._shadow_names),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on as another one did, after `restore`. history: of `FrameHistory.leading`. Raises ModelError."""
        if state["needs"] is not None:
            channels, pixels, bin_s = (state["needs"][name] for name in ("channels", "pixels", "bin_s"))
            self.needs = EncoderNeeds(tuple(channels), pixels, bin_s)
            self.history = FrameHistory(pixels, len(channels), bin_s)
            self.history.load_state_dict(state["history"])
        told = zip(self._everyone_and_past(), state["memories"], state["failing"], strict=True)
        for running, memory, fails in told:
            if self.needs is not None:
                running.attach(self.needs)
            running.recall(memory)
            self._guards[running] = guard = Guard(inf, 1)
            guard.fails = fails
        self._shadow_names = set(state["shadow_names"])

    # Bins

    def answer(self, bin: Measured) -> list[dict[str, Any]]:
        """The messages for a bin, the active encoder's first."""
        messages = []
        for running in list(self.view.everyone()):
            answered, rates, reason = self._ask(running, bin)
            messages.append(self._message(answered, bin, rates, reason))
        if self.history is not None:
            self.history.add(bin.time.end, bin.frame, bin.counts, bin.follows)
        return messages

    def distrust(self, since: float) -> None:
        """A frame of the stimulus of this time came too late for its bin."""
        if self.history is not None:
            self.history.distrust(since)

    def _ask(self, running: RunningEncoder, bin: Measured) -> tuple[RunningEncoder, F32 | None, str | None]:
        """Who answered, its rates, and the reason where there are none or they count for nothing."""
        guard = self._guards.setdefault(running, Guard(inf, 1))
        try:
            rates, reason = self._answer(running, bin)
        except Fault as fault:
            why = guard.failed(str(fault))
            with suppress(Fault):
                running.reset()
            good = self._return(why, bin) if why is not None and running is self._active else None
            if good is not None:
                return good
            self._warn(running, why)
            return running, None, FAILED
        if rates is not None:
            self._warn(running, guard.answered(0.0))
        return running, rates, reason

    def _answer(self, running: RunningEncoder, bin: Measured) -> tuple[F32 | None, str | None]:
        """Raises Fault."""
        if bin.gap or bin.frame is None:
            running.reset()
            return None, bin.reason if bin.gap else NO_STIMULUS
        if not bin.follows and running.seen:
            running.reset()
        rates = running.predict(bin.frame).copy()
        reason = bin.reason or (None if running.is_warm else SETTLING)
        if bin.counts is None:
            running.miss_counts()
        else:
            running.take(rates, running.counts_of(bin.counts), self._online)
        return rates, reason

    def _message(self, running: RunningEncoder, bin: Measured, rates: F32 | None, reason: str | None) -> dict[str, Any]:
        """rates: expected spikes per second. counts: spikes in the bin."""
        counts = None if bin.counts is None else running.counts_of(bin.counts).tolist()
        return {
            "type": "encoder",
            "session": self._session,
            "seq": bin.time.seq,
            "time": bin.time.end,
            "encoder": running.name,
            "model": running.identity(),
            "role": running.role,
            "cells": list(running.bank.cells),
            "rates": None if rates is None else running.in_hertz(rates),
            "counts": counts,
            **running.figures,
            "frames": bin.frames,
            "gap": bin.gap or bin.frame is None,
            "reason": reason,
            "late_ms": bin.late_ms,
        }

    def _return(self, why: str, bin: Measured) -> tuple[RunningEncoder, F32 | None, str | None] | None:
        """Go back to the newest version that answers this bin."""
        failed = self._active
        assert failed is not None
        for number, good in reversed(list(enumerate(self._past))):
            try:
                self._prime(good)
                rates, reason = self._answer(good, bin)
            except Fault:
                continue
            while len(self._past) > number:
                self._past.pop()
            facts = {"from": failed.identity(), "to": good.identity(), "why": why, "encoder": failed.name}
            detail = f"active encoder {failed.name!r}: {why}; back to {named(good)}"
            self._tell("encoder_guard", detail, {"role": "active", "model": failed.identity()} | facts)
            self._active = good
            self._demote(failed)
            self._show()
            return good, rates, reason
        return None

    # Exchanges, between two bins; each returns what was there before and what is there now

    def swap(self, running: RunningEncoder) -> tuple[RunningEncoder | None, RunningEncoder]:
        """Put an encoder in: as the active one, or as the shadow of its name. Raises Conflict, ModelError."""
        self.check_room(running.role, running.name)
        if self.needs is not None:
            running.attach(self.needs)  # which may have changed while it was loaded
        try:
            self._prime(running)
        except Fault as fault:
            raise ModelError(f"{named(running)}: {fault} with the session's own frames") from fault
        before: RunningEncoder | None
        if running.role == "active":
            before, self._active = self._active, running
            if before is not None:
                self._past.append(before)
        else:
            before, self._shadows[running.name] = self._shadows.get(running.name), running
            self._shadow_names.add(running.name)
        self._show()
        return before, running

    def check_room(self, role: str, name: str) -> None:
        """Raise Conflict unless an encoder of this name can be put in; in any thread."""
        view = self.view
        shadows = {shadow.name for shadow in view.shadows}
        if role == "active":
            if name in shadows:
                raise Conflict(
                    f"encoder {name!r} is a shadow; promote it, or give the active one another name ('encoder')"
                )
            return
        if view.active is not None and name == view.active.name:
            raise Conflict(f"encoder {name!r} is the active one; give the shadow another name ('encoder')")
        if name not in shadows and len(shadows) >= MOST_SHADOWS:
            raise Conflict(f"{MOST_SHADOWS} shadows are running already; remove one first")

    def rollback(self) -> tuple[RunningEncoder | None, RunningEncoder]:
        """Back to what was active before, as it was then. Raises Conflict."""
        if not self._past:
            raise Conflict("no earlier version of the encoder is kept, so there is nothing to return to")
        if self._past[-1].name in self._shadows:
            raise Conflict(f"a shadow has the name of the encoder before, {self._past[-1].name!r}; remove it first")
        before, good = self._active, self._past.pop()
        self._active = good
        if before is not None:
            self._demote(before)
        self._show()
        try:
            self._prime(good)
        except Fault as fault:
            self._warn(good, self._guards.setdefault(good, Guard(inf, 1)).failed(str(fault)))
        return before, good

    def promote(self, name: str) -> tuple[RunningEncoder | None, RunningEncoder]:
        """Make a shadow the active encoder; it has seen every bin. Raises NotFound, and Conflict as `remove`."""
        running, before = self.remove(name), self._active
        running.role, running.was_shadow = "active", True
        self._active = running
        if before is not None:
            self._past.append(before)
        self._show()
        return before, running

    def _demote(self, running: RunningEncoder) -> None:
        """What was promoted goes back among the shadows; what was loaded can be loaded again."""
        if running.was_shadow and running.name not in self._shadows and len(self._shadows) < MOST_SHADOWS:
            running.role, running.was_shadow = "shadow", False
            self._shadows[running.name] = running

    def remove(self, name: str) -> RunningEncoder:
        """Let a shadow go. Raises NotFound, and Conflict for the active encoder."""
        if self._active is not None and name == self._active.name:
            raise Conflict(f"encoder {name!r} is the active one; load or promote another in its place first")
        if name not in self._shadows:
            there = ", ".join(self._shadows) or "none"
            if name in self._shadow_names:
                raise Deleted(f"no shadow {name!r} among the encoders any more; there are: {there}")
            raise NotFound(f"no shadow {name!r} among the encoders; there are: {there}")
        removed = self._shadows.pop(name)
        self._show()
        return removed

    def _prime(self, running: RunningEncoder) -> None:
        """Raises Fault."""
        if self.history is None:
            running.reset()
        else:
            running.prime(self.history.unbroken(running.lead))

    def _show(self) -> None:
        self.view = View(self._active, tuple(self._past), tuple(self._shadows.values()))
        here = {*self.view.everyone(), *self._past}
        self._guards = {running: guard for running, guard in self._guards.items() if running in here}

    def _warn(self, running: RunningEncoder, what: str | None) -> None:
        if what is not None:
            facts = {"encoder": running.name, "role": running.role, "why": what, "model": running.identity()}
            self._tell("encoder_guard", f"{running.role} encoder {running.name!r}: {what}", facts)
