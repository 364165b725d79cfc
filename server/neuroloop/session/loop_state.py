"""The whole state of a loop between two turns: with it, another loop goes on to the bit with the samples that follow.

That is what a checkpoint keeps (`snapshot`), and what a restart, which begins after a hole, does without: the
unfinished block, the judge of timestamps, sums of the rereference and when its weights come into use, what decoders
remember of the bins before, all bins that a label may name, and how the journal counts; of encoders, their stream, the
frames that lead to the next bin, and their scores. Taken by the loop, and by the encoders' thread when it has answered
the same bins; put together beside both.

Weights that are being solved, decoders on their way and holes are no part of it: `lacking` says what to wait for.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroloop.errors import ModelError
from neuroloop.models.base import Remembering
from neuroloop.session.chain import Chain
from neuroloop.session.checkpoint import Tree
from neuroloop.session.rereferencing import Rereferencing
from neuroloop.session.restoring import restore_chain, restore_loop, unpack_weights
from neuroloop.session.running import Fault, RunningDecoder, faults_of
from neuroloop.session.snapshot import SHADOWS_S, Known, Snapshot, newest_bins, pack_weights

if TYPE_CHECKING:
    from neuroloop.session.loop import Loop

WHOLE = "whole"  # the part of the tree that a checkpoint has not
EVERYTHING = 1 << 62  # bytes


def lacking(loop: Loop) -> str | None:
    """Why the state can't be taken now, or None."""
    chain = loop.chain
    if chain is None:
        return "the stream has not been found"
    if loop.hole is not None or chain.ring.is_overrun:
        return "samples are missing"
    if chain.rereferencing is not None and chain.rereferencing.is_busy:
        return "rereference weights are being solved"
    if loop.encoders.is_busy:
        return "an encoder is being loaded"
    if loop.swaps.is_busy or chain.decoders.is_about_to_return:
        return "a decoder is being exchanged"
    return None


class LoopState:
    """Of this moment, by the loop, where nothing is `lacking`. `tree` puts it together, in any thread."""

    def __init__(self, loop: Loop, known: Known) -> None:
        """known: by checkpoints. Shadows are asked anew: what waits for one, a label too, comes before the state."""
        chain = loop.chain
        assert chain is not None
        decoders = chain.decoders
        self.seq = loop.seq
        self._history = chain.history
        self._bins = chain.history.added, chain.history.end
        owned = [decoders.active, *decoders.past]
        files = {running: known.files[running] for running in owned if running in known.files}
        self._snapshot = Snapshot(loop, Known(files, known.description, known.weights))
        self._memories = [_remembered(running) for running in owned]
        self._memories += [_asked(shadow.ask) for shadow in decoders.shadows.values()]
        timeline = chain.timeline.state_dict()
        held_back = np.arange(chain.ring.consumed, timeline["judged"]) % chain.ring.capacity
        self._whole: Tree = {
            "ring": chain.ring.serial,
            "dtype": chain.ring.samples.dtype.str,
            "consumed": chain.ring.consumed,
            "times": chain.ring.times[held_back],
            "run_is_new": loop.finding.run_is_new,
            "missing": loop.bin_missing,
            "nonfinite": loop.bin_nonfinite,
            "timeline": timeline,
            "cutter": chain.cutter.state_dict(),
            "decoders": decoders.state_dict(),
            "shed": list(loop.shedding.shed),
            "shadows": loop.journal.shadows,
        }
        self._encoders = loop.encoders.remember()
        self._rereferencing = chain.rereferencing
        if chain.rereferencing is not None:
            self._whole["rereferencing"] = chain.rereferencing.state_dict()

    def tree(self) -> Tree:
        """As a file of `checkpoint` has it. Raises ModelError where a decoder can't be kept, or does not answer."""
        until = time.monotonic() + SHADOWS_S
        try:
            memories = [memory.result(max(0.0, until - time.monotonic())) for memory in self._memories]
        except TimeoutError as error:
            raise ModelError(f"a shadow did not come to the question within {SHADOWS_S:g} s") from error
        tree = self._snapshot.tree()
        if len(tree["decoders"]) != len(memories):
            raise ModelError("a decoder of a kind that can't be kept is in use")
        encoders = self._encoders()
        if encoders is not None:
            tree["encoders"] = encoders.pop("kept")
        tree["history"] = newest_bins(self._history, *self._bins, EVERYTHING)
        if self._rereferencing is not None:
            _pack_update(self._whole["rereferencing"], self._rereferencing)
        return tree | {WHOLE: self._whole | {"memories": memories, "encoders": encoders}}


def _memory(running: RunningDecoder) -> dict[str, Any] | None:
    return running.decoder.memory() if isinstance(running.decoder, Remembering) else None


def _remembered(running: RunningDecoder) -> Future[Any]:
    done: Future[Any] = Future()
    _remember(done, running)
    return done


def _asked(ask: Callable[[Callable[[RunningDecoder], None]], None]) -> Future[Any]:
    done: Future[Any] = Future()
    ask(lambda running: _remember(done, running))
    return done


def _remember(done: Future[Any], running: RunningDecoder) -> None:
    """By whoever owns the decoder."""
    try:
        with faults_of("memory"):
            done.set_result(_memory(running))
    except Fault as fault:
        done.set_exception(ModelError(f"decoder {running.name!r}: {fault}"))


def _pack_update(state: Tree, rereferencing: Rereferencing) -> None:
    if (update := state["update"]) is not None:
        state["update"] = update | {"weights": pack_weights(update["weights"], rereferencing.clusters)}


def restore(loop: Loop, chain: Chain, tree: Tree) -> None:
    """Let a loop that has had no bin go on with a fresh chain of the same stream. Raises ModelError.

    The samples that are held back are the caller's to put into the ring, with the timestamps that the tree has.
    """
    whole = tree[WHOLE]
    restore_loop(loop, tree)
    restore_chain(chain, tree)
    try:
        _restore_stream(chain, tree)
        loop.finding.use(chain)
        chain.decoders.load_state_dict(whole["decoders"])
        kept = [chain.decoders.active, *chain.decoders.past]
        kept += [shadow.running for shadow in chain.decoders.shadows.values()]
        for running, memory in zip(kept, whole["memories"], strict=True):
            if memory is not None and isinstance(running.decoder, Remembering):
                running.decoder.recall(memory)
        if whole.get("encoders") is not None:
            loop.encoders.go_on(whole["encoders"])
    except (KeyError, ValueError, TypeError) as error:
        raise ModelError(f"state: does not fit the session: {type(error).__name__}: {error}") from error
    loop.finding.run_is_new = whole["run_is_new"]
    loop.bin_missing, loop.bin_nonfinite = whole["missing"], whole["nonfinite"]
    loop.shedding.shed = list(whole["shed"])
    loop.journal.shadows = whole["shadows"]


def _restore_stream(chain: Chain, tree: Tree) -> None:
    whole = tree[WHOLE]
    chain.ring.written = chain.ring.consumed = whole["consumed"]
    chain.timeline.load_state_dict(whole["timeline"])
    chain.cutter.load_state_dict(whole["cutter"])
    history = tree["history"]
    if history["columns"]:
        seqs, values, centers, usable = history["columns"]
        chain.history.restore(seqs, values, centers, usable, history["end"], history["first"])
    rereferencing = chain.rereferencing
    if rereferencing is None:
        return
    state = whole["rereferencing"]
    if (update := state["update"]) is not None:
        weights = unpack_weights(update["weights"], rereferencing.channels, rereferencing.clusters)
        state = state | {"update": update | {"weights": weights}}
    rereferencing.load_state_dict(state)
