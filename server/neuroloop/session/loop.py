"""The real-time loop of one session: takes blocks as they become complete, and answers for every bin.

The loop thread owns all state of the session. Other threads reach it through the inbox only: acquire threads with what
they saw, the command thread with what somebody asked. It never waits for any of them.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from math import nan
from pathlib import Path
from typing import Any

from pylsl import local_clock

from neuroloop.config import SessionSettings
from neuroloop.errors import Conflict, Unavailable
from neuroloop.pipeline import Bin
from neuroloop.session import messages
from neuroloop.session.blocks import Block, Hole
from neuroloop.session.chain import Chain
from neuroloop.session.checkpoints import Checkpoints
from neuroloop.session.encoders import Encoders
from neuroloop.session.figures import Figures
from neuroloop.session.finding import Finding
from neuroloop.session.inbox import Call, Command, Crash, End, Found, Inbox, MarkerLabel, Notice, request_behind
from neuroloop.session.inlet import MarkerInlet, SampleInlet
from neuroloop.session.journal import Journal
from neuroloop.session.labels import Labels
from neuroloop.session.markers import marker_inlets
from neuroloop.session.messages import BinTime, Health
from neuroloop.session.priority import Place
from neuroloop.session.publish import Publish
from neuroloop.session.recordings import Recordings
from neuroloop.session.sender_clock import step_event
from neuroloop.session.shedding import Shedding
from neuroloop.session.signals import Signals
from neuroloop.session.staleness import Staleness
from neuroloop.session.stimulus import Stimulus
from neuroloop.session.swaps import Swaps
from neuroloop.session.teaching import Teaching
from neuroloop.session.telling import Telling

LONGEST_WAIT_S = 0.25
HOLE_BINS = 256  # of a hole, answered at once: an hour's hole keeps nobody waiting


class Loop:
    """One session. `run` is the loop thread; everything else is called by it."""

    def __init__(
        self,
        session: SessionSettings,
        publish: Publish,
        inbox: Inbox,
        seq: int = 0,
        *,
        journal: Journal | None = None,
        make_inlet: Callable[..., SampleInlet] = SampleInlet,
        make_stimulus: Callable[..., Stimulus] = Stimulus,
        clock: Callable[[], float] = local_clock,
        recordings: Path | None = None,
    ) -> None:
        """seq: of the first bin; other than 0 where this process goes on in the place of one that was lost.

        journal, make_inlet, make_stimulus, clock: others than these in a replay. recordings: the folder for them.
        """
        self.session = session
        self.inbox = inbox
        self.clock = clock
        self.journal = Journal() if journal is None else journal
        self.journal.place.seq = seq
        self.health = Health()
        self.inlet: SampleInlet | None = None
        self.chain: Chain | None = None
        self.labels = Labels(tuple(session.classes), session.window * session.bin_ms / 1000)
        self._publish = publish
        self._make_inlet = make_inlet
        self.markers: list[MarkerInlet] = []
        self._ending = False
        self.bin_missing = self.bin_nonfinite = 0
        self.hole: Hole | None = None
        self._second = clock() + 1.0
        self._place = Place()
        self.figures = Figures(self)
        self.telling = Telling(self, publish)
        self.event = self.telling.event
        self.staleness = Staleness(session, self.journal)
        self.shedding = Shedding(self)
        self.signals = Signals(self, publish)
        self.swaps = Swaps(self)
        self.encoders = Encoders(self, publish, make_stimulus)
        self.teaching = Teaching(self)
        self.recordings = Recordings(self, publish, recordings)
        self.checkpoints = Checkpoints(self)
        self.finding = Finding(self, publish)

    def run(self, handle: dict[str, Any]) -> None:
        """Until told to end. handle: command name -> function of (loop, command) that answers it."""
        try:
            self.recordings.begin()
            if self.session.autostart:
                self.start()
            while not self._ending:
                self.turn(handle)
            if self.inlet is not None:
                self.stop()
        finally:
            self.close()

    def close(self) -> None:
        """End what runs beside the loop; whoever waits is told."""
        self.checkpoints.end()
        self.swaps.end()
        self.encoders.end()
        self.recordings.end()
        if self.chain is not None:
            self.chain.end()
        for message in self.inbox.close():
            if isinstance(message, Command):
                message.reply.set_exception(Unavailable(f"session {self.session.name!r} is ending"))

    def turn(self, handle: dict[str, Any]) -> None:
        """Take messages and samples, at most to the end of a bin; wait where there are none."""
        chain = self.chain
        written = chain.ring.written if chain is not None else 0
        for message in self.inbox.take():
            self.take(message, handle)
        more = chain is self.chain and chain is not None and self._advance(chain, written)
        now = self.clock()
        if now >= self._second:
            self._every_second(now)
        self.swaps.receipts.expire(now)
        self.checkpoints.turn(now, more, self.hole is not None)
        self.recordings.turn(now, more)
        if more:
            self._place.has_more(now)
            return
        self._place.waits()
        if self.chain is not None and self.chain.rereferencing is not None:
            self.telling.events(self.chain.rereferencing.finish_jobs(self.seq))  # those that no block waits for
        self.inbox.wait(max(0.0, min(LONGEST_WAIT_S, self._second - now)))
        self.figures.waited(self.clock() - now)

    def take(self, message: Any, handle: dict[str, Any]) -> None:
        """What came through the inbox, between two steps."""
        match message:
            case Command(name, arguments, reply):
                self.journal.command(name, arguments)
                self.telling.request_id = request_behind(reply)
                self.telling.command(name)
                message.answer(lambda: handle[name](self, message))
                self.telling.request_id = None
            case MarkerLabel(label, start, end):
                self.journal.note("marker_label", label=label, start=start, end=end)
                self.teaching.take_marker(label, start, end)
            case Notice(inlet, event) if inlet is None or inlet is self.inlet:
                if inlet is not None:
                    self.health.detail = event.detail
                self.event(event.kind, event.detail)
            case Found(inlet, chain, first) if inlet is self.inlet:
                self.journal.stream(chain.ring, chain.description, first, chain is not self.chain)
                self.finding.adopt(chain, first)
            case Call(run, due):
                if due is not None:
                    self.journal.note("call", due=due)
                run()
                self.telling.of_decoders()
            case Crash(detail):
                raise RuntimeError(f"a thread of session {self.session.name!r} ended by an error\n{detail}")
            case End():
                self._ending = True

    @property
    def seq(self) -> int:
        """Number of the next bin."""
        return self.journal.place.seq

    # Start and stop

    def start(self) -> None:
        """Look for the stream, and run when it is there."""
        if self.inlet is not None:
            raise Conflict(f"session {self.session.name!r} is running already")
        self.finding.run_is_new = True
        inlet: SampleInlet = self._make_inlet(
            self.session.name,
            self.session.stream,
            prepare=lambda description, dtype: self.finding.prepare(inlet, description, dtype),
            notify=lambda event: self.inbox.put(Notice(inlet, event)),
            wake=self.inbox.wake,
        )
        self.checkpoints.tell(inlet)
        self.inlet = inlet
        self.markers = marker_inlets(self.session, self.inbox)
        self.health.state, self.health.detail = "running", "looking for the stream"
        for thread in (inlet, *self.markers):
            thread.start()
        self.encoders.start()
        self.event("session_started", "looking for the stream")

    def stop(self) -> None:
        """Let go of the stream. What was learned, and the weights, stay."""
        if self.inlet is None:
            raise Conflict(f"session {self.session.name!r} is stopped already")
        for marker in self.markers:
            marker.end()
        self.inlet.end()
        self.inlet.join(1.0)
        self.inlet, self.markers = None, []
        if self.chain is not None and self.chain.rereferencing is not None:
            self.chain.rereferencing.abandon_fit()
        self.health.state, self.health.detail = "stopped", ""
        self.teaching.stop()
        self.swaps.stop()
        self.encoders.stop()
        self.event("session_stopped", "stopped")

    # Samples

    def _advance(self, chain: Chain, written: int) -> bool:
        """Process the samples up to this count, at most to the end of a bin. Returns whether there may be more."""
        ring, cutter = chain.ring, chain.cutter
        if self.hole is not None:
            self._answer_hole(chain, self.hole)
            return True
        if ring.is_overrun:
            self.journal.note("overrun", written=written)
        arrived = chain.clock.arrived(ring.arrivals[-1][1]) if ring.arrivals else nan
        released, gaps = chain.timeline.follow(ring.times, written, self.journal.arrived(arrived))
        self.journal.place.given = written
        for step in chain.timeline.take_steps():
            self.journal.clock_step(ring, step)
            name, detail, facts = step_event(step, chain.timeline.shift)
            self.event(name, detail, **facts)
            self.checkpoints.soon()
        if gaps:
            cutter.add_gaps(gaps)
            self.figures.surplus(-sum(min(0, missing) for _, missing in gaps))
            if self.clock() < ring.overrun_until:
                self._lose(sum(max(0, missing) for _, missing in gaps), False)
        if ring.is_overrun:
            self._lose(released - ring.consumed, self.staleness.skips)
            cutter.skip(ring.consumed, released)
            ring.consumed, ring.is_overrun = released, False
        while True:
            piece = cutter.cut(ring.samples, ring.times, ring.consumed, released)
            if isinstance(piece, int):
                ring.consumed = piece
                ring.wanted = piece + cutter.lacking
                return False
            if isinstance(piece, Hole):
                self.hole = piece
                self.journal.place.steps += 1
                self._count_gap(piece.bins * chain.pipeline.bin_samples, self.seq, piece.bins)
                return True
            ring.consumed = piece.consumed
            if self._block(chain, piece):
                ring.wanted = piece.consumed + cutter.lacking
                return True

    def _block(self, chain: Chain, block: Block) -> bool:
        """Process a block; returns whether it completed a bin."""
        pipeline = chain.pipeline
        self.bin_missing += block.missing
        self.bin_nonfinite += block.nonfinite
        pipeline.step(block.samples, block.missing == 0 and block.nonfinite == 0)
        self.signals.block(block, pipeline)
        self.health.tally.blocks += 1
        self.journal.place.steps += 1
        last = (block.index + pipeline.block_samples) % pipeline.bin_samples == 0
        if last:
            self._finish_bin(chain, block)
        pipeline.accumulate()
        if chain.rereferencing is not None:
            self.telling.events(chain.rereferencing.after_block(self.seq))
        return last

    def _finish_bin(self, chain: Chain, block: Block) -> None:
        pipeline = chain.pipeline
        outcome = pipeline.finish_bin()
        end = block.end_time + self._clock_offset(chain)
        newest = end - 1.0 / pipeline.nominal_srate
        arrival = chain.ring.arrival_after(block.consumed, block.missing > 0)
        first = block.index + pipeline.block_samples - pipeline.bin_samples
        now = self.clock()
        ages = (round(1000 * age_s, 3) for age_s in (now - newest, arrival - newest, now - arrival))
        time = BinTime(self.seq, first, first + pipeline.bin_samples - 1, end, *ages)
        if (stale := self.staleness.bin(self.seq, 1000 * (now - arrival))) is not None:
            name, detail, facts = stale
            self.event(name, detail, **facts)
        self._answer_bin(chain, outcome, time)
        chain.ring.is_overrun |= self.staleness.skips
        process_ms = 1000 * (self.clock() - arrival)
        chain.clock.bin(time.last, newest, arrival)
        self.figures.bin(1000 * (arrival - newest), process_ms, 1000 * (now - newest))
        self.swaps.after_bin(process_ms)
        if self.bin_missing:
            self._count_gap(self.bin_missing, time.seq)
        if self.bin_nonfinite:
            self.health.tally.nonfinite_samples += self.bin_nonfinite
        self.bin_missing = self.bin_nonfinite = 0
        self.teaching.complete(chain)

    def _answer_hole(self, chain: Chain, hole: Hole) -> None:
        """Answer for the next bins of which no sample came."""
        pipeline, bins = chain.pipeline, min(hole.bins, HOLE_BINS)
        for _ in range(bins):
            first, hole.index = hole.index, hole.index + pipeline.bin_samples
            hole.start_time += pipeline.bin_s
            end = hole.start_time + self._clock_offset(chain)
            age_ms = round(1000 * (self.clock() - end), 3)
            self._answer_bin(chain, pipeline.missing_bin(), BinTime(self.seq, first, hole.index - 1, end, age_ms))
        hole.bins -= bins
        if hole.bins == 0:
            self.hole = None
            chain.reset()
        self.teaching.complete(chain)

    def _answer_bin(self, chain: Chain, outcome: Bin, time: BinTime) -> None:
        """Publish the active decoder's answer; then the rates, the LSL outlets, the history, the shadows."""
        name = self.session.name
        version = None if chain.rereferencing is None else chain.rereferencing.weights.version
        answer = self.staleness.withhold(*chain.decoders.answer(outcome, self.seq))
        message = messages.prediction(name, chain.decoders.active, *answer, outcome, time, version)
        self._publish(b"predictions", message)
        self._publish(b"rates", messages.rates(name, outcome, time))
        if chain.outlets is not None:
            decoder = chain.decoders.active.decoder
            continuous = getattr(decoder, "continuous", False)
            chain.outlets.push(time.end, message["scores"], message["label"], continuous)
        chain.history.add(self.seq, time.end, outcome.values, outcome.reason is None)
        if self.shedding.leaves_out("shadows"):
            chain.decoders.skip()
        else:
            chain.decoders.show(outcome, self.seq, time, version, message["index"])
        if self.shedding.leaves_out("encoders"):
            self.encoders.skip()
        else:
            self.encoders.show(outcome, time)
        self.signals.bin(time, outcome.gap)
        self.telling.of_decoders()
        self.journal.place.seq += 1
        self.health.tally.bins += 1

    def _count_gap(self, missing: int, seq: int, bins: int = 1) -> None:
        self.health.tally.gaps += 1
        self.health.tally.missing_samples += missing
        self.event("gap", f"{missing} samples are missing", missing_samples=missing, first_seq=seq, bins=bins)

    def _lose(self, samples: int, is_stale: bool) -> None:
        self.swaps.receipts.lost(samples)
        self.figures.lost(samples, is_stale)

    def _clock_offset(self, chain: Chain) -> float:
        measured = 0.0 if self.inlet is None else self.inlet.clock_offset
        return self.journal.clock_offset(chain.clock.offset.update(measured, chain.timeline.shift))

    def _every_second(self, now: float) -> None:
        self._second = max(self._second + 1.0, now)
        for name, detail, facts in (*self.figures.second(), *self.recordings.second()):
            self.event(name, detail, **facts)
        self.telling.status()
        gc.collect(1)
