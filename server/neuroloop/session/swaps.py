"""Swaps: a decoder is loaded beside the loop and exchanged between two bins; whoever asked gets a receipt.

What the new decoder knows of what was before is up to the caller:

- `cold`: its weights, and nothing else.
- `carry`: its weights, and the labels that came since the decoder in its place was loaded: it learns them too, in their
  order. An online decoder keeps what this session taught, whatever weights it stands on.
- `reprime`: its weights; it is shown the last bins before it answers, so that a decoder with a memory has filled it.

In each case the rate window and the history go on: they belong to the session. While a decoder learns or sees the past,
more comes; it is given that too, in rounds beside the loop until so little is left that the loop can do it itself.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import Conflict, NeuroloopError, Unavailable
from neuroloop.session.decoders import Decoders, named
from neuroloop.session.inbox import Call, request_behind
from neuroloop.session.loading import LoadRequest, build
from neuroloop.session.priority import Level, step_back
from neuroloop.session.receipts import Receipts
from neuroloop.session.recent import LESSONS
from neuroloop.session.running import Fault, RunningDecoder, Taught
from neuroloop.session.shadow import LATE_BINS, Shadow

if TYPE_CHECKING:
    from neuroloop.session.loop import Loop

ROUNDS = 5


@dataclass
class Job:
    """A decoder on its way. lessons, bins: what it is to be given next; the numbers: how far it then has come."""

    request: LoadRequest
    name: str
    decoders: Decoders
    reply: Future[Any]
    lessons: list[Taught] = field(default_factory=list)
    bins: NDArray[np.float32] | tuple[()] = ()
    lessons_from: int = 0
    lessons_to: int = 0
    bins_to: int = 0
    rounds: int = 0
    running: RunningDecoder | None = None


class Swaps:
    """The exchanges of one session's decoders. All methods are called by the loop but `_prepare`."""

    def __init__(self, loop: Loop) -> None:
        self.receipts = Receipts()
        self._loop = loop
        self._loader = ThreadPoolExecutor(1, "decoder-loader", step_back, (Level.BESIDE,))
        self._jobs: list[Job] = []
        self._promotions: dict[str, Future[Any]] = {}

    @property
    def is_promoting(self) -> bool:
        """Whether a shadow is on its way to become the active decoder."""
        return bool(self._promotions)

    @property
    def is_busy(self) -> bool:
        """Whether a decoder is on its way."""
        return self.is_promoting or bool(self._jobs)

    def load(self, request: LoadRequest, reply: Future[Any]) -> None:
        """Begin; `reply` gets the receipt, or the error. Raises Conflict."""
        decoders = self._decoders()
        name = request.name or (decoders.active.name if request.role == "active" else request.model.name)
        if request.role == "shadow":
            decoders.check_room(name)
        elif name in decoders.shadows:
            raise Conflict(f"decoder {name!r} is a shadow; promote it, or give the active one another name ('decoder')")
        job = Job(request, name, decoders, reply, lessons_from=decoders.lessons.added, bins_to=decoders.bins.added)
        if request.how.state == "carry":
            job.lessons_from = self._carried_from(decoders, job)
            job.lessons_to = job.lessons_from
        elif request.how.state == "reprime":
            job.bins_to -= request.how.reprime_bins
        self._jobs.append(job)
        self._submit(job)

    @staticmethod
    def _carried_from(decoders: Decoders, job: Job) -> int:
        place = decoders.active
        if job.request.role == "shadow" and job.name in decoders.shadows:
            place = decoders.shadows[job.name].running
        if place.lessons_from < decoders.lessons.first:
            came = decoders.lessons.added - place.lessons_from
            raise Conflict(
                f"decoder {place.name!r}: {came} labels came since it was loaded and the last {LESSONS} are kept, "
                "so they cannot be carried; use state cold or reprime"
            )
        return place.lessons_from

    def _submit(self, job: Job) -> None:
        """One round beside the loop, with what has come since the last."""
        job.rounds += 1
        self._collect(job)
        self._loader.submit(self._prepare, job).add_done_callback(partial(self._report, job))

    def _report(self, job: Job, round: Future[None]) -> None:
        """In the loader's thread."""
        with suppress(Unavailable):  # the session has ended, and told whoever waits
            self._loop.inbox.put(Call(partial(self._finish, job, round), due="decoder loaded"))

    @staticmethod
    def _collect(job: Job) -> None:
        if job.request.how.state == "carry":
            job.lessons = job.decoders.lessons.since(job.lessons_to)
            job.lessons_to = job.decoders.lessons.added
        elif job.request.how.state == "reprime":
            job.bins = job.decoders.bins.since(job.bins_to)
            job.bins_to = job.decoders.bins.added

    def _prepare(self, job: Job) -> None:
        """In the loader's thread. Raises ModelError, Conflict."""
        if job.running is None:
            job.running = build(job.request, job.decoders.needs, job.name)
        self._catch_up(job, job.running)

    @staticmethod
    def _catch_up(job: Job, running: RunningDecoder) -> None:
        """Raises Conflict."""
        try:
            if job.lessons:
                running.learn(*job.lessons)
            running.replay(job.bins)
        except Fault as fault:
            why = f"{fault} with the session's own labels or bins, so {job.request.how.state} is not possible; try cold"
            raise Conflict(f"decoder {job.name!r}: {why}") from fault

    def _finish(self, job: Job, round: Future[None]) -> None:
        """A round is done: another, or the exchange."""
        if job not in self._jobs:
            return  # the session has ended
        try:
            round.result()
            assert job.running is not None
            if job.decoders is not self._decoders():
                raise Conflict(f"decoder {job.name!r}: the stream changed while it was loaded; load it again")
            if self._behind(job) > LATE_BINS:
                if job.rounds == ROUNDS:
                    raise Conflict(f"decoder {job.name!r}: it sees the past slower than bins come; use state cold")
                self._submit(job)
                return
            self._collect(job)
            self._catch_up(job, job.running)
            self._exchange(job, job.running)
        except NeuroloopError as refused:
            job.reply.set_exception(refused)
        self._jobs.remove(job)

    @staticmethod
    def _behind(job: Job) -> int:
        match job.request.how.state:
            case "carry":
                return job.decoders.lessons.added - job.lessons_to
            case "reprime":
                return job.decoders.bins.added - job.bins_to
        return 0

    def _exchange(self, job: Job, running: RunningDecoder) -> None:
        decoders = job.decoders
        if job.request.role == "shadow":
            decoders.check_room(job.name)
        elif job.name in decoders.shadows:
            raise Conflict(f"decoder {job.name!r} has become a shadow meanwhile")
        running.lessons_from = job.lessons_from if job.request.how.state == "carry" else decoders.lessons.added
        self._done("load", decoders.swap(running), running, job.reply)

    def rollback(self, reply: Future[Any]) -> None:
        """To what was active before. Raises Conflict."""
        decoders = self._decoders()
        self._done("rollback", decoders.rollback(), decoders.active, reply)

    def promote(self, name: str, reply: Future[Any]) -> None:
        """Make a shadow the active decoder as soon as it has seen every bin. Raises NotFound, Conflict."""
        decoders = self._decoders()
        shadow = decoders.shadow(name)
        if self._loop.shedding.leaves_out("shadows"):
            raise Conflict(f"shadow {name!r} gets no bins while the session is overloaded; promote it when it does")
        if shadow.waiting > LATE_BINS:
            raise Conflict(f"shadow {name!r} is {shadow.waiting} bins behind; promote it when it keeps up with them")

        def done(shadow: Shadow, running: RunningDecoder) -> None:
            del self._promotions[name]
            self._done("promote", decoders.take_promoted(shadow, running), running, reply)

        self._promotions[name] = reply
        shadow.hand_over(done)

    def remove(self, name: str) -> RunningDecoder:
        """Let a shadow go. Raises NotFound, Conflict."""
        removed = self._decoders().remove(name)
        self._loop.checkpoints.soon()
        return removed

    def after_bin(self, process_ms: float) -> None:
        """A bin was answered so long after its last sample had arrived."""
        self.receipts.bin(process_ms)
        for name in list(self._promotions):
            shadow = self._decoders().shadows.get(name)
            if shadow is None or shadow.handing_over is None or shadow.is_too_late():
                self._give_up(name, f"shadow {name!r} fell behind; promote it when it keeps up with the bins")

    def _give_up(self, name: str, why: str) -> None:
        shadow, reply = self._decoders().shadows.get(name), self._promotions.pop(name)
        if shadow is not None and shadow.handing_over is not None:
            shadow.keep()
        reply.set_exception(Conflict(why))

    def stop(self) -> None:
        """No bins will come: whoever waits for some is told."""
        self.receipts.close()

    def end(self) -> None:
        """The session ends."""
        self._loader.shutdown(wait=False, cancel_futures=True)
        for job in self._jobs:
            job.reply.set_exception(Conflict("the session ended before the decoder was loaded"))
        self._jobs = []
        for name in list(self._promotions):
            self._give_up(name, "the session ended before the shadow was promoted")
        self.receipts.close()

    def _decoders(self) -> Decoders:
        chain = self._loop.chain
        if chain is None:
            name = self._loop.session.name
            raise Conflict(
                f"session {name!r}: the stream has not been found yet, so nothing says what decoders must fit"
            )
        return chain.decoders

    def _done(self, by: str, before: RunningDecoder | None, now: RunningDecoder, reply: Future[Any]) -> None:
        loop = self._loop
        previous = None if before is None else before.identity()
        facts = {
            "bin": loop.seq,
            "decoder": now.name,
            "role": now.role,
            "previous": previous,
            "current": now.identity(),
        }
        detail = f"{now.role} decoder {now.name!r}: {named(now)} from bin {loop.seq} on ({by})"
        loop.health.tally.swaps += 1
        loop.event("decoder_swapped", detail, request_behind(reply), by=by, **facts)
        assert loop.chain is not None
        self.receipts.open(facts, loop.checkpoints.hold(reply), loop.clock(), loop.chain.pipeline.bin_samples)
        if loop.inlet is None:
            self.receipts.close()
