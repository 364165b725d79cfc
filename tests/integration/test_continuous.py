"""A decoder of continuous targets in a session: the state comes out at every bin, in messages and over LSL."""

import hashlib

import numpy as np
import pylsl
import pytest
from tests.integration.conftest import COUNTS, Refused

from neuroloop.models import decoder_files
from neuroloop.models.continuous import Kalman
from neuroloop.models.gsnn_continuous import GSNNContinuous
from neuroloop.models.gsnn_graph import from_positions
from neuroloop.models.gsnn_parameters import start
from neuroloop.models.gsnn_state import GSNNTargetWeights

TARGETS = ["x", "y"]


def kalman(targets=TARGETS):
    decoder = Kalman(targets, 4)
    states = 2 * len(targets)
    decoder.take(
        {
            "matrix": np.eye(4, states) / 100,
            "bias": np.zeros(states),
            "mean": np.arange(len(targets), dtype=float),
            "follow": np.eye(states),
            "correct": np.eye(states) / 2,
            "samples": np.ones(1, np.int64),
        }
    )
    return decoder, decoder_files.write(decoder_files.of(decoder, 4))


def network(targets=TARGETS):
    decoder = GSNNContinuous(targets, 4)
    graph = from_positions([[0.0], [1.0], [2.0], [3.0]], 4, len(targets), 2)
    parameters, rates = start(decoder.settings, graph, seed=1), np.full(4, 100, np.float32)
    answers = np.arange(1.0, 1.0 + len(targets))
    decoder.take(GSNNTargetWeights(graph, parameters, rates, rates, answers, answers, samples=1).arrays())
    return decoder, decoder_files.write(decoder_files.of(decoder, 4))


def loading(weights):
    model = {"name": "cursor", "version": 1, "digest": f"sha256:{hashlib.sha256(weights).hexdigest()}"}
    return {"model": model, "weights": weights, "state": "cold"}


@pytest.mark.parametrize(("kind", "made"), [("kalman", kalman), ("gsnn_continuous", network)])
def test_a_session_without_classes_answers_with_the_targets_at_every_bin(
    start_session, open_source, unique_name, kind, made
):
    session = start_session(
        name=unique_name,
        stream={"name": unique_name},
        front_end=COUNTS,
        window=5,
        targets=TARGETS,
        decoders=[{"name": "cursor", "kind": kind}],
    )
    source = open_source(unique_name)
    source.wait_for_consumers()
    (found,) = pylsl.resolve_byprop("name", f"{unique_name}-targets", timeout=20)
    inlet = pylsl.StreamInlet(found)
    inlet.open_stream()
    source.push(np.ones((200, 4), np.float32))
    assert session.bins(10)[-1]["reason"].startswith("untrained: ")
    decoder, weights = made()
    with pytest.raises(Refused, match="expected the targets x, y; got x, z"):
        session.command("decoder_load", **loading(made(["x", "z"])[1]))
    session.ask("decoder_load", **loading(weights))
    swapped = session.event("decoder_swapped")
    source.push(np.tile(np.float32([1, 2, 3, 4]), (400, 1)))
    answers = session.bins(30)[swapped["bin"] : 30]
    session.answer("decoder_load")
    session.until(lambda: len(session.messages["rates"]) >= 30, "the rates")
    rates = [message["rates"] for message in session.messages["rates"]][swapped["bin"] : 30]
    expected = [decoder.predict(np.float32(row)).values for row in rates]
    np.testing.assert_allclose([answer["scores"] for answer in answers], expected, rtol=1e-6)
    nothing = {(answer["label"], answer["index"], answer["reason"], answer["confidence"]) for answer in answers}
    assert nothing == {(None, None, None, None)}
    samples = [sample for sample, _ in (inlet.pull_sample(timeout=5) for _ in range(30))]
    np.testing.assert_allclose(samples[swapped["bin"] :], expected, rtol=1e-6)
    assert np.isnan(samples[: swapped["bin"]]).all()
    status = session.command("status")
    assert (status["targets"], status["classes"]) == (TARGETS, [])
    assert status["decoders"][0]["accuracy"] == {"bins": 0, "correct": 0, "abstained": 0}
