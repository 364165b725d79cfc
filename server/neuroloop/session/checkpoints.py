"""The checkpoints of a session: about one a second, and one as soon as something was asked for that must not be lost.

The loop takes a snapshot when it has answered a bin and waits for samples, so that no bin is later for it, and hands it
over; a thread of its own writes it. While that one is busy no other is taken, so a slow disk makes checkpoints older
and holds nothing up. What became of a label is acknowledged when it is in the label log, and an exchange of decoders,
encoders or weights when a checkpoint has it; a disk that takes nothing, or takes long, is told, and then neither waits
for it.

The writer is in real time, behind the loop: it holds the interpreter's lock for parts of a millisecond, but for tens of
them where other programs take the processor from it meanwhile.
"""

from __future__ import annotations

import json
import math
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Any

import structlog

from neuroloop.errors import ModelError, Unavailable
from neuroloop.session import checkpoint, label_log
from neuroloop.session.chain import Chain
from neuroloop.session.checkpoint import Tree
from neuroloop.session.inbox import Call
from neuroloop.session.label_log import LabelLog
from neuroloop.session.labels import Label
from neuroloop.session.priority import Level, step_back
from neuroloop.session.restoring import replay_labels, restore_chain, restore_loop, teach
from neuroloop.session.running import Taught
from neuroloop.session.snapshot import Known, Place, Snapshot
from neuroloop.session.streams import StreamDescription, from_plain

if TYPE_CHECKING:
    from neuroloop.session.inlet import SampleInlet
    from neuroloop.session.loop import Loop

log = structlog.get_logger(__name__)

EVERY_S = 1.0
LATE_S = 0.1  # that a snapshot waits for the next bin
SLOW_S = 3.0  # that an answer waits for the disk
END_S = 2.0  # the same, when the session ends

Done = Callable[[], None]


class Checkpoints:
    """Of one session; there are none until `begin`. All methods are called by the loop but `chain`.

    known: what snapshots have put together so far, for the next one.
    """

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._labels: LabelLog | None = None
        self._queue: SimpleQueue[tuple[Snapshot, int, float, list[Done]] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self.known = Known()
        self._is_busy = False
        self._has_failed = False
        self._due = 0.0
        self._seq = -1  # of the next bin when the loop last waited for samples
        self._written_until = math.inf  # by when those who wait for the checkpoint at hand are answered
        self._written: list[Done] = []  # them
        self._waiting: list[Done] = []
        self._found: Tree | None = None
        self._records: list[label_log.Record] = []
        self._lessons: list[Taught] = []
        self._is_given = False
        self._given: tuple[Chain, Place] | None = None
        self._newest: tuple[int, float] | None = None  # that was written: its bin, and when it was taken
        self._taken_ms = 0.0  # by the last snapshot, of the loop's time

    # A session that begins

    def begin(self, path: Path, goes_on: bool) -> None:
        """path: of the file. goes_on: in the place of one that ended; otherwise what that left is removed."""
        number, records = 0, list[label_log.Record]()
        path.parent.mkdir(parents=True, exist_ok=True)
        if goes_on:
            number, records = self._read(path)
        else:
            checkpoint.remove(path)
            _log_of(path).unlink(missing_ok=True)
        self._labels = LabelLog(_log_of(path), number, records)
        self._thread = threading.Thread(target=self._write, args=(path,), name="checkpoints", daemon=True)
        self._thread.start()

    @property
    def goes_on(self) -> bool:
        """Whether the session began with a checkpoint."""
        return self._found is not None

    @property
    def was_recording(self) -> bool | None:
        """Whether the process before was to record; None without one."""
        return None if self._found is None else bool(self._found["is_recording"])

    def found(self) -> dict[str, Any] | None:
        """What it began with, for a recording: the checkpoint as a file, and the labels that came after it."""
        if self._found is None:
            return None
        return {"content": b"".join(checkpoint.pack(self._found)), "labels": self._records}

    @property
    def _description(self) -> StreamDescription | None:
        """The stream that the checkpoint is of, until it is found."""
        tree = self._found
        if tree is None or self._is_given or "description" not in tree:
            return None
        return from_plain(json.loads(tree["description"]))

    def tell(self, inlet: SampleInlet) -> None:
        """Before it starts: which stream to look for, and its clock offset."""
        if self._found is not None and (known := self._description) is not None:
            inlet.expect(known, float(self._found["clock_offset"]))

    def _read(self, path: Path) -> tuple[int, list[label_log.Record]]:
        """The number of the last label that is known, and the records of those that the checkpoint lacks."""
        tree, refused = checkpoint.read(path)
        for why in refused:
            self._loop.event("checkpoint_refused", f"{why}; an older one is used, or none")
            path.unlink(missing_ok=True)  # or it would take the place of the one before
        if tree is None:
            self._loop.event("checkpoint_missing", "there is no checkpoint; decoders and weights start anew")
            return 0, []
        records = label_log.read(_log_of(path), tree["labels_number"])
        if not self.go_on(tree, records):
            return 0, []
        self._loop.event(
            "session_restored",
            f"from the checkpoint at bin {tree['seq']}, with {len(self._lessons)} labels that came after it",
            checkpoint_seq=tree["seq"],
            checkpoint_age_s=round(max(0.0, time.time() - tree["written"]), 3),
            labels=len(self._lessons),
        )
        return (records[-1]["number"] if records else int(tree["labels_number"])), records

    def go_on(self, tree: Tree, records: list[label_log.Record]) -> bool:
        """Begin with what is known, and with what became of labels after it; returns whether it fits the session."""
        try:
            restore_loop(self._loop, tree)
            self._lessons = replay_labels(self._loop, records)
        except (ModelError, KeyError, TypeError, ValueError) as error:
            self._refuse(f"checkpoint: does not fit the session: {error}")
            return False
        self._found, self._records = tree, records
        return True

    def _refuse(self, why: str) -> None:
        self._found, self._lessons = None, []
        self._loop.event("checkpoint_refused", f"{why}; decoders and weights start anew")

    def chain(self, make: Callable[[], Chain]) -> Chain:
        """In the acquire thread: one of `make`, for the stream that was found, with what the checkpoint knows of it."""
        chain, tree, known = make(), self._found, self._description
        if tree is None or known is None:
            return chain
        self._is_given = True
        if not chain.description.is_same_source(known):
            self._tell_in_loop("checkpoint: it is of another stream")
            return chain
        try:
            restore_chain(chain, tree)
            teach(chain, self._lessons)
        except ModelError as error:
            self._tell_in_loop(str(error))
            chain.end()
            return make()
        self._given = chain, Place(**tree["place"])
        return chain

    def _tell_in_loop(self, why: str) -> None:
        with suppress(Unavailable):
            self._loop.inbox.put(Call(lambda: self._refuse(why)))

    def rejoin(self, chain: Chain, start: int) -> bool:
        """Whether a chain goes on where the process before ended, with a hole from there to this sample."""
        given, self._given = self._given, None
        if given is None or given[0] is not chain or self._found is None:
            return False
        place, pipeline = given[1], chain.pipeline
        bins = self._loop.seq - place.seq  # those after the checkpoint were answered, too
        index, time = place.index + bins * pipeline.bin_samples, place.time + bins * pipeline.bin_s
        if not self._found["is_running"]:
            chain.cutter.rejoin(index, time)
            return False
        chain.rejoin(start, index, time, place.shift, place.followed)
        return True

    # Labels

    def learned(self, label: Label, lesson: Taught) -> None:
        """Decoders have learned a label."""
        rates = lesson.rates.astype("<f4").tobytes()
        self._note({"kind": "learned", "label": _plain(label), "rates": rates, "duration_s": lesson.duration_s})

    def refused(self, label: Label) -> None:
        self._note({"kind": "refused", "label": _plain(label)})

    def pending(self, label: Label) -> None:
        self._note({"kind": "pending", "label": _plain(label)})

    def _note(self, record: dict[str, Any]) -> None:
        if self._labels is not None:
            self._labels.put(record)

    def answer_label(self, reply: Future[Any], answer: Any) -> None:
        """As soon as what became of it is in the log."""
        if self._labels is None:
            reply.set_result(answer)
        else:
            self._labels.when_written(lambda: reply.set_result(answer))

    # Exchanges

    def answer(self, reply: Future[Any], answer: Any) -> None:
        """As soon as a checkpoint has all that was done until now."""
        self.hold(reply).set_result(answer)

    def hold(self, reply: Future[Any]) -> Future[Any]:
        """For a reply that is about to come: one that is passed on as soon as a checkpoint has all until now."""
        if self._thread is None:
            return reply
        kept: Future[None] = Future()
        answered: Future[Any] = Future()
        self.soon(lambda: kept.set_result(None))
        answered.add_done_callback(lambda _: kept.add_done_callback(lambda _: _pass_on(answered, reply)))
        return answered

    def soon(self, done: Done = lambda: None) -> None:
        """A checkpoint as soon as can be; `done` is called in any thread when it is there, or can't be."""
        if self._thread is None:
            done()
            return
        self._waiting.append(done)
        self._due = min(self._due, self._loop.clock())

    # From turn to turn

    def turn(self, now: float, more: bool, is_in_hole: bool) -> None:
        """Take a snapshot if one is due and the last one is written.

        more: samples wait for the loop. is_in_hole: bins of a hole are still to be answered.
        """
        has_answered = self._loop.seq > self._seq
        if not more:
            self._seq = self._loop.seq
        if now > self._written_until:
            self._written_until = math.inf
            self._tell_failure(f"the checkpoint has not been written for {SLOW_S:g} s")
            _call(self._written)
        if now < self._due or self._is_busy or self._thread is None or is_in_hole:
            return
        if now > self._due + LATE_S or (has_answered and not more):
            self._take(now)

    def _take(self, now: float) -> None:
        assert self._labels is not None
        began = time.perf_counter()
        snapshot = Snapshot(self._loop, self.known)
        self._written, self._waiting = self._waiting, []
        self._due, self._written_until, self._is_busy = now + EVERY_S, now + SLOW_S, True
        self._queue.put((snapshot, self._labels.number, now, self._written))
        self._taken_ms = 1000 * (time.perf_counter() - began)

    def describe(self) -> dict[str, Any] | None:
        """Of the newest that was written, for the status. taken_ms: by the last snapshot, of the loop's time."""
        if self._newest is None:
            return None
        seq, taken = self._newest
        return {"seq": seq, "age_s": round(self._loop.clock() - taken, 3), "taken_ms": round(self._taken_ms, 3)}

    def end(self) -> None:
        """The session ends: what it knows is written, if the disk takes it soon."""
        if self._thread is None or self._labels is None:
            return
        before = self._written
        self._take(self._due)
        self._queue.put(None)
        self._thread.join(END_S)
        self._labels.end(END_S)
        self._thread = None
        for left in (before, self._written, self._waiting):
            _call(left)

    # Beside the loop

    def _write(self, path: Path) -> None:
        step_back(Level.SESSION)
        before = 0  # number of the label that the checkpoint before had
        while (item := self._queue.get()) is not None:
            snapshot, number, taken, done = item
            try:
                tree = snapshot.tree() | {"labels_number": number, "written": time.time()}
                checkpoint.write(path, checkpoint.pack(tree))
            except (OSError, ModelError, ValueError, TypeError, KeyError) as error:
                self._tell_failure(f"the checkpoint can't be written: {type(error).__name__}: {error}")
            else:
                self._has_failed, self._newest = False, (tree["seq"], taken)
                assert self._labels is not None
                self._labels.drop(before)  # the others are needed if this one can't be read
                before = number
            self._written_until, self._is_busy = math.inf, False
            _call(done)
            self._loop.inbox.wake()

    def _tell_failure(self, why: str) -> None:
        """Once, until it is mended."""
        if not self._has_failed:
            self._has_failed = True
            with suppress(Unavailable):
                self._loop.inbox.put(Call(lambda: self._loop.event("checkpoint_failed", why)))


def _call(waiting: list[Done]) -> None:
    """Each once, whichever thread comes first."""
    with suppress(IndexError):
        while True:
            waiting.pop()()


def _pass_on(answered: Future[Any], reply: Future[Any]) -> None:
    error = answered.exception()
    with suppress(InvalidStateError):  # whoever asked has been told that the session ends
        if error is None:
            reply.set_result(answered.result())
        else:
            reply.set_exception(error)


def _plain(label: Label) -> list[Any]:
    return [label.label, label.index, label.start, label.end]


def _log_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.labels")
