"""The encoders of a session, as the loop sees them: it hands bins over, and asks for exchanges.

Encoders answer in a thread of their own (`encoder_thread`), which the loop never waits for. A version of the registry
is loaded and asked once beside both, and exchanged between two bins of that thread.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from pylsl import local_clock

from neuroloop.errors import Conflict, ModelError, NeuroloopError, Unavailable
from neuroloop.pipeline import Bin
from neuroloop.session.alignment import compile_for_every_format
from neuroloop.session.encoder_data import page
from neuroloop.session.encoder_loading import EncoderRequest, build, compile_encoders
from neuroloop.session.encoder_thread import EncoderBin, EncoderThread, Noted, Told
from neuroloop.session.frame_history import FrameHistory
from neuroloop.session.inbox import Call, Notice, request_behind
from neuroloop.session.kept_encoders import Kept, given_back, kept
from neuroloop.session.messages import BinTime
from neuroloop.session.priority import Level, step_back
from neuroloop.session.publish import Publish
from neuroloop.session.running_encoder import EncoderNeeds, RunningEncoder, named
from neuroloop.session.stimulus import Stimulus

if TYPE_CHECKING:
    from neuroloop.session.loop import Loop

LOADED = "encoder loaded"
KEEP_S = 1.0  # for the encoders' thread to come to the question

Exchange = Callable[[], tuple[RunningEncoder | None, RunningEncoder]]


class Encoders:
    """Of one session; without a stimulus in its configuration, there can be none. Called by the loop, unless noted."""

    def __init__(self, loop: Loop, publish: Publish, make_stimulus: Callable[..., Stimulus]) -> None:
        self._loop = loop
        self._publish = publish
        self.stimulus: Stimulus | None = None
        self._thread: EncoderThread | None = None
        self._loader: ThreadPoolExecutor | None = None
        self._replies: set[Future[Any]] = set()
        self._kept: Kept = {}
        self._loading = 0
        session = loop.session
        if session.stimulus is None:
            return
        compile_for_every_format()
        compile_encoders()
        self._loader = ThreadPoolExecutor(1, "encoder-loader", step_back, (Level.BESIDE,))
        self.stimulus = make_stimulus(session.name, session.stimulus, lambda event: loop.inbox.put(Notice(None, event)))
        self._thread = EncoderThread(session.name, session.encoder, self.stimulus, self._report, session.bin_ms)
        self._thread.begin(loop.journal.has_threads)

    def start(self) -> None:
        """Look for the stimulus."""
        if self.stimulus is not None:
            self.stimulus.start()

    def stop(self) -> None:
        """Let go of the stimulus; the encoders stay."""
        if self.stimulus is not None:
            self.stimulus.stop()

    def end(self) -> None:
        """The session ends."""
        self.stop()
        if self._thread is not None and self._loader is not None:
            self._thread.end()
            self._loader.shutdown(wait=False, cancel_futures=True)
        for reply in list(self._replies):
            self._refuse(reply, Conflict("the session ended before the encoder was exchanged"))

    @property
    def waiting(self) -> int:
        """Bins and exchanges in the thread's queue."""
        return 0 if self._thread is None else self._thread.waiting

    @property
    def is_busy(self) -> bool:
        """An encoder is on its way."""
        return self._loading > 0

    @property
    def has_any(self) -> bool:
        return self._thread is not None and any(True for _ in self._thread.encoding.view.everyone())

    def skip(self) -> None:
        """They do not get this bin."""
        if self._thread is not None:
            self._thread.skipped += 1

    def show(self, outcome: Bin, time: BinTime) -> None:
        """Hand a bin over that the decoders have answered."""
        chain = self._loop.chain
        if self._thread is None or chain is None or self._loop.journal.encoders_miss(time.seq):
            return
        rates = None if outcome.reason is not None else outcome.values.copy()
        pipeline = chain.pipeline
        bin = EncoderBin(time, rates, outcome.reason, outcome.gap, pipeline.channels, pipeline.bin_s, local_clock())
        lost = self._thread.put(bin)
        if lost:
            self._loop.journal.encoders_missed(lost)
            detail = f"the encoders are too slow: {len(lost)} bins skipped; they go on with the newest"
            self._loop.event("encoders_lagged", detail, skipped=len(lost))

    # Exchanges; `reply` gets the receipt, or the error

    def load(self, request: EncoderRequest, reply: Future[Any]) -> None:
        """Begin to load a version. Raises Conflict."""
        thread, needs = self._thread_or_refuse(), self._needs()
        active = thread.encoding.view.active
        name = request.name or (active.name if active is not None and request.role == "active" else request.model.name)
        thread.encoding.check_room(request.role, name)
        assert self._loader is not None
        self._replies.add(reply)
        self._loading += 1
        half_life_s = self._loop.session.encoder.score_half_life_s
        building = self._loader.submit(build, request, needs, name, half_life_s)
        building.add_done_callback(lambda built: self._post(partial(self._loaded, built, reply), LOADED))

    def _loaded(self, built: Future[RunningEncoder], reply: Future[Any]) -> None:
        """Loaded, or not."""
        self._loading -= 1
        try:
            running, thread = built.result(), self._thread_or_refuse()
        except NeuroloopError as error:
            self._refuse(reply, error)
            return
        self._exchange("load", lambda: thread.encoding.swap(running), reply)

    def rollback(self, reply: Future[Any]) -> None:
        """To what was active before. Raises Conflict."""
        thread = self._thread_or_refuse()
        self._exchange("rollback", thread.encoding.rollback, reply)

    def promote(self, name: str, reply: Future[Any]) -> None:
        """Make a shadow the active encoder. Raises Conflict."""
        thread = self._thread_or_refuse()
        self._exchange("promote", lambda: thread.encoding.promote(name), reply)

    def remove(self, name: str, reply: Future[Any]) -> None:
        """Let a shadow go. Raises Conflict."""
        thread = self._thread_or_refuse()

        def remove() -> None:
            removed = thread.encoding.remove(name)
            answer = {"encoder": removed.name, "model": removed.identity()}
            self._post(partial(self._settle, reply, answer))

        self.ask(remove, reply)

    def data(self, first: int | None, seconds: float | None, reply: Future[Any]) -> None:
        """A page of frames and counts for a fit; see `encoder_data`. Raises Conflict."""
        thread, stimulus = self._thread_or_refuse(), self.stimulus

        def read() -> None:
            source = None if stimulus is None else stimulus.source
            frame = (0, 0, 0) if source is None else source.frame
            self._post(partial(self._settle, reply, page(thread.encoding, frame, first, seconds)))

        self.ask(read, reply)

    def ask(self, run: Callable[[], None], reply: Future[Any]) -> None:
        """Have the encoders' thread do something between two bins; an error of it goes to `reply`. Raises Conflict."""

        def run_or_refuse() -> None:
            try:
                run()
            except NeuroloopError as error:
                self._post(partial(self._refuse, reply, error))

        self._replies.add(reply)
        self._thread_or_refuse().run_between_bins(run_or_refuse)

    def _exchange(self, by: str, exchange: Exchange, reply: Future[Any]) -> None:
        seq = self._loop.seq

        def run() -> None:
            before, now = exchange()
            facts = {
                "bin": seq,
                "encoder": now.name,
                "role": now.role,
                "previous": None if before is None else before.identity(),
                "current": now.identity(),
            }
            detail = f"{now.role} encoder {now.name!r}: {named(now)} from bin {seq} on ({by})"
            self._post(partial(self._exchanged, by, facts, detail, reply))

        self.ask(run, reply)

    def _exchanged(self, by: str, facts: dict[str, Any], detail: str, reply: Future[Any]) -> None:
        loop = self._loop
        self._replies.discard(reply)
        loop.health.tally.swaps += 1
        loop.event("encoder_swapped", detail, request_behind(reply), by=by, **facts)
        assert loop.chain is not None
        receipts = loop.swaps.receipts
        receipts.open(facts, loop.checkpoints.hold(reply), local_clock(), loop.chain.pipeline.bin_samples)
        if loop.inlet is None:
            receipts.close()

    def _settle(self, reply: Future[Any], answer: dict[str, Any]) -> None:
        self._replies.discard(reply)
        reply.set_result(answer)

    def _refuse(self, reply: Future[Any], error: NeuroloopError) -> None:
        self._replies.discard(reply)
        with suppress(InvalidStateError):
            reply.set_exception(error)

    def _thread_or_refuse(self) -> EncoderThread:
        if self._thread is None:
            raise Conflict(
                f"session {self._loop.session.name!r} has no stimulus, so no encoder can run in it: add `stimulus` to "
                "its configuration, with the name, type or source_id of an LSL stream whose samples are frames"
            )
        return self._thread

    def _needs(self) -> EncoderNeeds:
        """What encoders to come must fit. Raises Conflict."""
        chain, name = self._loop.chain, self._loop.session.name
        if chain is None:
            raise Conflict(
                f"session {name!r}: the stream has not been found yet, so nothing says what encoders must fit"
            )
        source = None if self.stimulus is None else self.stimulus.source
        if source is None:
            raise Conflict(f"session {name!r}: the stimulus stream has not been found yet; start it, then ask again")
        return EncoderNeeds(chain.pipeline.channels, source.pixels, chain.pipeline.bin_s)

    # What is kept

    def keep(self) -> Callable[[], list[dict[str, Any]]]:
        """What gives all encoders as a checkpoint has them, in any thread but the encoders'."""
        thread = self._thread
        if thread is None:
            return list
        asked: Future[list[dict[str, Any]]] = Future()

        def take() -> None:
            self._kept = kept(thread.encoding.view, self._kept)
            asked.set_result([told for _, told in self._kept.values()])

        thread.run_between_bins(take)

        def wait() -> list[dict[str, Any]]:
            with suppress(TimeoutError):
                return asked.result(KEEP_S)
            return [told for _, told in self._kept.values()]  # the last that is known of a thread that waits for frames

        return wait

    def restore(self, told: list[dict[str, Any]]) -> None:
        """Who was there when a checkpoint was taken; before there are bins. Raises ModelError."""
        thread, half_life_s = self._thread, self._loop.session.encoder.score_half_life_s
        if thread is not None and told:
            found = [(one["place"], given_back(one, half_life_s)) for one in told]
            thread.run_between_bins(lambda: thread.encoding.restore(found))

    def remember(self) -> Callable[[], dict[str, Any] | None]:
        """What gives the whole state after the bins so far, in any thread but the encoders'; None without a stimulus.

        It raises ModelError where the encoders' thread does not come to the question, or the state is none to go on
        with.
        """
        thread = self._thread
        if thread is None:
            return lambda: None
        asked: Future[tuple[dict[str, Any], FrameHistory | None]] = Future()

        def take() -> None:
            self._kept = kept(thread.encoding.view, self._kept)
            state, history = thread.state_dict(), thread.encoding.history
            state["kept"] = [told for _, told in self._kept.values()]
            state["bins"] = None if history is None else history.state_dict()
            asked.set_result((state, history))

        thread.run_between_bins(take)
        return partial(_together, asked, KEEP_S + thread.patience_s)

    def go_on(self, state: dict[str, Any]) -> None:
        """With that state, after `restore`; before there are bins. Raises ModelError."""
        if self._thread is not None:
            self._thread.run_between_bins(partial(self._thread.load_state_dict, state))

    # What is told

    def _post(self, run: Callable[[], None], due: str | None = None) -> None:
        """In any thread: have the loop do it. due: see `Call`."""
        with suppress(Unavailable):  # the loop is behind by thousands of messages, or has ended
            self._loop.inbox.put(Call(run, due))

    def _report(self, told: list[Told]) -> None:
        """In the encoders' thread."""
        self._post(partial(self._pass_on, told))

    def _pass_on(self, told: list[Told]) -> None:
        for one in told:
            if isinstance(one, dict):
                self._publish(b"encoders", one)
            elif isinstance(one, Noted):
                self._loop.journal.note("stimulus", **one.facts)
            else:
                name, detail, facts = one
                self._loop.event(name, detail, **facts)

    def describe(self) -> dict[str, Any]:
        """What the status says."""
        thread, stimulus = self._thread, self.stimulus
        if thread is None or stimulus is None:
            return {"encoders": [], "stimulus": None}
        view, history = thread.encoding.view, thread.encoding.history
        encoders = [running.describe() for running in view.everyone()]
        if view.active is not None:
            encoders[0]["past"] = [past.identity() for past in view.past]
        latency = thread.latency.summary()
        counted = {
            "late_ms": latency["late"],
            "answer_ms": latency["answer"],
            "impatient_bins": thread.impatient,
            "late_frames": thread.late_frames,
            "skipped": thread.skipped,
            "waiting": thread.waiting,
            "kept_bins": 0 if history is None else min(history.added, history.size),
        }
        return {"encoders": encoders, "stimulus": stimulus.describe() | counted}


def _together(asked: Future[tuple[dict[str, Any], FrameHistory | None]], patience_s: float) -> dict[str, Any]:
    """Raises ModelError."""
    try:
        state, history = asked.result(patience_s)
    except TimeoutError as error:
        raise ModelError(f"the encoders did not come to the question within {patience_s:g} s") from error
    for told, memory in zip(state["kept"], state["encoding"]["memories"], strict=True):
        bank = memory["bank"]
        if not all(np.isfinite(bank[name]).all() for name in ("ring", "held", "spikes", "response")):
            raise ModelError(f"encoder {told['name']!r} holds values that are not finite")
    bins = state.pop("bins")
    state["encoding"]["history"] = None if history is None else history.leading(**bins)
    return state
