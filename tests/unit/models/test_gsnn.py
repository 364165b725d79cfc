"""The decoder: what it answers, against the PyTorch form that is held to the published one; what it keeps."""

import subprocess
import sys
from dataclasses import replace
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import torch
from tests.unit.models.gsnn_networks import VARIANTS, make_graph, make_uneven_graph, make_weights

from neuroloop.errors import ModelError
from neuroloop.models import base, decoder_files
from neuroloop.models.base import Decoder, digest
from neuroloop.models.gsnn import GSNN
from neuroloop.models.gsnn_settings import GSNNSettings
from neuroloop.models.gsnn_state import check_gsnn, standardised
from neuroloop.models.gsnn_torch import GSNNModule

CLASSES = ("left", "right", "up")


@pytest.fixture(autouse=True)
def gsnn_kind(monkeypatch):
    kinds = {"gsnn": EntryPoint("gsnn", "neuroloop.models.gsnn:GSNN", base.GROUP)}
    monkeypatch.setattr(base, "_kinds", lambda: kinds)


def make_decoder(graph=None, **chosen):
    graph = graph or make_graph()
    settings, weights = make_weights(graph, **chosen)
    decoder = GSNN(CLASSES[: graph.outputs], graph.inputs, settings)
    decoder.take(weights)
    return decoder


def logits(decoder, rates):
    """As the PyTorch form computes them."""
    weights = decoder.weights
    module = GSNNModule(weights.graph, decoder.settings, weights.parameters)
    with torch.no_grad():
        return module(torch.from_numpy(standardised(rates, weights.mean, weights.scale))).outputs.double().numpy()


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("make", [make_graph, make_uneven_graph])
def test_the_answer_is_that_of_the_pytorch_form(variant, make):
    decoder = make_decoder(make(), **VARIANTS[variant])
    rates = np.random.default_rng(3).uniform(0, 12, (6, decoder.features))
    for one, expected in zip(rates, logits(decoder, rates), strict=True):
        scores = decoder.predict(one)
        np.testing.assert_allclose(scores.values, expected, rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(scores.probability, torch.from_numpy(1.5 * scores.values).softmax(0), rtol=1e-6)
        assert scores.index == scores.values.argmax()
        assert scores.reason is None


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32, bool])
def test_rates_may_be_of_any_real_type_and_layout(dtype):
    decoder = make_decoder()
    rates = np.array([[3, 0], [1, 9], [0, 2]] * 4).astype(dtype)[:, 0]
    expected = decoder.predict(np.ascontiguousarray(rates, dtype=np.float32))
    np.testing.assert_array_equal(decoder.predict(rates).values, expected.values)


def test_a_missing_rate_counts_as_its_mean_and_with_all_missing_there_is_no_answer():
    decoder = make_decoder()
    rates = np.random.default_rng(3).uniform(0, 12, 12).astype(np.float32)
    rates[[2, 5]] = decoder.weights.mean[[2, 5]]
    expected = decoder.predict(rates).values
    rates[[2, 5]] = np.nan, np.inf
    np.testing.assert_array_equal(decoder.predict(rates).values, expected)
    scores = decoder.predict(np.full(12, np.nan))
    assert (scores.index, scores.reason) == (None, "no evidence: all 12 features are missing")
    assert scores.values.tolist() == scores.probability.tolist() == [0.0, 0.0, 0.0]


def test_rates_beyond_what_can_be_added_up_give_no_answer():
    decoder = make_decoder(norm="none")
    loud = decoder.weights.parameters.in_weight * np.float32(1e6)
    decoder.take(replace(decoder.weights, parameters=replace(decoder.weights.parameters, in_weight=loud)))
    scores = decoder.predict(np.full(12, 3e38, np.float32))
    assert scores.index is None
    assert "out of range" in scores.reason
    assert not scores.values.any()


def test_a_temperature_or_threshold_of_the_settings_is_obeyed():
    rates = np.random.default_rng(3).uniform(0, 12, 12)
    cold, hot = (make_decoder(temperature=temperature).predict(rates) for temperature in (0.01, 100.0))
    assert cold.probability.max() > 0.99
    assert hot.probability.max() < 0.4
    scores = make_decoder(temperature=100.0, threshold=0.9).predict(rates)
    assert scores.index is None
    assert scores.reason.startswith(f"below threshold: {CLASSES[hot.index]} at 0.3")


def test_a_fresh_decoder_says_that_it_is_untrained():
    decoder = GSNN(CLASSES, 12)
    assert isinstance(decoder, Decoder)
    scores = decoder.predict(np.ones(12))
    assert scores.index is None
    assert scores.reason.startswith("untrained")
    assert decoder.learned() == {"left": 0, "right": 0, "up": 0}
    assert decoder.temperature is None
    other = make_decoder()
    other.load_state_dict(decoder.state_dict() | {"settings": other.state_dict()["settings"]})
    assert other.predict(np.ones(12)).reason == scores.reason


def test_it_does_not_learn_online_and_says_what_to_do():
    decoder = make_decoder()
    before = digest(decoder)
    assert decoder.online is False
    with pytest.raises(ModelError, match="doesn't learn in a session: fit a new version"):
        decoder.learn(np.ones(12), 0)
    assert digest(decoder) == before
    assert decoder.learned() == {"left": 1, "right": 2, "up": 3}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_decoder_comes_back_from_its_file_as_it_was(variant):
    decoder = make_decoder(**VARIANTS[variant])
    file = decoder_files.read(decoder_files.write(decoder_files.of(decoder, 12)))
    assert file.about.values == {}
    loaded = decoder_files.load(file)
    rates = np.random.default_rng(3).uniform(0, 12, 12)
    np.testing.assert_array_equal(loaded.predict(rates).values, decoder.predict(rates).values)
    assert digest(loaded) == digest(decoder)
    assert loaded.temperature == pytest.approx(1 / 1.5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "maxrate"}, "expected kind 'gsnn', got 'maxrate'"),
        ({"classes": ["a", "b", "c"]}, "expected classes"),
        ({"nodes": np.array([11, 12, 3])}, r"input_function: input 11 is none of the 11"),
        ({"nodes": np.array([13, 12, 3])}, r"expected 12 inputs \(features\) and 3 outputs \(classes\), got 13 and 3"),
        ({"nodes": None}, "expected nodes as three counts"),
        ({"mean": np.zeros(11)}, r"mean as finite floats of shape \(12,\), got float64 \(11,\)"),
        ({"scale": np.zeros(12)}, "scale above 0, got 0"),
        ({"sharpness": np.array([-1.0])}, "sharpness from 0 on, got -1"),
        ({"samples": np.array([1, -2, 3])}, "samples as 3 integers from 0 on"),
        ({"in_bias": np.zeros((3, 12, 3))}, r"in_bias: expected real numbers of shape \(3, 12, 4\)"),
        ({"residual": np.full(3, np.inf)}, "residual: expected finite numbers"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change, message):
    decoder = make_decoder()
    before = digest(decoder)
    with pytest.raises(ModelError, match=message):
        decoder.load_state_dict(decoder.state_dict() | change)
    assert digest(decoder) == before


def test_a_file_can_be_checked_without_a_decoder():
    decoder = make_decoder()
    state = decoder.state_dict()
    check_gsnn(state["settings"], 12, 3, state)
    with pytest.raises(ModelError, match=r"in_weight: expected shape .* got none"):
        check_gsnn(state["settings"], 12, 3, {k: v for k, v in state.items() if k != "in_weight"})
    with pytest.raises(ModelError, match="layrs: unknown; gsnn has"):
        check_gsnn({"layrs": 2}, 12, 3, state)


def test_rates_of_another_length_are_refused():
    with pytest.raises(ModelError, match="expected 12 features, got 11"):
        make_decoder().predict(np.ones(11))


def test_a_session_needs_no_pytorch_for_it_and_a_registry_no_compiler():
    program = (
        "import sys, neuroloop.models.gsnn_state; assert not {'torch', 'numba'} & set(sys.modules);"
        "import neuroloop.models.gsnn; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_settings_know_their_graphs_by_kind():
    given = {"graph": {"kind": "clusters", "clusters": [[0, 1], [2]]}}
    assert GSNNSettings.model_validate(given).graph.clusters == [[0, 1], [2]]
    with pytest.raises(ValueError, match="'knn', 'clusters', 'nodes'"):
        GSNNSettings.model_validate({"graph": {"kind": "ring"}})
