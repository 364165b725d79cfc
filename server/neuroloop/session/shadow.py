"""A decoder that sees every bin and acts on none, in a thread of its own: however slow or broken, the loop goes on.

Bins and lessons reach it through one queue, in their order, so that it answers as it would have in the loop. A queue
that is full loses its bins, not its lessons, and the shadow goes on with the newest bin. Which ones it lost is a matter
of its speed, so they are noted for replays, which have no such thread. It shares the interpreter with the loop: see
SWITCH_INTERVAL_S in `process` for what a shadow in pure Python costs. One that calls C code for long without releasing
the interpreter's lock does hold the loop up, as it would as the active decoder.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any

import numpy as np

from neuroloop.pipeline import Bin
from neuroloop.session import messages
from neuroloop.session.guard import Guard
from neuroloop.session.journal import Journal
from neuroloop.session.messages import BinTime
from neuroloop.session.priority import Level, step_back
from neuroloop.session.running import Fault, RunningDecoder, Taught

QUEUE_LENGTH = 1024
LESSONS_KEPT = 256  # of a full queue
LONGEST_UNTOLD_S = 0.02  # a shadow with more to do tells the loop no oftener: each time wakes it
UNNUMBERED = -1  # of items that the loop does not give, but the shadow itself, or who promotes it
LATE_BINS = 8  # that the loop itself catches up with at a promotion

FAILED = "decoder failed"


@dataclass(frozen=True, slots=True)
class ShadowBin:
    """A bin as the active decoder had it. active: the class that this one answered. outcome's arrays are copies."""

    number: int
    outcome: Bin
    time: BinTime
    rereference: int | None
    active: int | None


@dataclass(frozen=True, slots=True)
class Reset:
    """What comes next does not follow what came last."""


@dataclass(frozen=True, slots=True)
class Replace:
    """Another decoder takes over from the next bin on."""

    running: RunningDecoder


@dataclass(eq=False, slots=True)
class HandOver:
    """Leave the decoder to the loop, which calls `done`, unless it has changed its mind meanwhile."""

    done: Callable[[Shadow, RunningDecoder], None]
    is_cancelled: bool = False


@dataclass(frozen=True, slots=True)
class Handed:
    """The thread has ended, and left its decoder to the loop."""

    request: HandOver
    running: RunningDecoder


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a bin, for the loop: a message to publish, and what the guard has to say.

    predict_ms: None where the decoder was not asked or failed. agrees: None where either gave no label.
    """

    running: RunningDecoder
    message: dict[str, Any]
    predict_ms: float | None
    agrees: bool | None
    told: str | None


@dataclass(frozen=True, slots=True)
class Ask:
    """Have the thread show its decoder to a function, after what came before."""

    run: Callable[[RunningDecoder], None]


Item = ShadowBin | Taught | Reset | Replace | HandOver | Ask
Numbered = tuple[int, Item]
Told = Answer | Fault | Handed


class Shadow:
    """One shadow: its thread, its queue, and what the loop counts of it. All methods but `_run` are the loop's."""

    def __init__(self, session: str, running: RunningDecoder, guard: Guard) -> None:
        self.running = running
        self.skipped = 0
        self.unlearned = 0
        self.agreed = self.compared = 0
        self.handing_over: HandOver | None = None
        self.late: list[Item] = []
        self._session = session
        self._guard = guard
        self._queue: SimpleQueue[Numbered | None] = SimpleQueue()
        self._given = 0  # items, so the number of the next one
        self._lessons = self._taught = 0  # that were given, and that the thread has come to
        self._held: list[Numbered] = []  # of a replay: what the live shadow had not come to when it was dropped
        self._working: RunningDecoder | None = None  # of a replay, where there is no thread
        self._journal: Journal | None = None
        self._serial = 0
        self._tell: Callable[[Shadow, list[Told]], None]

    def begin(self, running: RunningDecoder, tell: Callable[[Shadow, list[Told]], None], journal: Journal) -> None:
        """Start the thread. tell: see `report_to`."""
        self.report_to(tell)
        if self._journal is None:
            self._journal, self._serial = journal, journal.shadow_begins()
        if journal.has_threads:
            threading.Thread(target=self._run, args=(running,), name=f"shadow {running.name}", daemon=True).start()
        else:
            self._working = running
            self._work()

    @property
    def place(self) -> tuple[int, int]:
        """What it is called in the journal, and how many items it has been given."""
        return self._serial, self._given

    def go_on(self, serial: int, given: int) -> None:
        """After `begin`: it is the one of that place."""
        self._serial, self._given = serial, given

    def report_to(self, tell: Callable[[Shadow, list[Told]], None]) -> None:
        """tell: called in the thread with answers, lessons that failed, and the decoder at its handover, in order."""
        self._tell = tell

    @property
    def waiting(self) -> int:
        """Items in the queue."""
        return self._queue.qsize()

    def put(self, item: Item) -> tuple[int, int]:
        """Never waits. Returns how many bins and how many lessons a full queue has lost; (0, 0) if it is not full."""
        if self.handing_over is not None:
            self.late.append(item)
            return 0, 0
        assert self._journal is not None
        is_full = self._queue.qsize() >= QUEUE_LENGTH
        lost = self.drop() if self._journal.drops(self._serial, self._given, is_full) else (0, 0)
        if isinstance(item, Replace):
            self.running = item.running
            self.agreed = self.compared = 0
        self._lessons += isinstance(item, Taught)
        self._give(self._given, item)
        self._given += 1
        return lost

    @property
    def has_lessons_waiting(self) -> bool:
        """Whether what the decoder has learned is not all that it was taught."""
        return self._lessons != self._taught

    def _give(self, number: int, item: Item) -> None:
        assert self._journal is not None
        if self._journal.holds(self._serial, number) or (number == UNNUMBERED and self._held):
            self._held.append((number, item))
            return
        self._queue.put((number, item))
        if not self._journal.has_threads:
            self._work()

    def drop(self) -> tuple[int, int]:
        """Let go of every bin and question, and all lessons but the newest; what else waits there is obeyed."""
        assert self._journal is not None
        items, self._held = self._held, []
        with suppress(Empty):
            while True:
                entry = self._queue.get_nowait()
                if entry is not None:
                    items.append(entry)
        numbers = [number for number, _ in items if number != UNNUMBERED]
        self._journal.dropped(self._serial, self._given, numbers)
        bins = unlearned = 0
        too_many = sum(isinstance(item, Taught) for _, item in items) - LESSONS_KEPT
        self._give(UNNUMBERED, Reset())
        for number, item in items:
            if isinstance(item, ShadowBin):
                bins += 1
            elif isinstance(item, Taught) and unlearned < too_many:
                unlearned += 1
            elif not isinstance(item, Ask):  # or a shadow that never comes to them would gather one a second
                self._give(number, item)
        self.skipped += bins
        self.unlearned += unlearned
        self._lessons -= unlearned
        return bins, unlearned

    def ask(self, run: Callable[[RunningDecoder], None]) -> None:
        """Have the decoder shown to a function, after what came before; it counts for no item of a replay."""
        if self.handing_over is not None:
            self.late.append(Ask(run))
        else:
            self._give(UNNUMBERED, Ask(run))

    def hand_over(self, done: Callable[[Shadow, RunningDecoder], None]) -> None:
        """Ask for the decoder; what comes meanwhile is kept in `late`. done: called by the loop when it has it."""
        self.handing_over = request = HandOver(done)
        self._give(UNNUMBERED, request)

    def is_too_late(self) -> bool:
        """More bins came while the decoder was asked for than the loop can catch up with."""
        return sum(isinstance(item, ShadowBin) for item in self.late) > LATE_BINS

    def keep(self) -> None:
        """Hand nothing over: go on."""
        assert self.handing_over is not None
        self.handing_over.is_cancelled = True
        self.handing_over = None
        late, self.late = self.late, []
        for item in late:
            if isinstance(item, Ask):
                self.ask(item.run)
            else:
                self.put(item)

    def end(self) -> None:
        """End the thread after the item at hand; one that never comes back ends with the process."""
        self._working = None
        self._queue.put(None)

    def _run(self, first: RunningDecoder) -> None:
        step_back(Level.BESIDE)
        running: RunningDecoder | None = first
        told: list[Told] = []
        last = perf_counter()
        while running is not None and (entry := self._queue.get()) is not None:
            running = self._obey(running, entry[1], told)
            if told and (running is None or self._queue.empty() or perf_counter() - last > LONGEST_UNTOLD_S):
                self._tell(self, told)
                told, last = [], perf_counter()

    def _work(self) -> None:
        """In a replay: what waits, now."""
        told: list[Told] = []
        while self._working is not None and not self._queue.empty():
            entry = self._queue.get()
            self._working = None if entry is None else self._obey(self._working, entry[1], told)
        if told:
            self._tell(self, told)

    def _obey(self, running: RunningDecoder, item: Item, told: list[Told]) -> RunningDecoder | None:
        """Returns the decoder for the next item; None when it has been handed over."""
        match item:
            case HandOver(is_cancelled=True):
                return running
            case HandOver():
                told.append(Handed(item, running))
                return None
            case Replace():
                return item.running
        outcome = self.process(running, item)
        if outcome is not None:
            told.append(outcome)
        return running

    def process(self, running: RunningDecoder, item: Item) -> Answer | Fault | None:
        """By whoever owns the decoder at the time."""
        try:
            match item:
                case ShadowBin():
                    return self._answer(running, item)
                case Taught():
                    try:
                        running.learn(item)
                    finally:
                        self._taught += 1
                case Reset():
                    running.reset()
                case Ask():
                    item.run(running)
        except Fault as fault:
            return fault
        return None

    def _answer(self, running: RunningDecoder, item: ShadowBin) -> Answer:
        scores, reason, told, predict_ms, agrees = None, item.outcome.reason, None, None, None
        if reason is None:
            try:
                scores = running.predict(item.outcome.rates, item.number)
            except Fault as fault:
                reason, told = FAILED, self._guard.failed(str(fault))
            else:
                reason, predict_ms = scores.reason, running.predict_ms
                told = self._guard.answered(predict_ms)
                if scores.index is not None and item.active is not None:
                    agrees = scores.index == item.active
        outcome, time = item.outcome, item.time
        message = messages.prediction(self._session, running, scores, reason, outcome, time, item.rereference)
        return Answer(running, message, predict_ms, agrees, told)

    def count(self, answer: Answer) -> None:
        """Take an answer into the figures."""
        if answer.predict_ms is not None:
            answer.running.latency.add(answer.predict_ms)
        if answer.agrees is not None and answer.running is self.running:
            self.compared += 1
            self.agreed += answer.agrees

    def describe(self) -> dict[str, Any]:
        agreement = {"bins": self.compared, "agreed": self.agreed}
        behind = {"skipped": self.skipped, "unlearned": self.unlearned, "waiting": self.waiting}
        return self.running.describe() | behind | {"agreement": agreement}


def copied(outcome: Bin) -> Bin:
    """A bin whose rates stay as they are; its values are not for decoders."""
    nothing = np.empty(0, np.float32)
    return Bin(nothing, outcome.rates.copy() if outcome.reason is None else nothing, outcome.reason, outcome.gap)
