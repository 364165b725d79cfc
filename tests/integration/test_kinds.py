"""A live session changes from one kind of decoder to another and back: no subscriber can tell but by the model's name.

The decoders are the results of fits.
"""

import time

import numpy as np
import pytest
from tests.integration.models import LEFT, RIGHT, loading
from tests.integration.test_continuous import TARGETS, kalman
from tests.processes import streaming

from neuroloop.models import decoder_files
from neuroloop.training.process import fit
from neuroloop.training.request import FitRequest

BIN_S, WINDOW, LFR_BINS = 0.02, 5, 6
TURN_BINS = 10  # at least
SETTINGS = {
    "maxrate": {},
    "poisson": {},
    "lda": {},
    "gsnn": {"layers": 2, "training": {"epochs": 15}},
    "lfr": {
        **{"backbone": "conv", "head": "linear", "bins": LFR_BINS, "window": WINDOW, "width": 8, "kernel": 2},
        "training": {"pretrain_epochs": 3, "targets": 4, "projectors": {"count": 6, "outputs": 8}, "head_epochs": 20},
    },
}
TURNS = ("lfr", "gsnn", "lda", "poisson", "lda", "gsnn", "lfr", "maxrate")


@pytest.fixture(scope="module")
def files():
    """By kind, the file of a decoder of classes a and b, fitted to trials of half a second."""
    generator = np.random.default_rng(4)
    labels = np.concatenate([[trial % 2] * 25 + [-1] * 5 for trial in range(40)])
    means = np.array([LEFT, RIGHT, (LEFT + RIGHT) / 2])[labels]
    data = {"rates": generator.poisson(means * BIN_S).astype(np.float32) / BIN_S, "labels": labels}
    made = {}
    for kind, settings in SETTINGS.items():
        window = None if kind == "lfr" else WINDOW
        asked = {"name": kind, "kind": kind, "classes": ["a", "b"], "source": {"arrays": "a.npz"}, "window": window}
        fitted = fit(FitRequest.model_validate(asked | {"settings": settings}), data, lambda progress, loss: None)
        assert fitted.metrics["accuracy"] > 0.9
        made[kind] = fitted.weights
    return made


def steady_stream(source, rates):
    """Pushes a bin of these rates when it is over, at the speed of the clock, until it is told to stop."""
    block = np.tile(rates / 1000, (20, 1)).astype(np.float32)

    def run(stop):
        source.wait_for_consumers()
        due = time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            source.push(block)
            due += BIN_S

    return run


def steady_scores(data, rates):
    """What the decoder of a file answers when nothing has changed for as long as it looks back."""
    decoder = decoder_files.load(decoder_files.read(data))
    return [decoder.predict(rates) for _ in range(LFR_BINS)][-1].values


def test_kinds_take_turns_in_one_session_without_a_missed_bin(counts, open_source, unique_name, files):
    source = open_source(unique_name)
    receipts = []
    with streaming(steady_stream(source, LEFT)):
        counts.bins(WINDOW + 5)
        for number, kind in enumerate(TURNS):
            state = "reprime" if number > TURNS.index("lfr") else "cold"
            command = loading(number + 1, files[kind], state=state)
            command["model"]["name"] = kind
            receipts.append(counts.command("decoder_load", **command))
            counts.bins(receipts[-1]["bin"] + TURN_BINS)
    bins = counts.predictions()
    assert [b["seq"] for b in bins] == list(range(len(bins)))
    assert {receipt["missed_bins"] for receipt in receipts} == {counts.command("status")["missed_bins"]} == {0}
    firsts = [receipt["bin"] for receipt in receipts]
    assert firsts == sorted(set(firsts))
    assert {b["model"]["name"] for b in bins[: firsts[0]]} == {"decoder"}
    for number, (kind, first, last) in enumerate(zip(TURNS, firsts, [*firsts[1:], len(bins)], strict=True)):
        answers = bins[first:last]
        assert len(answers) >= TURN_BINS
        digest = loading(0, files[kind])["model"]["digest"]
        told = {(b["model"]["name"], b["model"]["version"], b["model"]["digest"]) for b in answers}
        assert told == {(kind, number + 1, digest)}
        filling = LFR_BINS - 1 if number == TURNS.index("lfr") else 0  # loaded cold; later it is shown the last bins
        assert [b["label"] for b in answers] == [None] * filling + ["a"] * (len(answers) - filling)
        assert [b["reason"] for b in answers[:filling]] == [
            f"filling: {seen} of the window's {LFR_BINS} bins" for seen in range(1, filling + 1)
        ]
        assert answers[-1]["scores"] == pytest.approx(steady_scores(files[kind], LEFT), rel=1e-4, abs=1e-4)


def test_a_kalman_filter_takes_its_turn_between_classifiers_without_a_missed_bin(
    start_counts, open_source, unique_name, files
):
    session = start_counts({"name": unique_name}, targets=TARGETS)
    source = open_source(unique_name)
    turns = {"gsnn": files["gsnn"], "kalman": kalman()[1], "maxrate": files["maxrate"]}
    with streaming(steady_stream(source, LEFT)):
        session.bins(WINDOW + 5)
        receipts = []
        for number, (kind, weights) in enumerate(turns.items(), 1):
            command = loading(number, weights, state="cold")
            command["model"]["name"] = kind
            receipts.append(session.command("decoder_load", **command))
            session.bins(receipts[-1]["bin"] + TURN_BINS)
        receipts.append(session.command("decoder_rollback"))
        session.bins(receipts[-1]["bin"] + TURN_BINS)
    bins = session.predictions()
    assert [b["seq"] for b in bins] == list(range(len(bins)))
    assert {receipt["missed_bins"] for receipt in receipts} == {session.command("status")["missed_bins"]} == {0}
    firsts = [receipt["bin"] for receipt in receipts]
    for kind, first, last in zip((*turns, "kalman"), firsts, [*firsts[1:], len(bins)], strict=True):
        answers = bins[first:last]
        assert {b["model"]["name"] for b in answers} == {kind}
        continuous = kind == "kalman"
        assert {(len(b["scores"]), b["label"], b["reason"]) for b in answers} == {
            (2, None if continuous else "a", None)
        }
