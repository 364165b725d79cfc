import numpy as np
import pytest
from scipy import optimize

from neuroloop.models.answer import ANSWERED, answer
from neuroloop.models.calibration import TRIALS, Calibration, fit_sharpness


def probabilities(logits, eligible, sharpness):
    """The probabilities that a readout with these logits answers with."""
    values, probability = np.zeros(len(logits)), np.zeros(len(logits))
    outcome, _ = answer(
        np.ones(1), np.array([logits], float), np.zeros(len(logits)), np.array(eligible), np.zeros(0), sharpness,
        values, probability,
    )  # fmt: skip
    assert outcome == ANSWERED
    return probability


def drawn(sharpness, trials, classes=5, seed=0):
    """Labels drawn from the softmax of random logits at a sharpness; logits as `fit_sharpness` takes them."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((trials, classes))
    logits -= logits.max(axis=1, keepdims=True)
    weights = np.exp(sharpness * logits)
    weights /= weights.sum(axis=1, keepdims=True)
    labels = (weights.cumsum(axis=1) < rng.random((trials, 1))).sum(axis=1)
    return logits, np.ones((trials, classes), bool), labels


@pytest.mark.parametrize("sharpness", [0.5, 3.0, 8.0])
def test_the_sharpness_that_drew_the_labels_is_found_again(sharpness):
    assert fit_sharpness(*drawn(sharpness, 5000)) == pytest.approx(sharpness, rel=0.1)


@pytest.mark.parametrize("start", [0.0, 1e-3, 1e3])
def test_the_fit_is_the_minimum_of_the_cross_entropy_wherever_it_starts(start):
    logits, eligible, labels = drawn(2.0, 40)

    def cross_entropy(sharpness):
        log_p = sharpness * logits - np.log(np.exp(sharpness * logits).sum(axis=1, keepdims=True))
        target = (40 * np.eye(5)[labels] + 1 / 5) / 41
        return -(target * log_p).sum()

    best = optimize.minimize_scalar(cross_entropy, bounds=(0, 50), method="bounded", options={"xatol": 1e-9}).x
    assert fit_sharpness(logits, eligible, labels, start) == pytest.approx(best, rel=1e-4)


def test_a_decoder_that_never_failed_is_not_certain():
    logits = np.array([[0.0, -1.0]] * 10)
    sharpness = fit_sharpness(logits, np.ones((10, 2), bool), np.zeros(10, int))
    assert probabilities(logits[0], [True, True], sharpness)[0] == pytest.approx((10 + 0.5) / 11, abs=1e-4)


def test_a_decoder_worse_than_chance_is_given_even_probabilities():
    logits = np.array([[0.0, -1.0]] * 10)
    assert fit_sharpness(logits, np.ones((10, 2), bool), np.ones(10, int)) == 0.0


def test_logits_that_are_all_equal_say_nothing():
    assert fit_sharpness(np.zeros((10, 3)), np.ones((10, 3), bool), np.zeros(10, int)) == 0.0


def test_only_the_last_trials_count():
    trials = Calibration.empty(2)
    eligible = np.array([True, True])
    for number in range(TRIALS + 44):
        trials = trials.observe(np.array([1.0, 0.0]), eligible, int(number < 44))
    assert trials.logits.shape == (TRIALS, 2)
    assert not trials.labels.any()


def test_a_class_that_is_not_eligible_has_no_probability_however_large_its_logit():
    probability = probabilities([1.0, 1e9, 0.0], [True, False, True], 1e6)
    assert probability.tolist() == [1.0, 0.0, 0.0]
