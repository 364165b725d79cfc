"""A recorded session, run again: the same loop, with samples out of the file and a clock of its own.

What came from outside comes again at the place where it came: commands and labels between the same two blocks, weights
after the same block, a swap before the same bin. Shadows do without the bins that they were too slow for. So the
predictions are the same, to the bit, on the same kind of machine. The clock is that of the samples: a bin is answered
the moment its last sample is there.
"""

from __future__ import annotations

import gc
import json
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
from threadpoolctl import threadpool_limits

from neuroloop.config import SessionSettings, parse_session
from neuroloop.errors import ModelError, StreamError
from neuroloop.recording.recorded import Note, RecordedSession, RingSamples
from neuroloop.recording.replay_journal import ReplayJournal
from neuroloop.recording.replay_stimulus import ReplayStimulus
from neuroloop.recording.start import Start
from neuroloop.session.chain import Chain, make_chain
from neuroloop.session.checkpoint import Tree
from neuroloop.session.commands import HANDLERS
from neuroloop.session.decoders import handover
from neuroloop.session.inbox import Call, Command, Found, Inbox, MarkerLabel
from neuroloop.session.inlet import SampleInlet
from neuroloop.session.loop import Loop
from neuroloop.session.loop_state import WHOLE, restore
from neuroloop.session.streams import from_plain

PATIENCE_S = 120.0  # for what was done beside the loop
NO_BUDGET_MS = 1e9  # the live session's guard is replayed, and no second one acts

PROMOTE = "decoder_promote"

Take = Callable[[str, dict[str, Any]], None]


class Diverged(ModelError):
    """The replay cannot come to a place where the live session was."""


class _Inlet(SampleInlet):
    """Stands in for the thread that receives."""

    def start(self) -> None:
        self.state = "connected"

    def join(self, timeout: float | None = None) -> None:
        return


class _Inbox(Inbox):
    """Never waits, and keeps what the live loop took at a certain place until the replay is there."""

    def __init__(self) -> None:
        super().__init__()
        self._held: deque[Call] = deque()

    def put(self, item: Any) -> None:
        if isinstance(item, Call) and item.due is not None:
            self._held.append(item)
        else:
            super().put(item)

    def wait(self, timeout: float) -> None:
        return

    def take_held(self, due: str) -> Call:
        """The first of these, as soon as it is there. Raises Diverged where none comes."""
        held = self.held(due)
        self._held.remove(held)
        return held

    def held(self, due: str) -> Call:
        """The same, and it stays."""
        end = time.monotonic() + PATIENCE_S
        while True:
            for held in list(self._held):
                if held.due == due:
                    return held
            if time.monotonic() > end:
                raise Diverged(f"replay: {due!r} did not come within {PATIENCE_S:g} s")
            time.sleep(0.001)


class _Publisher:
    """Hands messages to whoever looks."""

    def __init__(self, take: Take) -> None:
        self.tap: Callable[[bytes, bytes], None] | None = None
        self._take = take

    def wants(self, _topic: bytes, /) -> bool:
        return False

    def __call__(self, topic: bytes, message: dict[str, Any], /) -> None:
        self._take(topic.decode(), message)


class Replay:
    """One run of a recorded session, from `start` on.

    take: gets the topic and the map of every message, as it is published.
    settings: other than the recorded ones. prepare: called with the chain of each stream, before its first sample.
    """

    def __init__(
        self,
        recorded: RecordedSession,
        start: Start,
        journal: ReplayJournal,
        take: Take,
        settings: SessionSettings | None = None,
        prepare: Callable[[Chain], None] = lambda chain: None,
    ) -> None:
        self.journal = journal
        self.samples = 0
        self._recorded = recorded
        self._start = start
        self._prepare = prepare
        self._session = playable(settings or parse_session(recorded.begun["settings"]), start.has_encoders)
        self._inbox = _Inbox()
        self._now = 0.0
        self._source: RingSamples | None = None
        self.loop = Loop(
            self._session,
            _Publisher(take),
            self._inbox,
            start.seq,
            journal=journal,
            make_inlet=_Inlet,
            make_stimulus=partial(ReplayStimulus, recorded, start.notes),
            clock=lambda: self._now,
        )
        if start.checkpoint is not None:
            self.loop.checkpoints.go_on(start.checkpoint, list(start.labels))

    def run(self, speed: float | None = None) -> None:
        """Until the last sample. speed: times real time; None: as fast as it goes. Raises ModelError."""
        # Weights that BLAS solves on several threads are not those of one, as in a session.
        with _collected_by_loop(), threadpool_limits(1):
            try:
                if self._start.is_running:
                    self.loop.start()
                if self._start.state is not None:
                    self._go_on(self._start.state)
                for _ in self._steps():
                    if speed is not None:
                        self._pace(speed)
                self._turn()  # the last answers of shadows
            finally:
                self.loop.close()
                if self._source is not None:
                    self._source.close()
                if isinstance(stimulus := self.loop.encoders.stimulus, ReplayStimulus):
                    stimulus.close()

    def _steps(self) -> Iterator[None]:
        """Run to the place of each note in turn, and do what it says; then to the end."""
        while (note := self.journal.next_between_turns()) is not None:
            yield from self._go_to(note)
            self._do(note)
            yield
        yield from self._run_to(None)

    def _go_to(self, note: Note) -> Iterator[None]:
        place = self.journal.place
        if not self.journal.is_exact:
            yield from self._run_to(note["given"])
            return
        while (place.steps, place.seq) != (note["steps"], note["seq"]):
            if place.steps > note["steps"] or place.seq > note["seq"]:
                raise Diverged(
                    f"replay: at bin {place.seq} it has passed the place of {note['kind']!r}, which came before bin "
                    f"{note['seq']}"
                )
            if not self._step(note["given"]):
                raise self._lacking(note)
            yield

    def _run_to(self, given: int | None) -> Iterator[None]:
        """Until everything up to this sample is answered."""
        while self._step(given):
            yield

    def _step(self, given: int | None) -> bool:
        """Let a bin's samples in, up to this count, and take a turn; returns whether anything came of it."""
        place = self.journal.place
        before = place.steps, place.seq
        fed = self._feed(given)
        self._turn()
        return fed > 0 or before != (place.steps, place.seq)

    def _lacking(self, note: Note) -> Diverged:
        at = 0 if self.loop.chain is None else self.loop.chain.ring.written
        return Diverged(
            f"replay: it ends at bin {self.journal.place.seq}, where the recording lacks samples from {at} on; "
            f"the next that is known is {note['kind']!r} before bin {note['seq']}"
        )

    def _do(self, note: Note) -> None:
        """At the place of a note: what it says."""
        to_come = self.journal.to_come
        if not any(one is note for one in to_come):
            return  # a turn has met it
        if to_come[0] is not note:
            raise Diverged(f"replay: no {to_come[0]['what']} is on its way before bin {to_come[0]['seq']}")
        if note["kind"] == "due":
            self._turn()
            if to_come and to_come[0] is note:
                raise Diverged(f"replay: no {note['what']} is on its way at bin {note['seq']}")
            return
        to_come.popleft()
        self._judge(note["given"])
        match note["kind"]:
            case "command" if note["name"] == PROMOTE:
                self._promote(note)
            case "command":
                self.loop.take(Command(note["name"], note["arguments"], Future()), HANDLERS)
            case "marker_label":
                self.loop.take(MarkerLabel(note["label"], note["start"], note["end"]), HANDLERS)
            case "call":
                held = self._inbox.take_held(note["due"])
                for earlier in self._inbox.take():  # a shadow's last answers come before its decoder
                    self.loop.take(earlier, HANDLERS)
                self.loop.take(held, HANDLERS)
            case "stream":
                self.loop.take(self._found(note), HANDLERS)
            case "overrun":
                self._overrun(note["written"])
            case "shed":
                self.loop.shedding.change(note["what"], note["is_shed"])

    def _promote(self, note: Note) -> None:
        """How fast a shadow is, and so whether it comes to its handover, is a thing of the live session's.

        One that did not, stays as it was.
        """
        name = note["arguments"].get("name")
        due = handover(str(name))
        for later in self.journal.to_come:
            if later.get("due") == due:
                self.loop.take(Command(PROMOTE, note["arguments"], Future()), HANDLERS)
                self._inbox.held(due)
                return
            if later.get("name") == PROMOTE and later["arguments"].get("name") == name:
                return

    def _judge(self, given: int) -> None:
        """The live loop, where it was behind, had looked at the timestamps of samples that it had not processed."""
        chain = self.loop.chain
        while chain is not None and self._feed(given):
            _, gaps = chain.timeline.follow(chain.ring.times, chain.ring.written)
            chain.cutter.add_gaps(gaps)

    def _turn(self) -> None:
        self.loop.turn(HANDLERS)

    def _found(self, note: Note) -> Found:
        """A stream, as it was found: with a chain of its own, or the one that there is."""
        loop = self.loop
        assert loop.inlet is not None
        if note["is_new"]:
            description = from_plain(note["description"])
            make = partial(make_chain, self._session, description, np.dtype(note["dtype"]))
            chain = loop.checkpoints.chain(make)
            self._prepare(chain)
            self._feed_from(note["ring"], chain)
            chain.ring.written = note["start"]
        else:
            assert loop.chain is not None
            chain = loop.chain
            if self._source is None:  # the session was stopped when the replay began
                self._feed_from(note["ring"], chain)
            if loop.finding.run_is_new:  # what came before and was not used, is forgotten
                chain.ring.written = note["start"]
        return Found(loop.inlet, chain, note["start"])

    def _feed_from(self, ring: int, chain: Chain) -> None:
        """The samples to come are those of this ring."""
        if self._source is not None:
            self._source.close()
        self._source = self._recorded.ring(ring)
        chain.timeline.expect(self.journal.clock_steps(ring))

    def _go_on(self, tree: Tree) -> None:
        """With the state of a session that was running; with other settings as after a restart, where it fits them."""
        loop, whole, note = self.loop, tree[WHOLE], self._start.note
        description, dtype = from_plain(json.loads(tree["description"])), np.dtype(whole["dtype"])
        make = partial(make_chain, self._session, description, dtype)
        chain = make()
        is_whole = self._start.is_whole and self._restore(chain, tree)
        if is_whole:
            self._prepare(chain)
        else:
            chain.end()
            loop.checkpoints.go_on(tree, [])
            chain = loop.checkpoints.chain(make)
            self._prepare(chain)
            chain.ring.written = whole["consumed"]
            loop.finding.adopt(chain, whole["consumed"])
        self.journal.place.given, self.journal.place.steps = note["given"], note["steps"]
        if self._start.is_running and not whole["run_is_new"]:
            self._feed_from(whole["ring"], chain)
            self._refill(chain, whole["times"] if is_whole else [])

    def _restore(self, chain: Chain, tree: Tree) -> bool:
        """Whether the state fits."""
        try:
            restore(self.loop, chain, tree)
        except ModelError:
            if self.journal.is_exact:
                raise
            return False
        return True

    def _refill(self, chain: Chain, times: Sequence[float]) -> None:
        """Samples that had been judged and were held back, with the timestamps that they got."""
        ring = chain.ring
        while self._feed(ring.consumed + len(times)):
            continue
        ring.times[np.arange(ring.consumed, ring.written) % ring.capacity] = times[: ring.written - ring.consumed]

    def _overrun(self, written: int) -> None:
        """The ring was full when so many samples were in it."""
        assert self.loop.chain is not None
        while self._feed(written):
            continue
        self.loop.chain.ring.is_overrun = True
        self._turn()

    def _feed(self, until: int | None) -> int:
        """Let a bin's samples in, as far as this count and as there is room; returns how many."""
        chain, source = self.loop.chain, self._source
        if chain is None or source is None:
            return 0
        ring = chain.ring
        slot, room = ring.room()
        start = ring.written
        stop = min(source.whole_until(start), start + min(room, chain.pipeline.bin_samples))
        if until is not None:
            stop = min(stop, until)
        count = stop - start
        if count <= 0:
            return 0
        times, values = source.read(start, stop)
        count = len(times)
        ring.samples[slot : slot + count] = values
        ring.times[slot : slot + count] = times
        self._now = float(times[-1]) + self.journal.clock_offset(0.0)
        ring.commit(count, self._now)
        self.samples += count
        return count

    def _pace(self, speed: float) -> None:
        if not hasattr(self, "_paced"):
            self._paced = time.monotonic(), self._now
        began, first = self._paced
        time.sleep(max(0.0, began + (self._now - first) / speed - time.monotonic()))


def playable(session: SessionSettings, has_encoders: bool) -> SessionSettings:
    """The same session without what a replay has no use for: outlets, markers, its own recording, or the stimulus."""
    decoders = [decoder.model_copy(update={"budget_ms": NO_BUDGET_MS}) for decoder in session.decoders]
    return session.model_copy(
        update={
            "outlets": session.outlets.model_copy(update={"enabled": False}),
            "recording": session.recording.model_copy(update={"automatic": False}),
            "markers": [],
            "stimulus": session.stimulus if has_encoders else None,
            "staleness": "hold" if session.staleness == "hold" else "catch_up",  # what was skipped is noted
            "decoders": decoders,
        }
    )


@contextmanager
def _collected_by_loop() -> Iterator[None]:
    """As in a session: the loop collects garbage once a second, between two bins."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    except StreamError as error:
        raise ModelError(str(error)) from error
    finally:
        if was_enabled:
            gc.enable()
