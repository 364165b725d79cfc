"""The thread that answers for the encoders: each bin as soon as the stimulus has passed its end, or after a while.

Bins and exchanges reach it through one queue, in their order, and the loop never waits for it. A queue that is full
loses its bins, not its exchanges. What comes of a bin goes back to the loop, which publishes it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from math import ceil, inf
from queue import Empty, SimpleQueue
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pylsl import local_clock

from neuroloop.config import EncoderSettings
from neuroloop.session.alignment import Alignment
from neuroloop.session.encoding import Encoding, Measured
from neuroloop.session.latency import Latency
from neuroloop.session.messages import BinTime
from neuroloop.session.priority import Level, step_back
from neuroloop.session.running_encoder import EncoderNeeds
from neuroloop.session.stimulus import Source, Stimulus

F32 = NDArray[np.float32]

QUEUE_LENGTH = 1024  # bins, or what comes while one waits for its frames twice over, whichever is more
IDLE_S = 0.1
LONGEST_UNTOLD_S = 0.02  # with more to do, it tells the loop no oftener: each time wakes it
WHOLE = 1e-3  # counts that are so close to a whole number are one


@dataclass(frozen=True, slots=True)
class Noted:
    """What a replay can't know: for the journal."""

    facts: dict[str, Any]


@dataclass(frozen=True, slots=True)
class EncoderBin:
    """A bin as the loop had it. rates: (channels,), spikes per second, a copy; None where they are not to be used.

    channels, bin_s: of the stream. given: LSL clock when the loop handed it over.
    """

    time: BinTime
    rates: F32 | None
    reason: str | None
    gap: bool
    channels: tuple[str, ...]
    bin_s: float
    given: float


Told = tuple[str, str, dict[str, Any]] | dict[str, Any] | Noted  # an event, a message, a note
Tell = Callable[[list[Told]], None]


class EncoderThread(threading.Thread):
    """`begin`, `put`, `run_between_bins` and `end` are for the loop; what is counted for anybody."""

    def __init__(self, session: str, settings: EncoderSettings, stimulus: Stimulus, tell: Tell, bin_ms: float) -> None:
        """tell: takes messages, events and notes, in their order; called in this thread."""
        super().__init__(name=f"{session}-encoders", daemon=True)
        self.encoding = Encoding(session, settings.online, lambda *event: self._told.append(event))
        self.skipped = 0  # bins that a full queue lost
        self.impatient = 0  # bins answered before the stimulus had passed them
        self.late_frames = 0
        self.latency = Latency(("late", "answer"))
        self._stimulus = stimulus
        stimulus.note = lambda **facts: self._told.append(Noted(facts))
        self.patience_s = stimulus.settings.patience_ms / 1000
        self._limit = max(QUEUE_LENGTH, ceil(2 * stimulus.settings.patience_ms / bin_ms))
        self._queue: SimpleQueue[EncoderBin | Callable[[], None] | None] = SimpleQueue()
        self._tell = tell
        self._told: list[Told] = []
        self._source: Source | None = None
        self._alignment: Alignment | None = None
        self._next_seq = 0
        self._is_late = False
        self._has_thread = True

    def begin(self, has_thread: bool) -> None:
        """has_thread: False in a replay, where who puts something in does the work as well."""
        self._has_thread = has_thread
        if has_thread:
            self.start()

    @property
    def waiting(self) -> int:
        """Items in the queue."""
        return self._queue.qsize()

    def put(self, bin: EncoderBin) -> list[int]:
        """Never waits. Returns the numbers of the bins that a full queue has lost, none if it is not full."""
        lost = self._drop_bins() if self._queue.qsize() >= self._limit else []
        self._give(bin)
        return lost

    def _give(self, item: EncoderBin | Callable[[], None]) -> None:
        self._queue.put(item)
        if not self._has_thread:
            self._work()

    def run_between_bins(self, run: Callable[[], None]) -> None:
        """Have the thread call a function after the bins that it has been given, before those to come."""
        self._give(run)

    def end(self) -> None:
        """End after the item at hand."""
        self._queue.put(None)

    def _drop_bins(self) -> list[int]:
        kept, lost = [], list[int]()
        try:
            while True:
                item = self._queue.get_nowait()
                if isinstance(item, EncoderBin):
                    lost.append(item.time.seq)
                else:
                    kept.append(item)
        except Empty:
            for item in kept:
                self._queue.put(item)
        self.skipped += len(lost)
        return lost

    def state_dict(self) -> dict[str, Any]:
        """In this thread, between two bins: all that its answers to the bins to come depend on; see `Encoding`."""
        return {
            "next_seq": self._next_seq,
            "is_late": self._is_late,
            "alignment": None if self._alignment is None else self._alignment.state_dict(),
            "stimulus": self._stimulus.state_dict(),
            "encoding": self.encoding.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Before the first bin, in this thread. Raises ModelError."""
        self._next_seq, self._is_late = state["next_seq"], state["is_late"]
        self.encoding.load_state_dict(state["encoding"])
        used = self._stimulus.load_state_dict(state["stimulus"])
        if used is not None and self.encoding.needs is not None:
            self._source, self._alignment = used, self._stimulus.align(used, self.encoding.needs.bin_s)
            self._alignment.load_state_dict(state["alignment"])

    def run(self) -> None:
        step_back(Level.BESIDE)
        last = perf_counter()
        while True:
            try:
                item = self._queue.get(timeout=IDLE_S)
            except Empty:
                self._stimulus.let_go()
                continue
            if item is None:
                return
            self._obey(item)
            if self._told and (self._queue.empty() or perf_counter() - last > LONGEST_UNTOLD_S):
                told, self._told = self._told, []
                self._tell(told)
                last = perf_counter()

    def _work(self) -> None:
        """In a replay: what waits, now."""
        while not self._queue.empty() and (item := self._queue.get()) is not None:
            self._obey(item)
        told, self._told = self._told, []
        if told:
            self._tell(told)

    def _obey(self, item: EncoderBin | Callable[[], None]) -> None:
        if isinstance(item, EncoderBin):
            self._answer(item)
        else:
            item()

    def _answer(self, item: EncoderBin) -> None:
        source = self._stimulus.begin(item.time.seq)
        frame, frames, follows = None, 0, False
        if source is not None:
            alignment = self._aligned(source, item)
            alignment.begin(item.time.end)
            self._wait(source, alignment, item)
            frame, frames = alignment.finish(), alignment.frames
            follows = alignment.follows and item.time.seq == self._next_seq
            self._note_late_frames(alignment)
        self._next_seq = item.time.seq + 1
        late_ms = round(1000 * (local_clock() - item.given), 3)
        counts = None if item.rates is None else spikes(item.rates, item.bin_s)
        bin = Measured(item.time, frame, counts, item.reason, item.gap, follows, frames, late_ms)
        self._told += self.encoding.answer(bin)
        self.latency.add(late_ms, 1000 * (local_clock() - item.given))

    def _note_late_frames(self, alignment: Alignment) -> None:
        """Told once when it changes, not for every bin."""
        self.late_frames = alignment.late_frames
        is_late = alignment.late_since < inf
        if is_late:
            self.encoding.distrust(alignment.late_since)
        if is_late and not self._is_late:
            detail = (
                f"frames of the stimulus come later than stimulus.patience_ms, {1000 * self.patience_s:g} ms: "
                "their bins were answered with older ones, and no fit learns from them"
            )
            self._told.append(("stimulus_late", detail, {"late_frames": self.late_frames}))
            self._is_late = True
        elif self._is_late and alignment.is_passed and not is_late:
            facts = {"late_frames": self.late_frames}
            self._told.append(("stimulus_in_time", "frames of the stimulus come in time again", facts))
            self._is_late = False

    def _aligned(self, source: Source, item: EncoderBin) -> Alignment:
        """The alignment, made anew where either stream is another than before."""
        needs = EncoderNeeds(item.channels, source.pixels, item.bin_s)
        if self._alignment is None or source is not self._source or needs != self.encoding.needs:
            self._source, self._alignment = source, self._stimulus.align(source, item.bin_s)
            self.encoding.attach(needs)
        return self._alignment

    def _wait(self, source: Source, alignment: Alignment, item: EncoderBin) -> None:
        """Until the stimulus has passed the bin, or the patience is over."""
        while not self._stimulus.take(source, alignment):
            left = item.given + self.patience_s - local_clock()
            if left <= 0:
                self.impatient += 1
                self._stimulus.give_up(source)
                return
            self._stimulus.wait(left)


def spikes(rates: F32, bin_s: float) -> F32:
    """The counts that rates, (channels,) per second, of a bin stand for: whole where they are but for rounding."""
    counts = rates * np.float32(bin_s)
    whole = np.rint(counts)
    return np.asarray(np.where(np.abs(counts - whole) < WHOLE, whole, counts), np.float32)
