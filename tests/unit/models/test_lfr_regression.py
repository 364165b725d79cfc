import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from neuroloop.models.lfr_regression import Lessons, Patience, fit_linear, fit_sharpness
from neuroloop.models.lfr_settings import LFRFitSettings

RIDGE = 0.01


def make_lessons(count=300, classes=3, width=5, seed=0):
    """Features, (count, width), with unlike scales, and noisy labels of them."""
    generator = np.random.default_rng(seed)
    features = generator.gamma(2.0, [0.1, 1, 5, 20, 100], (count, width)).astype(np.float32)
    true = np.random.default_rng(9).standard_normal((width, classes)) / np.array([0.1, 1, 5, 20, 100])[:, None]
    p = np.exp(features @ true)
    labels = np.array([generator.choice(classes, p=row / row.sum()) for row in p])
    weights = generator.uniform(0.2, 1.8, count).astype(np.float32)
    return torch.from_numpy(features), Lessons(np.arange(count), labels, weights, trials=count // 10)


def ignore(_epoch, _loss):
    return None


def log_p(features, linear, sharpness=1.0):
    logits = sharpness * (features.numpy() @ linear.weight + linear.bias).astype(np.float64)
    return (
        logits
        - np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1, keepdims=True))
        - logits.max(1, keepdims=True)
    )


def test_the_head_is_the_minimum_that_scipy_finds():
    features, lessons = make_lessons()
    settings = LFRFitSettings(ridge=RIDGE, head_epochs=100, patience=100)
    linear = fit_linear(features, lessons, None, None, 3, settings, ignore)
    values = features.numpy().astype(np.float64)
    mean, std = values.mean(0), values.std(0)
    inputs = (values - mean) / std

    def loss(x):
        weight, bias = x[:15].reshape(5, 3), x[15:]
        logits = inputs @ weight + bias
        of_label = np.log(np.exp(logits).sum(1)) - logits[np.arange(300), lessons.labels]
        return (lessons.weights * of_label).sum() / lessons.weights.sum() + RIDGE * np.square(weight).sum()

    found = minimize(loss, np.zeros(18), method="BFGS", options={"gtol": 1e-8}).x
    np.testing.assert_allclose(linear.weight * std[:, None], found[:15].reshape(5, 3), atol=1e-4)
    bias = linear.bias + mean @ linear.weight.astype(np.float64)
    np.testing.assert_allclose(bias - bias.mean(), found[15:] - found[15:].mean(), atol=1e-3)
    assert linear.sharpness == 1.0


def test_it_stops_where_held_back_trials_get_no_better():
    features, lessons = make_lessons(count=30)
    tested, held_back = make_lessons(seed=1)
    losses = []
    settings = LFRFitSettings(ridge=0, patience=5)
    linear = fit_linear(features, lessons, tested, held_back, 3, settings, lambda _epoch, loss: losses.append(loss))
    of_labels = -log_p(tested, linear)[np.arange(300), held_back.labels]
    assert np.average(of_labels, weights=held_back.weights) == pytest.approx(min(losses), rel=1e-3)
    assert len(losses) < settings.head_epochs


def test_logits_that_are_twice_as_large_are_half_as_sharp():
    features, held_back = make_lessons()
    logits = features.numpy() @ np.random.default_rng(9).standard_normal((5, 3)) / 20
    one, other = fit_sharpness(logits, held_back), fit_sharpness(2 * logits, held_back)
    assert one / other == pytest.approx(2, rel=0.03)


def test_a_head_that_never_failed_is_not_certain():
    logits = 100 * np.eye(3)[np.arange(30) % 3]
    held_back = Lessons(np.arange(30), np.arange(30) % 3, np.ones(30, np.float32), trials=30)
    scaled = np.exp(fit_sharpness(logits, held_back) * (logits[0] - 100))
    assert scaled[0] / scaled.sum() == pytest.approx(30 / 31, abs=0.01)


def test_patience_counts_epochs_without_improvement_and_nan_as_none():
    patience = Patience(2)
    assert [patience.is_better(loss) for loss in (1.0, 0.5, 0.5, 0.4)] == [True, True, False, True]
    assert not patience.is_over
    assert [patience.is_better(loss) for loss in (0.6, float("nan"))] == [False, False]
    assert patience.is_over
