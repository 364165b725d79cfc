import subprocess
import sys

import numpy as np
import pytest

from neuroloop.errors import ModelError
from neuroloop.models import base, decoder_files
from neuroloop.models.base import Decoder, Remembering, digest
from neuroloop.models.lfr import LFR
from neuroloop.models.lfr_settings import LFRSettings
from neuroloop.models.lfr_state import backbone_shapes

CLASSES = ("left", "right", "up")
UNITS = 6
SMALL = {"bins": 5, "width": 8, "depth": 2, "kernel": 2}
STEADY = 30.0 * np.eye(3, UNITS, dtype=np.float32)  # a rate vector for each class


@pytest.fixture(autouse=True)
def _kind(monkeypatch):
    """Kinds are read from what is installed, which may be older than these sources."""

    class Point:
        def load(self):
            return LFR

    kinds = base._kinds()
    monkeypatch.setattr(base, "_kinds", lambda: kinds | {"lfr": Point()})


def make_decoder(linear=True, seed=0, **more):
    """With a random backbone, and a linear head that tells the rates of STEADY apart."""
    chosen = LFRSettings(**(SMALL | more))
    decoder, generator = LFR(CLASSES, UNITS, chosen), np.random.default_rng(seed)
    shapes = backbone_shapes(chosen, UNITS)
    arrays = {name: 0.4 * generator.standard_normal(shape) for name, shape in shapes.items()}
    decoder.set_backbone(arrays, np.full(UNITS, 10.0), np.full(UNITS, 5.0), (4, 0, 2))
    if chosen.head == "linear" and linear:
        features = np.array([decoder.represent(rates).copy() for rates in STEADY])
        decoder.set_linear(8 * np.linalg.pinv(features), np.zeros(3), np.array([10, 20, 30]), 1.5)
    return decoder


def answers(decoder, rates):
    return [decoder.predict(row) for row in rates]


@pytest.mark.parametrize("head", ["linear", "maxrate"])
@pytest.mark.parametrize("backbone", ["conv", "gru"])
def test_it_is_a_decoder_and_says_whether_it_learns_online(head, backbone):
    decoder = make_decoder(head=head, backbone=backbone)
    assert isinstance(decoder, Decoder)
    assert decoder.online is (head == "maxrate")


def test_it_abstains_until_its_window_is_full_and_anew_after_a_reset():
    decoder = make_decoder()
    for _ in range(2):
        scores = answers(decoder, [STEADY[1]] * 6)
        assert [one.index for one in scores] == [None] * 4 + [1, 1]
        assert scores[2].reason == "filling: 3 of the window's 5 bins"
        assert not scores[2].values.any()
        assert not scores[2].probability.any()
        decoder.reset()


def test_the_head_answers_with_the_softmax_of_its_logits():
    decoder = make_decoder()
    scores = answers(decoder, [STEADY[2]] * 5)[-1]
    np.testing.assert_allclose(scores.values, [0, 0, 8], atol=1e-3)
    np.testing.assert_allclose(scores.probability, np.exp([0, 0, 12]) / np.exp([0, 0, 12]).sum(), atol=1e-4)
    assert scores.reason is None


def test_the_answer_is_about_the_last_window_alone():
    decoder, generator = make_decoder(), np.random.default_rng(2)
    rates = generator.poisson(10, (20, UNITS)).astype(np.float32)
    long = answers(decoder, rates)[-1]
    decoder.reset()
    np.testing.assert_array_equal(answers(decoder, rates[-5:])[-1].values, long.values)


def test_an_answer_below_the_threshold_is_withheld_and_an_unused_class_is_never_the_answer():
    assert answers(make_decoder(threshold=0.99), [STEADY[0]] * 5)[-1].index == 0
    doubtful = answers(make_decoder(threshold=0.99999), [STEADY[0]] * 5)[-1]
    assert doubtful.index is None
    assert doubtful.reason == "below threshold: left at 1.00, 0.99999 is asked"
    decoder = make_decoder()
    state = decoder.state_dict()
    state["head.counts"][1] = 0
    decoder.load_state_dict(state)
    scores = answers(decoder, [STEADY[1]] * 5)[-1]
    assert scores.index != 1
    assert scores.probability[1] == 0


@pytest.mark.parametrize("head", ["linear", "maxrate"])
def test_a_fresh_one_says_that_its_backbone_was_never_fitted(head):
    decoder = LFR(CLASSES, UNITS, LFRSettings(**SMALL, head=head))
    assert {one.reason.split(";")[0] for one in answers(decoder, [STEADY[0]] * 6)} == {
        "untrained: the backbone was never fitted"
    }
    with pytest.raises(ModelError, match=r"never fitted|does not learn online"):
        decoder.learn(STEADY[0], 0)


def test_a_backbone_without_a_head_is_untrained():
    scores = answers(make_decoder(linear=False), [STEADY[0]] * 5)[-1]
    assert scores.reason == "untrained: the head was fitted to fewer than two classes"
    assert not scores.probability.any()


def test_a_linear_head_does_not_learn_and_says_what_does():
    with pytest.raises(ModelError, match="does not learn online; fit it again, or fit one with head: maxrate"):
        make_decoder().learn(STEADY[0], 0)


def test_a_maxrate_head_learns_labels_whenever_they_come():
    decoder = make_decoder(head="maxrate", width=40)
    assert answers(decoder, [STEADY[0]] * 5)[-1].reason.startswith("untrained: labels seen of 0 classes")
    generator = np.random.default_rng(3)
    for _ in range(10):
        for label, rates in enumerate(STEADY):
            decoder.learn(rates + generator.poisson(3, UNITS).astype(np.float32), label)
    assert decoder.learned() == dict.fromkeys(CLASSES, 10)
    for label, rates in enumerate(STEADY):
        decoder.reset()
        assert answers(decoder, [rates + 3] * 5)[-1].index == label


def test_a_lesson_leaves_the_window_as_it_was():
    one, other = (make_decoder(head="maxrate") for _ in range(2))
    for decoder in (one, other):
        for label, rates in enumerate(STEADY):
            decoder.learn(rates, label)
    rates = np.random.default_rng(4).poisson(10, (9, UNITS)).astype(np.float32)
    for row in rates:
        one.predict(row)
    for number, row in enumerate(rates):
        if number == 6:
            other.represent(STEADY[2])
        other.predict(row)
    np.testing.assert_array_equal(one.predict(rates[0]).values, other.predict(rates[0]).values)


def test_a_window_that_holds_still_is_what_a_rate_vector_teaches():
    decoder = make_decoder(head="maxrate")
    still = decoder.represent(STEADY[1]).copy()
    np.testing.assert_array_equal(decoder.represent(np.tile(STEADY[1], (5, 1))), still)


@pytest.mark.parametrize("head", ["linear", "maxrate"])
@pytest.mark.parametrize("backbone", ["conv", "gru"])
def test_it_comes_back_from_its_file_as_it_was(head, backbone):
    decoder = make_decoder(head=head, backbone=backbone, width=40)
    if head == "maxrate":
        for label in (0, 1, 0, 1, 2):  # the trials of the calibration hold -inf for the class not yet known
            decoder.learn(STEADY[label], label)
        assert np.isneginf(decoder._head._model.state_dict()["trial_logits"]).any()
    file = decoder_files.read(decoder_files.write(decoder_files.of(decoder, UNITS)))
    assert file.about.values == {}  # arrays only
    assert all(np.isfinite(array).all() for array in file.tensors.values())
    loaded = decoder_files.load(file)
    assert digest(loaded) == digest(decoder)
    assert loaded.chosen == (4, 0, 2)
    rates = np.random.default_rng(5).poisson(10, (9, UNITS)).astype(np.float32)
    for one, other in zip(answers(decoder, rates), answers(loaded, rates), strict=True):
        np.testing.assert_array_equal(one.probability, other.probability)


@pytest.mark.parametrize("backbone", ["conv", "gru"])
@pytest.mark.parametrize("seen", [0, 1, 4, 5, 13])
def test_with_its_memory_another_one_goes_on_to_the_bit(backbone, seen):
    one, other = make_decoder(backbone=backbone), make_decoder(backbone=backbone)
    rates = np.random.default_rng(5).poisson(10, (seen + 12, UNITS)).astype(np.float32)
    answers(one, rates[:seen])
    answers(other, rates[:3])
    assert isinstance(one, Remembering)
    other.recall(one.memory())
    for mine, yours in zip(answers(one, rates[seen:]), answers(other, rates[seen:]), strict=True):
        assert mine.reason == yours.reason
        assert mine.values.tobytes() == yours.values.tobytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"mean": np.zeros(5)}, r"expected mean as numbers of shape \(6,\), got float64 \(5,\)"),
        ({"std": np.array([1, 1, 1, 1, 1, 0.0])}, "expected std above 0"),
        ({"backbone.weight1": np.zeros((16, 7))}, r"backbone.weight1 as numbers of shape \(16, 8\)"),
        ({"backbone.bias0": np.full(8, np.nan)}, "backbone.bias0 holds values that are not finite"),
        ({"head.counts": np.array([1, -1, 0])}, "head.counts from 0 on, got -1"),
        ({"head.weight": None}, "head.weight as numbers"),
        ({"chosen": np.array([0.5])}, "expected chosen as numbers"),
        ({"kind": "maxrate"}, "expected kind 'lfr', got 'maxrate'"),
        ({"classes": ["a", "b"]}, "expected classes"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_by_name_and_changes_nothing(change, words):
    decoder = make_decoder()
    before = digest(decoder)
    with pytest.raises(ModelError, match=words):
        decoder.load_state_dict(decoder.state_dict() | change)
    assert digest(decoder) == before


@pytest.mark.parametrize("missing", ["head.numbers", "head.sums", "head.trial_logits", "backbone.weight0"])
def test_a_state_without_one_of_its_arrays_is_refused(missing):
    decoder = make_decoder(head="maxrate")
    state = decoder.state_dict()
    del state[missing]
    with pytest.raises(ModelError, match=f"{missing.removeprefix('head.')}|head.numbers is missing"):
        decoder.load_state_dict(state)


def test_rates_of_another_shape_are_refused():
    decoder = make_decoder(head="maxrate")
    with pytest.raises(ModelError, match="expected 6 features, got 5"):
        decoder.predict(np.ones(5))
    with pytest.raises(ModelError, match=r"or a window of \(5, 6\); got \(4, 6\)"):
        decoder.learn(np.ones((4, 6)), 0)
    with pytest.raises(ModelError, match="label: 3 is no class"):
        decoder.learn(np.ones(6), 3)
    with pytest.raises(ModelError, match="all 30 values are missing"):
        decoder.learn(np.full(6, np.nan), 0)


def test_it_answers_without_pytorch():
    code = (
        "import sys, numpy as np\n"
        "from neuroloop.models.lfr import LFR\n"
        "LFR(['a', 'b'], 3).predict(np.ones(3, np.float32))\n"
        "assert 'torch' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
