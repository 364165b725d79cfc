"""What a checkpoint keeps, given back to a session that begins; see `snapshot`.

It goes on after a hole: filters settle again and the rate window starts anew, as after any other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models import decoder_files
from neuroloop.session.accuracy import Accuracy
from neuroloop.session.chain import Chain
from neuroloop.session.checkpoint import Tree
from neuroloop.session.decoders import Decoders
from neuroloop.session.label_log import Record
from neuroloop.session.labels import Label
from neuroloop.session.rereferencing import Rereferencing
from neuroloop.session.running import Fault, Loaded, ModelVersion, RunningDecoder, Taught
from neuroloop.signal.covariance import CovarianceSnapshot
from neuroloop.signal.weights import Weights

if TYPE_CHECKING:
    from neuroloop.session.loop import Loop

NO_BINS: NDArray[np.int64] = np.zeros(0, np.int64)  # answers to these were judged when the label was learned


def restore_loop(loop: Loop, tree: Tree) -> None:
    """Before it runs. What is counted goes on; the bins after the checkpoint are counted by what their answers say."""
    for name, count in tree["tally"].items():
        setattr(loop.health.tally, name, count)
    loop.health.tally.bins += loop.seq - tree["seq"]
    labels = tree["labels"]
    loop.labels.learned, loop.labels.refused = labels["learned"], labels["refused"]
    loop.labels.waiting = [Label(*label) for label in labels["pending"]]
    loop.labels.recent.extend(Label(*label) for label in labels["recent"])
    loop.encoders.restore(tree["encoders"])


def restore_chain(chain: Chain, tree: Tree) -> None:
    """A fresh chain of the same stream. Raises ModelError where something does not fit it."""
    try:
        chain.pipeline.load_state_dict(tree["pipeline"])
        if chain.rereferencing is not None:
            _restore_rereferencing(chain.rereferencing, tree["rereference"])
        _restore_decoders(chain.decoders, tree)
        if tree["history"]["columns"]:
            seqs, values, centers, usable = tree["history"]["columns"]
            chain.history.restore(seqs, values, centers, usable, tree["history"]["end"])
    except (KeyError, ValueError, TypeError, Fault) as error:
        raise ModelError(f"checkpoint: does not fit the session: {type(error).__name__}: {error}") from error


def _restore_rereferencing(rereferencing: Rereferencing, tree: Tree) -> None:
    told = tree["statistics"]
    clusters = tuple(tuple(cluster) for cluster in rereferencing.clusters)
    statistics = None
    if told is not None:
        mean, scatter = told["mean"], tuple(told["scatter"])
        figures = told["resolution"], told["rejected"]
        statistics = CovarianceSnapshot(clusters, len(mean), told["samples"], mean, scatter, *figures)
    weights = unpack_weights(tree["weights"], rereferencing.channels, rereferencing.clusters)
    rereferencing.restore(weights, statistics, tree)


def _restore_decoders(decoders: Decoders, tree: Tree) -> None:
    fresh = {running.name: running for running in decoders.everyone()}
    found: dict[str, list[RunningDecoder]] = {"active": [], "past": [], "shadow": []}
    for told in tree["decoders"]:
        found[told["place"]].append(_decoder(told, fresh, decoders))
    if not found["active"]:
        found["active"].append(decoders.active)  # of a kind that can't be kept
    decoders.restore(found["active"][0], found["past"], found["shadow"])
    decoders.lessons.restore(unpack_lessons(tree["lessons"]), tree["lessons"]["added"])


def _decoder(told: Tree, fresh: dict[str, RunningDecoder], decoders: Decoders) -> RunningDecoder:
    """The decoder of the configuration, with what it had learned; or one of the registry, out of its file."""
    file = decoder_files.read(told["file"])
    if told["model"] is None:
        running = fresh[told["name"]]
        running.decoder.load_state_dict(decoder_files.state_of(file))
    else:
        model = ModelVersion(**told["model"])
        decoder = decoder_files.load(file)
        bins = decoders.needs.history_bins
        running = RunningDecoder(told["name"], told["kind"], told["role"], decoder, bins, model)
        running.about = file.about
        running.loaded = None if told["loaded"] is None else Loaded(**told["loaded"])
        running.predict(np.zeros(decoders.needs.features, np.float32))
        running.reset()
    running.role, running.was_shadow = told["role"], told["was_shadow"]
    running.lessons_from = told["lessons_from"]
    running.restore(told["learned"], Accuracy(**told["accuracy"]))
    return running


def unpack_weights(tree: Tree, channels: tuple[str, ...], clusters: list[list[int]]) -> Weights:
    matrix = tree["matrix"]
    if matrix is None:
        matrix = np.zeros((len(channels), len(channels)))
        for cluster, block in zip(clusters, tree["blocks"], strict=True):
            matrix[np.ix_(cluster, cluster)] = block
    return Weights(tree["version"], matrix, channels, tree["source"], tree["report"])


def unpack_lessons(tree: Tree) -> list[Taught]:
    facts = zip(tree["rates"], tree["indices"], tree["durations"], strict=True)
    return [Taught(rates, index, duration_s, NO_BINS) for rates, index, duration_s in facts]


def replay_labels(loop: Loop, records: list[Record]) -> list[Taught]:
    """What became of labels after the checkpoint: how many, and which wait. Returns what decoders are to learn."""
    labels, lessons = loop.labels, []
    for record in records:
        label = Label(*record["label"])
        if record["kind"] == "pending":
            labels.waiting.append(label)
            labels.recent.append(label)
            continue
        labels.waiting = [waiting for waiting in labels.waiting if waiting != label]
        if label not in labels.recent:
            labels.recent.append(label)
        if record["kind"] == "refused":
            labels.refused += 1
            continue
        labels.learned += 1
        rates = np.frombuffer(record["rates"], np.float32)
        lessons.append(Taught(rates, label.index, record["duration_s"], NO_BINS))
    return lessons


def teach(chain: Chain, lessons: list[Taught]) -> None:
    """Have every decoder learn what it had learned after the checkpoint. Raises ModelError."""
    if any(lesson.rates.shape != (chain.decoders.needs.features,) for lesson in lessons):
        raise ModelError("checkpoint: the labels after it are of another stream")
    for lesson in lessons:
        chain.decoders.lessons.add(lesson)
        for running in chain.decoders.everyone():
            try:
                running.learn(lesson)
            except Fault:  # as when it was taught
                continue
