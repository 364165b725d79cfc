import numpy as np
import pytest
from numba import njit
from scipy import optimize

from neuroloop.models.answer_kernels import ANSWERED
from neuroloop.models.calibration import TRIALS, Trials, restore
from neuroloop.models.calibration_kernels import exp_of_negative, expectations, fit_sharpness
from neuroloop.models.readout import Readout


def probabilities(logits, eligible, sharpness):
    """The probabilities that a readout with these logits answers with."""
    values, probability = np.zeros(len(logits)), np.zeros(len(logits))
    readout = Readout(np.array([logits], float), np.zeros(len(logits)), np.array(eligible))
    outcome, _ = readout.answer(np.ones(1), sharpness, values, probability)
    assert outcome == ANSWERED
    return probability


def drawn(sharpness, trials, classes=5, seed=0):
    """Labels drawn from the softmax of random logits, (trials, classes), at a sharpness."""
    rng = np.random.default_rng(seed)
    logits = rng.standard_normal((trials, classes))
    logits -= logits.max(axis=1, keepdims=True)
    weights = np.exp(sharpness * logits)
    weights /= weights.sum(axis=1, keepdims=True)
    return logits, (weights.cumsum(axis=1) < rng.random((trials, 1))).sum(axis=1)


def fitted(logits, labels, start=0.0):
    columns = np.ascontiguousarray(np.transpose(logits), dtype=np.float32)
    own, even = expectations(columns, np.asarray(labels))
    return fit_sharpness(columns, own, even, len(labels), start)


@pytest.mark.parametrize("sharpness", [0.5, 3.0, 8.0])
def test_the_sharpness_that_drew_the_labels_is_found_again(sharpness):
    assert fitted(*drawn(sharpness, 5000)) == pytest.approx(sharpness, rel=0.1)


@pytest.mark.parametrize("start", [0.0, 1e-3, 1e3])
def test_the_fit_is_the_minimum_of_the_cross_entropy_wherever_it_starts(start):
    logits, labels = drawn(2.0, 40)

    def cross_entropy(sharpness):
        log_p = sharpness * logits - np.log(np.exp(sharpness * logits).sum(axis=1, keepdims=True))
        target = (40 * np.eye(5)[labels] + 1 / 5) / 41
        return -(target * log_p).sum()

    best = optimize.minimize_scalar(cross_entropy, bounds=(0, 50), method="bounded", options={"xatol": 1e-9}).x
    assert fitted(logits, labels, start) == pytest.approx(best, rel=2e-4)


def test_a_decoder_that_never_failed_is_not_certain():
    logits = np.array([[0.0, -1.0]] * 10)
    sharpness = fitted(logits, np.zeros(10, int))
    assert probabilities(logits[0], [True, True], sharpness)[0] == pytest.approx((10 + 0.5) / 11, abs=1e-4)


def test_a_decoder_worse_than_chance_is_given_even_probabilities():
    logits = np.array([[0.0, -1.0]] * 10)
    assert fitted(logits, np.ones(10, int)) == 0.0


def test_logits_that_are_all_equal_say_nothing():
    assert fitted(np.zeros((10, 3)), np.zeros(10, int)) == 0.0


def test_a_class_that_could_not_be_the_answer_has_no_part_in_the_fit():
    logits, labels = drawn(2.0, 40, classes=3)
    wider = np.insert(logits, 1, -np.inf, axis=1)
    assert fitted(wider, labels + (labels >= 1)) == pytest.approx(fitted(logits, labels), rel=1e-6)


def test_only_the_last_trials_count():
    trials, recent = Trials(2), Trials(2)
    for number in range(TRIALS + 44):
        for ring in (trials, recent) if number >= 44 else (trials,):
            ring.observe(np.array([1.0, 0.3 * (number % 5)]), np.ones(2), int(number < 44 or number % 7 == 0))
    assert trials.count == TRIALS + 44
    assert not (np.bincount(trials.labels) - np.bincount(recent.labels)).any()
    assert trials.sharpness == pytest.approx(recent.sharpness, rel=2e-4)


def test_a_label_that_could_not_be_the_answer_is_no_trial():
    trials = Trials(2)
    trials.observe(np.array([1.0, 0.0]), np.array([1.0, 0.0]), 1)
    assert trials.count == 0


def test_the_trials_come_back_bit_for_bit_wherever_the_ring_stands():
    rng, trials = np.random.default_rng(2), Trials(3)
    for _ in range(TRIALS + 100):
        trials.observe(rng.standard_normal(3), np.array([1.0, 1.0, rng.integers(2)]), int(rng.integers(2)))
    back = restore(trials.state_dict(), 3)
    for ring in (trials, back):
        ring.observe(np.array([0.5, 0.1, 0.2]), np.ones(3), 1)
    assert back.sharpness == trials.sharpness
    for name in ("logits", "labels", "own", "even"):
        assert np.array_equal(getattr(back, name), getattr(trials, name))


@njit
def exponentials(x):
    out = np.empty_like(x)
    for i in range(len(x)):
        out[i] = exp_of_negative(x[i])
    return out


def test_the_exponential_is_that_of_numpy():
    x = np.linspace(-80.0, 0.0, 1_000_003).astype(np.float32)
    exact = np.exp(x.astype(np.float64))
    error = np.abs(exponentials(x) / exact - 1)
    assert (error <= 4e-7 + 1e-7 * np.abs(x)).all()
    assert exponentials(np.zeros(1, np.float32))[0] == 1.0


def test_a_class_that_is_not_eligible_has_no_probability_however_large_its_logit():
    probability = probabilities([1.0, 1e9, 0.0], [True, False, True], 1e6)
    assert probability.tolist() == [1.0, 0.0, 0.0]
