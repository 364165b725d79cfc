"""Labels wait for their last bin, reach back 60 s, and never teach from what cannot be trusted."""

import numpy as np
import pytest

from neuroloop.errors import ModelError
from neuroloop.session.labels import Labels, RateHistory

BIN = 0.02


def history(bins=100, unusable=()):
    kept = RateHistory(2, BIN)
    for number in range(bins):
        kept.add(number, (number + 1) * BIN, np.array([number, 2 * number], np.float32), number not in unusable)
    return kept


@pytest.fixture
def labels():
    return Labels(("left", "right"), window_s=0.5)


def test_a_label_covers_the_bins_whose_centre_lies_in_its_interval(labels):
    kept = history()
    labels.submit(kept, "left", 0.1, 0.2)
    (lesson,) = labels.complete(kept)
    assert lesson.bins == 5
    np.testing.assert_allclose(lesson.rates, [7, 14])
    assert labels.learned == 1


def test_a_label_waits_until_its_last_bin_is_complete(labels):
    kept = history(10)
    labels.submit(kept, "right", 0.1, 0.3)
    assert labels.complete(kept) == []
    for number in range(10, 16):
        assert labels.complete(kept) == []
        assert labels.pending == 1
        kept.add(number, (number + 1) * BIN, np.zeros(2, np.float32), True)
        if (number + 1.5) * BIN >= 0.3:
            break
    (lesson,) = labels.complete(kept)
    assert lesson.label.index == 1
    assert lesson.bins == 10
    assert labels.pending == 0


def test_a_label_without_times_is_for_the_window_that_just_ended(labels):
    kept = history(100)
    label = labels.submit(kept, "left", None, None)
    assert (label.start, label.end) == (pytest.approx(1.5), pytest.approx(2.0))
    assert labels.complete(kept)[0].bins == 25


def test_a_label_reaches_back_sixty_seconds_and_no_further(labels):
    kept = history(4000)
    assert labels.submit(kept, "left", 20.1, 20.6)
    assert labels.complete(kept)[0].bins == 25
    with pytest.raises(ModelError, match="rates are kept from 20"):
        labels.submit(kept, "left", 19.0, 19.5)


def test_bins_that_cannot_be_trusted_teach_nothing(labels):
    kept = history(100, unusable=range(5, 8))
    labels.submit(kept, "left", 0.1, 0.2)
    assert labels.complete(kept)[0].bins == 2
    labels.submit(kept, "left", 0.1, 0.16)
    assert labels.complete(kept)[0].bins == 0
    assert (labels.learned, labels.refused) == (1, 1)


@pytest.mark.parametrize(
    ("label", "start", "end", "words"),
    [
        ("up", 0.1, 0.2, "left, right"),
        (None, 0.1, 0.2, "left, right"),
        (["left"], 0.1, 0.2, "left, right"),
        ("left", 0.2, 0.1, "start before end"),
        ("left", 0.2, None, "both start and end"),
        ("left", 0.1, float("inf"), "finite"),
        ("left", 0.1, 90.0, "at most 60 s"),
        ("left", 100.0, 101.0, "after the newest bin"),
    ],
)
def test_a_label_that_cannot_be_learned_is_refused_with_the_reason(labels, label, start, end, words):
    with pytest.raises(ModelError, match=words):
        labels.submit(history(), label, start, end)
    assert (labels.pending, labels.refused) == (0, 1)


def test_before_the_first_bin_a_label_without_times_is_refused(labels):
    with pytest.raises(ModelError, match="no bin is complete yet"):
        labels.submit(RateHistory(2, BIN), "left", None, None)


def test_the_queue_of_waiting_labels_is_bounded(labels):
    kept = history()
    for _ in range(256):
        labels.submit(kept, "left", 3.0, 3.5)
    with pytest.raises(ModelError, match="256 labels wait"):
        labels.submit(kept, "left", 3.0, 3.5)


def test_bins_are_fetched_by_their_numbers_as_far_as_they_are_kept():
    kept = history(3100, unusable={150})  # of which a minute is 3000
    assert kept.first == 100
    bins = kept.since(0, 60)
    assert (bins.first, len(bins.usable)) == (100, 60)
    assert bins.values[:, 0].tolist() == list(range(100, 160))
    assert np.flatnonzero(~bins.usable).tolist() == [50]
    np.testing.assert_allclose(bins.centers, (np.arange(100, 160) + 0.5) * BIN)
    assert kept.since(3095, 60).values[:, 1].tolist() == [2 * number for number in range(3095, 3100)]
    assert len(kept.since(3100, 60).usable) == 0
    assert len(kept.since(4000, 60).usable) == 0


def test_what_is_fetched_does_not_change_with_the_bins_to_come(labels):
    kept = history(3000)
    bins = kept.since(0, 10)
    labels.submit(kept, "left", 59.0, 59.5)
    kept.add(3000, 60.02, np.full(2, -1, np.float32), True)
    assert bins.values[0].tolist() == [0, 0]
    assert [label.label for label in labels.recent] == ["left"]


@pytest.mark.parametrize("bins", [7, 2999, 3000, 3001, 4711])
def test_bins_that_are_given_back_with_their_numbers_teach_the_same_to_the_bit(bins):
    random = np.random.default_rng(bins)
    one, other = RateHistory(3, BIN), RateHistory(3, BIN)
    values = random.gamma(2.0, 5.0, (bins + 50, 3)).astype(np.float32)
    for number in range(bins):
        one.add(number, (number + 1) * BIN, values[number], number % 7 > 0)
    first = one.first
    numbers, *columns = one.rows(first, one.added - first)
    other.restore(*columns, one.end, int(numbers[0]))
    for number in range(bins, bins + 50):
        for kept in (one, other):
            kept.add(number, (number + 1) * BIN, values[number], True)
        start = random.uniform(max(0, number - 3000), number) * BIN
        for (mine, my_bins), (yours, your_bins) in [[kept.mean(start, start + 20) for kept in (one, other)]]:
            assert mine.tobytes() == yours.tobytes()
            np.testing.assert_array_equal(my_bins, your_bins)
        assert (one.start, one.first, one.end) == (other.start, other.first, other.end)
