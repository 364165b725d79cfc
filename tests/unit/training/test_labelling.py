import numpy as np

from neuroloop.training.labelling import label_bins

TIMES = 0.01 + 0.02 * np.arange(10)  # centres


def test_a_bin_has_the_label_of_the_interval_that_its_centre_lies_in():
    labels, numbers = label_bins(TIMES, [("b", 0.1, 0.14), ("a", 0.0, 0.06)], ["a", "b"])
    assert labels.tolist() == [0, 0, 0, -1, -1, 1, 1, -1, -1, -1]
    assert numbers.tolist() == [0, 0, 0, -1, -1, 1, 1, -1, -1, -1]


def test_trials_of_one_label_that_touch_have_numbers_of_their_own():
    labels, numbers = label_bins(TIMES, [("a", 0.0, 0.1), ("a", 0.1, 0.2)], ["a", "b"])
    assert set(labels.tolist()) == {0}
    assert numbers.tolist() == [0] * 5 + [1] * 5


def test_the_later_of_two_intervals_wins_and_labels_of_no_class_are_passed_over():
    labels, _ = label_bins(TIMES, [("a", 0.0, 0.2), ("b", 0.1, 0.2), ("rest", 0.0, 0.2)], ["a", "b"])
    assert labels.tolist() == [0] * 5 + [1] * 5
    assert label_bins(TIMES[:0], [("a", 0.0, 1.0)], ["a", "b"])[0].shape == (0,)
