"""GSNN for continuous targets: what it answers, against the PyTorch form, what it keeps, and what a fit finds."""

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.linear_model import RidgeCV
from tests.unit.models.gsnn_networks import VARIANTS, make_graph, make_weights
from tests.unit.models.interruptions import interrupted

from neuroloop.errors import ModelError
from neuroloop.models import decoder_files
from neuroloop.models.base import Decoder, digest
from neuroloop.models.continuous_settings import GSNNContinuousSettings
from neuroloop.models.continuous_state import check_continuous
from neuroloop.models.gsnn_continuous import GSNNContinuous
from neuroloop.models.gsnn_continuous_fit import fit
from neuroloop.models.gsnn_graph import make_graph as graph_of
from neuroloop.models.gsnn_settings import GSNNContinuousFitSettings
from neuroloop.models.gsnn_state import GSNNTargetWeights, read_target_weights, standardised
from neuroloop.models.gsnn_torch import GSNNModule

TARGETS = ("x", "y", "z")
UNITS = 24


def make_decoder(**chosen):
    _, network = make_weights(make_graph(), **chosen)
    known = (network.graph, network.parameters, network.mean, network.scale)
    decoder = GSNNContinuous(TARGETS, 12, GSNNContinuousSettings(**chosen))
    decoder.take(GSNNTargetWeights(*known, np.array([5.0, -3.0, 0.0]), np.array([1.0, 2.0, 0.5]), samples=7).arrays())
    return decoder


def seen_by_fields(bins=1500, seed=0):
    """A walk between -1 and 1 in two dimensions, and the counts of units that each like a place in it."""
    generator = np.random.default_rng(seed)
    steps = np.cumsum(0.1 * generator.standard_normal((bins, 2)), axis=0)
    targets = np.abs((steps + 1) % 4 - 2) - 1
    distance = ((targets[:, None] - generator.uniform(-1, 1, (UNITS, 2))) ** 2).sum(axis=2)
    return generator.poisson(8 * np.exp(-4 * distance)).astype(float), targets + np.array([7.0, -2.0])


def run(rates, targets, on_epoch=None, kept=None, **training):
    settings = GSNNContinuousSettings(layers=2)
    held_back = np.arange(len(targets)) >= 0.8 * len(targets)
    chosen = GSNNContinuousFitSettings(**{"epochs": 40} | training)
    more = {} if kept is None else {"kept": kept}
    graph = graph_of(settings.graph, UNITS, ["x", "y"])
    found = fit(rates, targets, held_back, graph, settings, chosen, on_epoch, **more)
    decoder = GSNNContinuous(["x", "y"], UNITS, settings)
    decoder.take(found.weights.arrays())
    return found, decoder


def answers(decoder, rates):
    return np.array([decoder.predict(one).values for one in rates])


@pytest.mark.parametrize("variant", VARIANTS)
def test_the_answer_is_that_of_the_pytorch_form_in_the_units_of_the_targets(variant):
    decoder = make_decoder(**VARIANTS[variant])
    weights = read_target_weights(decoder.settings, 12, 3, decoder.state_dict())
    rates = np.random.default_rng(3).uniform(0, 12, (6, 12))
    module = GSNNModule(weights.graph, decoder.settings, weights.parameters)
    with torch.no_grad():
        outputs = module(torch.from_numpy(standardised(rates, weights.mean, weights.scale))).outputs.double().numpy()
    expected = outputs * np.array([1.0, 2.0, 0.5]) + np.array([5.0, -3.0, 0.0])
    np.testing.assert_allclose(answers(decoder, rates), expected, rtol=1e-5, atol=1e-5)
    scores = decoder.predict(rates[0])
    assert (scores.index, scores.reason, scores.probability.size) == (None, None, 0)


def test_a_missing_rate_counts_as_its_mean_and_with_all_missing_nothing_is_answered():
    decoder = make_decoder()
    rates = np.random.default_rng(3).uniform(0, 12, 12).astype(np.float32)
    rates[[2, 5]] = decoder.state_dict()["mean"][[2, 5]]
    expected = decoder.predict(rates).values
    rates[[2, 5]] = np.nan, np.inf
    np.testing.assert_array_equal(decoder.predict(rates).values, expected)
    scores = decoder.predict(np.full(12, np.nan))
    assert (scores.values.tolist(), scores.reason) == ([0, 0, 0], "no evidence: all 12 features are missing")
    loud = make_decoder()
    loud.take(loud.state_dict() | {"in_weight": loud.state_dict()["in_weight"] * np.float32(1e6)})
    assert "out of range" in loud.predict(np.full(12, 3e38, np.float32)).reason


def test_it_does_not_learn_in_a_session_and_says_when_it_is_untrained():
    decoder = GSNNContinuous(TARGETS, 12)
    assert isinstance(decoder, Decoder)
    assert (decoder.online, decoder.continuous, decoder.classes) == (False, True, ())
    assert (
        decoder.predict(np.ones(12)).reason == "untrained: load a version that a fit of kind gsnn_continuous has made"
    )
    with pytest.raises(ModelError, match="gsnn_continuous does not learn in a session: fit a new version from targets"):
        decoder.learn(np.ones(12), 0)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_decoder_comes_back_from_its_state_as_it_was(variant):
    decoder = make_decoder(**VARIANTS[variant])
    loaded = GSNNContinuous(TARGETS, 12, decoder.settings)
    loaded.load_state_dict(
        decoder_files.read(decoder_files.write(decoder_files.of(decoder, 12))).tensors
        | {"kind": "gsnn_continuous", "targets": list(TARGETS)}
    )
    rates = np.random.default_rng(3).uniform(0, 12, (3, 12))
    np.testing.assert_array_equal(answers(loaded, rates), answers(decoder, rates))
    assert digest(loaded) == digest(decoder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": ["x", "y"]}, "expected targets"),
        ({"nodes": np.array([13, 12, 3])}, r"expected 12 inputs \(features\) and 3 outputs \(targets\), got 13 and 3"),
        ({"target_mean": np.zeros(2)}, r"target_mean as finite floats of shape \(3,\), got float64 \(2,\)"),
        ({"target_scale": -np.ones(3)}, "target_scale from 0 on, got -1"),
        ({"in_bias": np.zeros((3, 12, 3))}, r"in_bias: expected real numbers of shape \(3, 12, 4\)"),
        ({"samples": np.array([-1])}, "samples from 0 on, got -1"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change, message):
    decoder = make_decoder()
    before, state = digest(decoder), decoder.state_dict() | change
    with pytest.raises(ModelError, match=message):
        decoder.load_state_dict(state)
    assert digest(decoder) == before
    if "targets" not in change:
        with pytest.raises(ModelError, match=message):
            check_continuous("gsnn_continuous", state["settings"], 12, 3, state)


def test_a_fit_finds_what_units_with_fields_say_where_a_linear_one_cannot():
    rates, targets = seen_by_fields()
    found, decoder = run(rates[:1200], targets[:1200])
    wrong = np.square(answers(decoder, rates[1200:]) - targets[1200:]).mean()
    line = RidgeCV(np.logspace(-2, 4, 7)).fit(rates[:1200], targets[:1200])
    assert wrong < 0.7 * np.square(line.predict(rates[1200:]) - targets[1200:]).mean()
    assert wrong < 0.1 * targets[1200:].var(axis=0).mean()
    assert found.weights.samples == 1200
    assert min(found.curve) < 0.2


def test_features_taken_as_missing_while_it_learns_do_not_change_the_size_of_its_answers():
    rates, targets = seen_by_fields()
    _, decoder = run(rates, targets, missing=0.5)
    slopes = [np.polyfit(targets[:, axis], answers(decoder, rates)[:, axis], 1)[0] for axis in (0, 1)]
    assert slopes == pytest.approx([1, 1], abs=0.15)


@pytest.mark.parametrize("after", [1, 5])
def test_a_fit_that_was_interrupted_goes_on_to_the_same_end(after):
    rates, targets = seen_by_fields(300)

    def once(kept=None):
        return run(rates, targets, kept=kept, epochs=5)

    (expected, one), (resumed, other) = once(), interrupted(once, after)
    assert resumed.curve == expected.curve
    assert digest(other) == digest(one)


def test_a_target_that_never_changes_is_answered_with_its_value():
    rates, targets = seen_by_fields(300)
    targets[:, 1] = 4.0
    _, decoder = run(rates, targets, epochs=3)
    assert set(answers(decoder, rates)[:, 1]) == {4.0}


def test_a_session_needs_no_pytorch_for_it_and_a_registry_no_compiler():
    program = (
        "import sys, neuroloop.models.continuous_state; assert not {'torch', 'numba'} & set(sys.modules);"
        "import neuroloop.models.gsnn_continuous; assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
