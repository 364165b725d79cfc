import numpy as np
import pytest

from neuroloop.training.metrics import accuracy, balanced_accuracy, correlation, log_loss, r2


def test_an_abstention_is_a_wrong_answer():
    assert accuracy(np.array([0, -1, 1, 1]), np.array([0, 0, 1, 0])) == 0.5


def test_balanced_accuracy_counts_each_class_the_same():
    labels = np.array([0] * 9 + [1])
    answers = np.zeros(10, int)
    assert accuracy(answers, labels) == 0.9
    assert balanced_accuracy(answers, labels) == 0.5


def test_log_loss_is_that_of_the_label_and_of_chance_where_the_decoder_knew_nothing():
    probability = np.array([[0.9, 0.1], [0.0, 0.0]])
    assert log_loss(probability, np.array([0, 1])) == pytest.approx(-(np.log(0.9) + np.log(0.5)) / 2)
    assert np.isfinite(log_loss(np.array([[1.0, 0.0]]), np.array([1])))


def test_r2_and_correlation_are_means_over_the_targets_that_vary():
    targets = np.array([[0.0, 5.0, 1.0], [1.0, 5.0, 2.0], [2.0, 5.0, 4.0]])
    estimates = targets * [2.0, 1.0, 1.0]
    assert r2(estimates, targets) == pytest.approx((1 - 5 / 2 + 1) / 2)
    assert correlation(estimates, targets) == pytest.approx(1.0)
    assert correlation(np.zeros((3, 3)), targets) == 0.0
    assert np.isnan(r2(estimates[:, [1]], targets[:, [1]]))
