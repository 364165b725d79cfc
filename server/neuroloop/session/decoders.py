"""The decoders of one session: who answers a bin, who learns from a label, who takes over from whom.

Owned by the loop. One decoder is active and answers in the loop; shadows answer beside it (`shadow`). What was active
before is kept, as it was, for a rollback; the guard takes the newest of these where the active one fails, and has it
answer the same bin.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import partial
from typing import Any

from neuroloop.errors import Conflict, Deleted, ModelError, NotFound, Unavailable
from neuroloop.models.base import Scores
from neuroloop.pipeline import Bin
from neuroloop.session.guard import Guard
from neuroloop.session.journal import Journal
from neuroloop.session.latency import Histogram
from neuroloop.session.loading import Needs, check_fit
from neuroloop.session.messages import BinTime
from neuroloop.session.recent import RecentBins, RecentLessons
from neuroloop.session.running import Fault, RunningDecoder, Taught
from neuroloop.session.shadow import FAILED, Answer, Handed, Item, Replace, Reset, Shadow, ShadowBin, Told, copied

KEPT = 4
MOST_SHADOWS = 32

Event = tuple[str, str, dict[str, Any]]
Post = Callable[[Callable[[], None], str | None], None]


class Decoders:
    """active, shadows: as configured. needs: what every decoder to come must fit. guard: makes one for a decoder."""

    def __init__(
        self,
        session: str,
        active: RunningDecoder,
        shadows: Iterable[RunningDecoder],
        needs: Needs,
        guard: Callable[[str], Guard],
    ) -> None:
        self.active = active
        self.needs = needs
        self.past: deque[RunningDecoder] = deque(maxlen=KEPT)
        self.shadows = {running.name: Shadow(session, running, guard(running.name)) for running in shadows}
        self._shadow_names = set(self.shadows)  # of all that there were
        self.bins = RecentBins(needs.features)
        self.lessons = RecentLessons()
        self.histogram = Histogram()  # of the active decoder's answers
        self._session = session
        self._new_guard = guard
        self._guard = guard(active.name)
        self.journal = Journal()  # that of the loop, once it has this
        self._too_slow: str | None = None
        self._events: list[Event] = []
        self._publish: Callable[[bytes, dict[str, Any]], None]
        self._post: Post

    def begin(self, publish: Callable[[bytes, dict[str, Any]], None], post: Post, before: Decoders | None) -> None:
        """Start the shadows. before: of the stream before, whose loaded decoders go on here if they fit.

        post: has the loop call a function, from any thread; see `Call`. publish: for the loop's thread.
        """
        self._publish, self._post = publish, post
        fresh = dict(self.shadows)
        if before is not None:
            self._take_over(before)
        for name, shadow in self.shadows.items():
            if fresh.get(name) is shadow:
                shadow.begin(shadow.running, self._report, self.journal)
            else:
                shadow.report_to(self._report)

    def end(self) -> None:
        for shadow in self.shadows.values():
            shadow.end()

    def state_dict(self) -> dict[str, Any]:
        """What `restore` leaves out, for one that goes on to the bit."""
        places = [list(shadow.place) for shadow in self.shadows.values()]
        return {"bins": self.bins.state_dict(), "fails": self._guard.fails, "shadows": places}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """After `begin`."""
        self.bins.load_state_dict(state["bins"])
        self._guard.fails = state["fails"]
        for shadow, place in zip(self.shadows.values(), state["shadows"], strict=True):
            shadow.go_on(*place)

    @property
    def is_about_to_return(self) -> bool:
        """The next bin is for the decoder before, because the active one is too slow."""
        return self._too_slow is not None

    def everyone(self) -> list[RunningDecoder]:
        """The active one first. Those of the shadows are theirs from `begin` on."""
        return [self.active, *(shadow.running for shadow in self.shadows.values())]

    def restore(
        self, active: RunningDecoder, past: Iterable[RunningDecoder], shadows: Iterable[RunningDecoder]
    ) -> None:
        """Who was there; before `begin`."""
        self.past.extend(past)
        self._activate(active)
        self.shadows = {
            running.name: Shadow(self._session, running, self._new_guard(running.name)) for running in shadows
        }

    # Bins and labels

    def answer(self, outcome: Bin, number: int) -> tuple[Scores | None, str | None]:
        """The active decoder's answer for a bin of this number, or None and the reason."""
        if outcome.reason is not None:
            return None, outcome.reason
        self.bins.add(outcome.rates)
        scores = self._ask(outcome.rates, number)
        if scores is None:
            return None, FAILED
        self.active.latency.add(self.active.predict_ms)
        self.histogram.add(self.active.predict_ms)
        return scores, scores.reason

    def _ask(self, rates: Any, number: int) -> Scores | None:
        if self._too_slow is not None:  # told by the last bin, which was late already
            why, self._too_slow = self._too_slow, None
            scores = self._return(why, rates, number)
            if scores is not None:
                return scores
            self._tell(self.active, why)
        try:
            scores = self.active.predict(rates, number)
        except Fault as fault:
            why_failed = self._guard.failed(str(fault))
            good = None if why_failed is None else self._return(why_failed, rates, number)
            if good is None:
                self._tell(self.active, why_failed)
            return good
        news = self._guard.answered(self.active.predict_ms)
        if self.journal.too_slow(number, news is not None and self._guard.is_slow and bool(self.past)):
            self._too_slow = news or "took longer than its budget"
        else:
            self._tell(self.active, news)
        return scores

    def show(self, outcome: Bin, number: int, time: BinTime, rereference: int | None, active: int | None) -> None:
        """Give the shadows a bin that the active decoder has answered with this class."""
        if self.shadows:
            self._offer(ShadowBin(number, copied(outcome), time, rereference, active))

    def skip(self) -> None:
        """The shadows do not get this bin."""
        for shadow in self.shadows.values():
            shadow.skipped += 1

    def drop_waiting(self) -> int:
        """Let go of the bins that wait for shadows; returns how many."""
        return sum(shadow.drop()[0] for shadow in self.shadows.values())

    def learn(self, lesson: Taught) -> str | None:
        """Teach every decoder; returns why the active one could not learn, or None."""
        self.lessons.add(lesson)
        self._offer(lesson)
        try:
            self.active.learn(lesson)
        except Fault as fault:
            self._tell(self.active, str(fault))
            return f"decoder {self.active.name!r} could not learn it: {fault}"
        return None

    def reset(self) -> None:
        """What comes next does not follow what came last."""
        self.bins.clear()
        self._offer(Reset())
        try:
            self.active.reset()
        except Fault as fault:
            self._tell(self.active, self._guard.failed(str(fault)))

    def _offer(self, item: Item) -> None:
        for shadow in self.shadows.values():
            skipped, unlearned = shadow.put(item)
            if skipped or unlearned:
                detail = f"shadow {shadow.running.name!r} is too slow: {skipped} bins skipped"
                detail += f", {unlearned} labels not learned" * (unlearned > 0) + "; it goes on with the newest"
                facts = {"skipped": skipped, "unlearned": unlearned}
                self.tell("shadow_lagged", detail, decoder=shadow.running.name, **facts)

    def _return(self, why: str, rates: Any, number: int) -> Scores | None:
        """Go back to the newest version that answers this bin; returns its answer, or None where there is none."""
        for number_of_past, good in reversed(list(enumerate(self.past))):
            try:
                good.reset()
                scores = good.predict(rates, number)
            except Fault:
                continue
            while len(self.past) > number_of_past:
                self.past.pop()
            failed = self.active
            facts = {"from": failed.identity(), "to": good.identity(), "why": why, "decoder": failed.name}
            self.tell("decoder_guard", f"active decoder {failed.name!r}: {why}; back to {named(good)}", **facts)
            self._activate(good)
            self._demote(failed)
            return scores
        return None

    # Exchanges, between two bins; each returns the decoder that was there before

    def swap(self, running: RunningDecoder) -> RunningDecoder | None:
        """Put a decoder in: as the active one, or as the shadow of its name."""
        before: RunningDecoder | None
        if running.role == "active":
            before = self.active
            self.past.append(before)
            self._activate(running)
            return before
        old = self.shadows.get(running.name)
        before = None if old is None else old.running
        if old is None:
            self._add_shadow(running)
        else:
            old.put(Replace(running))
        return before

    def rollback(self) -> RunningDecoder:
        """Back to what was active before, as it was then. Raises Conflict."""
        if not self.past:
            raise Conflict(
                f"decoder {self.active.name!r}: no earlier version is kept, so there is nothing to return to"
            )
        if self.past[-1].name in self.shadows:
            raise Conflict(f"a shadow has the name of the decoder before, {self.past[-1].name!r}; remove it first")
        before, good = self.active, self.past.pop()
        self._activate(good)
        try:
            good.reset()
        except Fault as fault:
            self._tell(good, self._guard.failed(str(fault)))
        self._demote(before)
        return before

    def take_promoted(self, shadow: Shadow, running: RunningDecoder) -> RunningDecoder:
        """A shadow has handed its decoder over: let it see what came meanwhile, and make it the active one."""
        for item in shadow.late:
            outcome = shadow.process(running, item)
            if outcome is not None:
                self._take_report(shadow, outcome)
        del self.shadows[running.name]
        before = self.active
        self.past.append(before)
        running.role, running.was_shadow = "active", True
        self._activate(running)
        return before

    def remove(self, name: str) -> RunningDecoder:
        """Let a shadow go. Raises NotFound; Conflict for the active decoder, or a shadow that is being promoted."""
        shadow = self.shadow(name)
        shadow.end()
        del self.shadows[name]
        return shadow.running

    def shadow(self, name: str) -> Shadow:
        """Raises NotFound; Conflict for the active decoder, or a shadow that is being promoted."""
        if name == self.active.name:
            raise Conflict(f"decoder {name!r} is the active one; load or promote another in its place first")
        if name not in self.shadows:
            there = ", ".join(self.shadows) or "none"
            if name in self._shadow_names:
                raise Deleted(f"no shadow {name!r} any more; there are: {there}")
            raise NotFound(f"no shadow {name!r}; there are: {there}")
        if self.shadows[name].handing_over is not None:
            raise Conflict(f"shadow {name!r} is being promoted")
        return self.shadows[name]

    def check_room(self, name: str) -> None:
        """Raise Conflict unless a shadow of this name can be put in."""
        if name == self.active.name:
            raise Conflict(f"decoder {name!r} is the active one; give the shadow another name ('decoder')")
        if name in self.shadows:
            self.shadow(name)
        elif len(self.shadows) >= MOST_SHADOWS:
            raise Conflict(f"{MOST_SHADOWS} shadows are running already; remove one first")

    def _activate(self, running: RunningDecoder) -> None:
        self.active = running
        self._guard = self._new_guard(running.name)
        self._too_slow = None

    def _demote(self, running: RunningDecoder) -> None:
        """What was promoted goes back among the shadows; what was loaded can be loaded again."""
        if running.was_shadow and running.name not in self.shadows and len(self.shadows) < MOST_SHADOWS:
            running.role, running.was_shadow = "shadow", False
            self._add_shadow(running)

    def _add_shadow(self, running: RunningDecoder) -> None:
        shadow = self.shadows[running.name] = Shadow(self._session, running, self._new_guard(running.name))
        self._shadow_names.add(running.name)
        shadow.begin(running, self._report, self.journal)

    def _take_over(self, before: Decoders) -> None:
        """What was loaded from the registry outlives a change of the stream, if it fits the new one."""
        self._shadow_names |= before._shadow_names
        if before.needs.features == self.needs.features:
            self.lessons = before.lessons
            for running in (self.active, *(shadow.running for shadow in self.shadows.values())):
                running.lessons_from = self.lessons.added
        if self._goes_on(before.active):
            self.past.extend(past for past in before.past if self._goes_on(past))
            self._activate(before.active)
        for name, shadow in list(before.shadows.items()):
            if shadow.handing_over is not None:
                shadow.keep()
            if self._goes_on(shadow.running):
                del before.shadows[name]
                self.shadows[name] = shadow
        before.end()

    def _goes_on(self, running: RunningDecoder) -> bool:
        if running.model is None or running.about is None:
            return False
        try:
            check_fit(named(running), running.about, self.needs)
        except ModelError as error:
            detail = f"{running.role} decoder {running.name!r} is dropped, for it does not fit the new stream: {error}"
            self.tell("decoder_dropped", detail, decoder=running.name, model=running.identity())
            return False
        return True

    # What is told

    def _report(self, shadow: Shadow, told: list[Told]) -> None:
        """In a shadow's thread."""
        with suppress(Unavailable):  # the loop is behind by thousands of messages, or has ended: `seq` shows the hole
            due = handover(shadow.running.name) if any(isinstance(one, Handed) for one in told) else None
            self._post(partial(self._take_reports, shadow, told), due)

    def _take_reports(self, shadow: Shadow, told: list[Told]) -> None:
        """In the loop."""
        for one in told:
            self._take_report(shadow, one)

    def _take_report(self, shadow: Shadow, told: Told) -> None:
        if self.shadows.get(shadow.running.name) is not shadow:
            return  # removed meanwhile
        match told:
            case Answer():
                shadow.count(told)
                self._publish(b"predictions", told.message)
                self._tell(told.running, told.told)
            case Fault():
                self._tell(shadow.running, str(told))
            case Handed(request, running) if request is shadow.handing_over:
                request.done(shadow, running)
            case Handed(_, running):  # the promotion was given up while the decoder was on its way
                shadow.begin(running, self._report, self.journal)

    def describe(self) -> list[dict[str, Any]]:
        """Every decoder, the active one first."""
        past = [running.identity() for running in self.past]
        return [self.active.describe() | {"past": past}, *(shadow.describe() for shadow in self.shadows.values())]

    def take_events(self) -> list[Event]:
        """What happened to decoders since the last call."""
        if not self._events:
            return []
        events, self._events = self._events, []
        return events

    def tell(self, name: str, detail: str, **facts: Any) -> None:
        self._events.append((name, detail, facts))

    def _tell(self, running: RunningDecoder, what: str | None) -> None:
        if what is not None:
            facts = {"decoder": running.name, "role": running.role, "why": what, "model": running.identity()}
            self.tell("decoder_guard", f"{running.role} decoder {running.name!r}: {what}", **facts)


def handover(name: str) -> str:
    """What a recording calls the moment at which a shadow has left its decoder to the loop."""
    return f"handover of {name}"


def named(running: RunningDecoder) -> str:
    """For a person: which model this is."""
    identity = running.identity()
    return f"{identity['name']!r} version {identity['version']}"
