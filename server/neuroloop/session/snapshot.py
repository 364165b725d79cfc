"""What a session knows, as a checkpoint keeps it: taken by the loop between two blocks, put together beside it.

The loop copies what the next block changes: filters, thresholds, the rate window, and each decoder that learned since
the last time. All else is values that never change, or is read beside the loop: the weights, the statistics of the last
solve, the labels learned, the history of bins, whose rows are only looked at after they were written. A shadow, and an
encoder, is asked in its own thread. What has not changed since the last time is not put together again.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from neuroloop.models import decoder_files
from neuroloop.session.accuracy import Accuracy
from neuroloop.session.chain import Chain
from neuroloop.session.checkpoint import Tree
from neuroloop.session.labels import RateHistory
from neuroloop.session.rereferencing import Rereferencing
from neuroloop.session.running import Fault, Loaded, ModelVersion, RunningDecoder, Taught, faults_of
from neuroloop.session.streams import StreamDescription
from neuroloop.signal.covariance import CovarianceSnapshot
from neuroloop.signal.weights import Weights

if TYPE_CHECKING:
    from neuroloop.session.loop import Loop

HISTORY_BYTES = 4 << 20  # of the newest bins: a minute of 96 channels at 20 ms, 20 s of 1024
AT_ONCE_BYTES = 1 << 16
SHADOWS_S = 1.0  # for all shadows to come to the question


@dataclass(frozen=True)
class Place:
    """Where a bin ended. time: of its last sample, seconds of the sender's clock. index: of the sample after it.

    shift, followed: by how much the sender's clock had been set, and how much of it liblsl's offset knew.
    """

    seq: int
    index: int
    time: float
    shift: float = 0.0
    followed: float = 0.0


def place_of(chain: Chain, seq: int) -> Place:
    """The end of the last bin; seq: of the next one."""
    return Place(seq, *chain.cutter.last_bin(), chain.timeline.shift, chain.clock.offset.followed)


@dataclass
class Known:
    """What snapshots have put together so far. files: of decoders, and how many labels they had learned then."""

    files: dict[RunningDecoder, tuple[int, bytes]] = field(default_factory=dict)
    description: tuple[StreamDescription | None, bytes] = None, b""
    weights: tuple[Weights | None, Tree] = None, field(default_factory=dict)


class Snapshot:
    """Of this moment, by the loop. `tree` puts it together, in any thread."""

    def __init__(self, loop: Loop, known: Known) -> None:
        """known: of the snapshots before; what this one adds is there when it has been put together."""
        chain = loop.chain
        self.tree_so_far: Tree = {
            "seq": loop.seq,
            "is_running": loop.inlet is not None,
            "is_recording": loop.recordings.is_wanted,
            "tally": dict(vars(loop.health.tally)),
        }
        labels = loop.labels
        self._labels = labels.learned, labels.refused, list(labels.waiting), list(labels.recent)
        self._encoders = loop.encoders.keep()
        self._bins = (0, -np.inf) if chain is None else (chain.history.added, chain.history.end)
        self._chain = chain
        self._known = known
        if chain is None:
            return
        place = place_of(chain, loop.seq)
        self.tree_so_far |= {
            "place": asdict(place),
            "clock_offset": 0.0 if loop.inlet is None else loop.inlet.clock_offset,
            "pipeline": chain.pipeline.stream_state(),
        }
        self._rereferencing = _rereferencing(chain.rereferencing)
        decoders = chain.decoders
        self._lessons = decoders.lessons.added, decoders.lessons.since(decoders.lessons.first)
        features, shadows = decoders.needs.features, decoders.shadows.values()
        self._decoders = [
            _Asked("active", decoders.active, features, known, None),
            *(_Asked("past", past, features, known, None) for past in decoders.past),
            *(
                _Asked("shadow", shadow.running, features, known, shadow.ask, shadow.has_lessons_waiting)
                for shadow in shadows
            ),
        ]

    def tree(self) -> Tree:
        """What a checkpoint keeps."""
        tree, chain = self.tree_so_far, self._chain
        tree["encoders"] = self._encoders()
        learned, refused, *listed = self._labels
        pending, recent = ([[one.label, one.index, one.start, one.end] for one in labels] for labels in listed)
        tree["labels"] = {"learned": learned, "refused": refused, "pending": pending, "recent": recent}
        if chain is None:
            return tree
        tree["description"] = _description(chain, self._known)
        until = time.monotonic() + SHADOWS_S
        kept = [(asked, asked.described(until)) for asked in self._decoders]
        tree["decoders"] = [told for _, told in kept if told is not None]
        self._known.files = {asked.running: (asked.learned, told["file"]) for asked, told in kept if told is not None}
        tree["lessons"] = {"added": self._lessons[0], **pack_lessons(self._lessons[1], len(chain.pipeline.features))}
        tree["history"] = newest_bins(chain.history, *self._bins, HISTORY_BYTES)
        if self._rereferencing is not None:
            tree["rereference"] = self._rereferencing(self._known)
        return tree


class _Asked:
    """A decoder that is to be kept. ask: of the shadow that it is used by, None for one that is the loop's."""

    def __init__(
        self,
        place: str,
        running: RunningDecoder,
        features: int,
        known: Known,
        ask: Callable[[Callable[[RunningDecoder], None]], None] | None,
        has_lessons_waiting: bool = False,
    ) -> None:
        self.running = running
        self.learned = running.knowledge.learned
        self._place = place
        self._features = features
        self._about = _describe(running)
        self._file: bytes | None = None
        self._state: Future[decoder_files.DecoderFile] = Future()
        self._before = known.files.get(running)
        if self._before is not None and self._before[0] == self.learned and not has_lessons_waiting:
            self._file = self._before[1]
        elif ask is None:
            self._take(running)
        else:
            ask(self._take)

    def _take(self, running: RunningDecoder) -> None:
        """By whoever owns the decoder."""
        self._about, self.learned = _describe(running), running.knowledge.learned
        try:
            with faults_of("state_dict"):
                channels = None if running.about is None else running.about.channels
                self._state.set_result(decoder_files.of(running.decoder, self._features, channels))
        except Fault as fault:  # a kind of another package that can't be kept
            self._state.set_exception(fault)

    def described(self, until: float) -> Tree | None:
        """None for one that can't be kept. until: by the monotonic clock; a shadow that is late is kept as it was."""
        if self._file is None:
            try:
                with faults_of("writing it"):
                    self._file = decoder_files.write(self._state.result(max(0.0, until - time.monotonic())))
            except Fault:
                if self._before is None:
                    return None
                self.learned, self._file = self._before
                self._about["learned"] = self.learned
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


def _description(chain: Chain, known: Known) -> bytes:
    """As JSON: of 1024 channels with metadata, 15 ms of work."""
    if known.description[0] is not chain.description:
        known.description = chain.description, json.dumps(asdict(chain.description)).encode()
    return known.description[1]


def _rereferencing(rereferencing: Rereferencing | None) -> Callable[[Known], Tree] | None:
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

    def together(known: Known) -> Tree:
        if known.weights[0] is not weights:
            known.weights = weights, pack_weights(weights, clusters)
        return about | {
            "weights": known.weights[1],
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
    rates = np.empty((len(lessons), features), np.float32)
    for row, lesson in zip(rates, lessons, strict=True):  # one by one, so that the loop gets its turn
        row[:] = lesson.rates
    return {
        "rates": rates,
        "indices": [lesson.index for lesson in lessons],
        "durations": [lesson.duration_s for lesson in lessons],
    }


def newest_bins(history: RateHistory, added: int, end: float, most_bytes: int) -> Tree:
    """The newest bins when so many had been added, the last of which ended then.

    A few rows at a time: a copy holds the interpreter's lock. The loop adds more meanwhile.
    """
    row_bytes = 4 * history.features
    at_once = max(1, AT_ONCE_BYTES // row_bytes)
    number = max(history.first, added - most_bytes // row_bytes)
    parts = []
    while number < added:
        part = history.rows(number, min(at_once, added - number))
        parts.append(part)
        number += at_once
    first = history.first + 1  # what the loop has overwritten meanwhile, or is about to, counts for nothing
    columns = [np.concatenate(column) for column in zip(*parts, strict=True)] if parts else []
    if columns:
        columns = [column[columns[0] >= first] for column in columns]
    number = int(columns[0][0]) if columns and len(columns[0]) else added
    return {"end": end, "first": number, "columns": columns[1:]}
