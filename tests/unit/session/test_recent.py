"""What decoders have just seen is kept for one that comes in later, as far as it goes."""

import numpy as np
import pytest

from neuroloop.session.accuracy import Accuracy, AnswerLog
from neuroloop.session.recent import BINS, LESSONS, RecentBins, RecentLessons
from neuroloop.session.running import Taught


def lesson(index=0, bins=()):
    return Taught(np.ones(1, np.float32), index, 1.0, np.array(bins, np.int64))


@pytest.mark.parametrize("added", [3, BINS, BINS + 7])
def test_bins_come_back_oldest_first_as_far_as_they_are_kept(added):
    recent = RecentBins(1)
    for number in range(added):
        recent.add(np.full(1, number, np.float32))
    assert recent.since(added - 2)[:, 0].tolist() == [added - 2, added - 1]
    assert recent.since(-50)[:, 0].tolist() == list(range(max(0, added - BINS), added))


def test_bins_before_a_reset_are_not_given_to_anybody():
    recent = RecentBins(1)
    for number in range(4):
        recent.add(np.full(1, number, np.float32))
        if number == 1:
            recent.clear()
    assert recent.since(0)[:, 0].tolist() == [2, 3]


@pytest.mark.parametrize("added", [0, 5, BINS - 1, BINS + 7])
@pytest.mark.parametrize("cleared", [0, 3, BINS])
def test_bins_go_on_in_another_one_with_their_state(added, cleared):
    one, other = RecentBins(2), RecentBins(2)
    for number in range(added):
        one.add(np.full(2, number, np.float32))
        if number == cleared:
            one.clear()
    other.load_state_dict(one.state_dict())
    for number in range(added, added + 20):
        for recent in (one, other):
            recent.add(np.full(2, number, np.float32))
        for first in (0, added - 3, added):
            np.testing.assert_array_equal(one.since(first), other.since(first))


def test_labels_are_counted_also_beyond_those_that_are_kept():
    recent = RecentLessons()
    for number in range(LESSONS + 5):
        recent.add(lesson(number))
    assert (recent.first, recent.added) == (5, LESSONS + 5)
    assert [taught.index for taught in recent.since(LESSONS + 3)] == [LESSONS + 3, LESSONS + 4]


def test_answers_are_judged_by_the_bins_of_a_label_that_are_kept():
    log = AnswerLog(4)
    for number, answer in enumerate([0, 0, 1, None, 0, 1]):
        log.add(number, answer)  # 2 to 5 are kept
    assert log.judge(Accuracy(1, 1, 0), [lesson(0, bins=range(6))]) == Accuracy(5, 2, 1)
    assert log.judge(Accuracy(), [lesson(1, bins=[5]), lesson(0, bins=[])]) == Accuracy(1, 1, 0)
