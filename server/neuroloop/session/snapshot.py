"""What a session knows, as a checkpoint keeps it: taken by the loop between two blocks, put together beside it.

The loop copies what the next block changes: filters, thresholds, the rate window, and each decoder that learned since
the last time. All else is values that never change, or is read beside the loop: the weights, the statistics of the last
solve, the labels learned, the history of bins, whose rows are only looked at after they were written. A shadow, and an
encoder, is asked in its own thread.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroloop.models import decoder_files
from neuroloop.session.accuracy import Accuracy
from neuroloop.session.chain import Chain
from neuroloop.session.checkpoint import Tree
from neuroloop.session.labels import RateHistory
from neuroloop.session.rereferencing import Rereferencing
from neuroloop.session.running import Fault, Loaded, ModelVersion, RunningDecoder, Taught, faults_of
from neuroloop.session.shadow import Ask
from neuroloop.signal.covariance import CovarianceSnapshot
from neuroloop.signal.weights import Weights

if TYPE_CHECKING:
    from neuroloop.session.loop import Loop

HISTORY_BYTES = 4 << 20  # of the newest bins: a minute of 96 channels at 20 ms, 20 s of 1024
ROWS_AT_ONCE = 256
SHADOW_S = 1.0  # for a shadow to come to the question

Files = dict[RunningDecoder, tuple[int, bytes]]  # of decoders, and how many labels they had learned then


@dataclass(frozen=True)
class Place:
    """Where a bin ended. time: of its last sample, seconds of the sender's clock. index: of the sample after it."""

    seq: int
    index: int
    time: float


def place_of(chain: Chain, seq: int) -> Place:
    """The end of the last bin; seq: of the next one."""
    return Place(seq, *chain.cutter.last_bin())


class Snapshot:
    """Of this moment, by the loop. `tree` puts it together, in any thread."""

    def __init__(self, loop: Loop, files: Files) -> None:
        """files: those of the last snapshot, for decoders that have learned nothing since."""
        chain = loop.chain
        self.tree_so_far: Tree = {
            "seq": loop.seq,
            "is_running": loop.inlet is not None,
            "tally": dict(vars(loop.health.tally)),
        }
        labels = loop.labels
        self._labels = labels.learned, labels.refused, list(labels.waiting), list(labels.recent)
        self._encoders = loop.encoders.keep()
        self._chain = chain
        self._files = files
        if chain is None:
            return
        place = place_of(chain, loop.seq)
        self.tree_so_far |= {
            "place": {"seq": place.seq, "index": place.index, "time": place.time},
            "clock_offset": 0.0 if loop.inlet is None else loop.inlet.clock_offset,
            "pipeline": chain.pipeline.stream_state(),
        }
        self._rereferencing = _rereferencing(chain.rereferencing)
        decoders = chain.decoders
        self._lessons = decoders.lessons.added, decoders.lessons.since(decoders.lessons.first)
        features, shadows = decoders.needs.features, decoders.shadows.values()
        self._decoders = [
            _Asked("active", decoders.active, features, files, None),
            *(_Asked("past", past, features, files, None) for past in decoders.past),
            *(_Asked("shadow", shadow.running, features, files, shadow.put) for shadow in shadows),
        ]

    def tree(self) -> tuple[Tree, Files]:
        """What a checkpoint keeps, and the decoders' files for the next one."""
        tree, chain = self.tree_so_far, self._chain
        tree["encoders"] = self._encoders()
        learned, refused, *listed = self._labels
        pending, recent = ([[one.label, one.index, one.start, one.end] for one in labels] for labels in listed)
        tree["labels"] = {"learned": learned, "refused": refused, "pending": pending, "recent": recent}
        if chain is None:
            return tree, self._files
        tree["description"] = asdict(chain.description)
        kept = [(asked, asked.described()) for asked in self._decoders]
        tree["decoders"] = [told for _, told in kept if told is not None]
        tree["lessons"] = {"added": self._lessons[0], **pack_lessons(self._lessons[1], len(chain.pipeline.features))}
        tree["history"] = _history(chain.history)
        if self._rereferencing is not None:
            tree["rereference"] = self._rereferencing()
        files = {asked.running: (asked.learned, told["file"]) for asked, told in kept if told is not None}
        return tree, files


class _Asked:
    """A decoder that is to be kept. put: of the shadow that it is used by, None for one that is the loop's."""

    def __init__(
        self, place: str, running: RunningDecoder, features: int, files: Files, put: Callable[[Any], Any] | None
    ) -> None:
        self.running = running
        self.learned = running.knowledge.learned
        self._place = place
        self._features = features
        self._about = _describe(running)
        self._file: bytes | None = None
        self._state: Future[decoder_files.DecoderFile] = Future()
        known = files.get(running)
        if known is not None and known[0] == self.learned:
            self._file = known[1]
        elif put is None:
            self._take(running)
        else:
            put(Ask(self._take))

    def _take(self, running: RunningDecoder) -> None:
        """By whoever owns the decoder."""
        self._about, self.learned = _describe(running), running.knowledge.learned
        try:
            with faults_of("state_dict"):
                channels = None if running.about is None else running.about.channels
                self._state.set_result(decoder_files.of(running.decoder, self._features, channels))
        except Fault as fault:  # a kind of another package that can't be kept
            self._state.set_exception(fault)

    def described(self) -> Tree | None:
        """None for one that can't be kept."""
        if self._file is None:
            try:
                with faults_of("writing it"):
                    self._file = decoder_files.write(self._state.result(SHADOW_S))
            except Fault:
                return None
        about = {key: _plain(value) for key, value in self._about.items()}
        return {"place": self._place, **about, "file": self._file}


def _plain(value: Any) -> Any:
    return asdict(value) if isinstance(value, ModelVersion | Loaded | Accuracy) else value


def _describe(running: RunningDecoder) -> Tree:
    return {
        "name": running.name,
        "kind": running.kind,
        "role": running.role,
        "model": running.model,
        "loaded": running.loaded,
        "was_shadow": running.was_shadow,
        "lessons_from": running.lessons_from,
        "learned": running.knowledge.learned,
        "accuracy": running.knowledge.accuracy,
    }


def _rereferencing(rereferencing: Rereferencing | None) -> Callable[[], Tree] | None:
    if rereferencing is None:
        return None
    about = {
        "mode": rereferencing.mode,
        "half_life_s": rereferencing.half_life_s,
        "ridge": rereferencing.ridge,
        "ridge_absolute": rereferencing.ridge_absolute,
        "bin": rereferencing.bin,
    }
    weights, statistics = rereferencing.weights, rereferencing.statistics
    clusters = rereferencing.clusters

    def together() -> Tree:
        return about | {
            "weights": pack_weights(weights, clusters),
            "statistics": None if statistics is None else _statistics(statistics),
        }

    return together


def _statistics(snapshot: CovarianceSnapshot) -> Tree:
    return {
        "samples": snapshot.samples,
        "mean": snapshot.mean,
        "scatter": list(snapshot.scatter),
        "resolution": snapshot.resolution,
        "rejected": snapshot.rejected,
    }


def pack_weights(weights: Weights, clusters: list[list[int]]) -> Tree:
    """Cluster by cluster, unless some weight reaches across clusters."""
    blocks = [weights.matrix[np.ix_(cluster, cluster)] for cluster in clusters]
    inside = sum(np.count_nonzero(block) for block in blocks)
    is_whole = inside == np.count_nonzero(weights.matrix)
    about = {"version": weights.version, "source": weights.source, "report": weights.report}
    return about | {"blocks": blocks if is_whole else None, "matrix": None if is_whole else weights.matrix}


def pack_lessons(lessons: list[Taught], features: int) -> Tree:
    return {
        "rates": np.array([lesson.rates for lesson in lessons], np.float32).reshape(-1, features),
        "indices": [lesson.index for lesson in lessons],
        "durations": [lesson.duration_s for lesson in lessons],
    }


def _history(history: RateHistory) -> Tree:
    """The newest bins, a few rows at a time: a copy holds the interpreter's lock. The loop adds more meanwhile."""
    row_bytes = 4 * history.features
    added = history.added
    number = max(history.first, added - HISTORY_BYTES // row_bytes)
    parts = []
    while number < added:
        part = history.rows(number, min(ROWS_AT_ONCE, added - number))
        parts.append(part)
        number += ROWS_AT_ONCE
    first = history.first + 1  # what the loop has overwritten meanwhile, or is about to, counts for nothing
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)] if parts else []
    if columns:
        columns = [column[columns[0] >= first] for column in columns]
    return {"end": history.end, "columns": columns[1:]}
