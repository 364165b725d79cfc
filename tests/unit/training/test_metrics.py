import numpy as np
import pytest

from neuroloop.training.metrics import accuracy, balanced_accuracy, log_loss


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
