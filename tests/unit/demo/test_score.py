"""What counts as a right answer, and as a bin that came."""

import pytest

from neuroloop.demo.score import Account, Score, Trial


def answers(score, decoder, *given):
    for time, label in given:
        score.take(decoder, {"time": time, "label": label})


@pytest.fixture
def score():
    made = Score(["one", "two"], bin_s=0.1, learning_trials=1)
    for number, label in enumerate("abab"):
        made.add(Trial(number + 0.0, number + 1.0, label, ideal="a"))
    return made


def test_the_last_answer_of_a_trial_counts_and_bins_at_its_edge_belong_to_where_their_centre_is(score):
    answers(score, "one", (0.5, "b"), (1.0, "a"), (1.1, "x"), (2.0, "b"), (3.04, "a"))
    answers(score, "two", (1.0, None), (2.0, "b"), (3.0, "b"))
    assert score.complete(10.0) == [0, 1, 2]
    assert score.last(10.0)[1] == {"one": "a", "two": "b"}
    assert score.accuracy(10.0) == {"one": 1.0, "two": 0.5, "ideal": 0.5}


def test_trials_that_are_for_learning_do_not_count_but_are_shown_meanwhile(score):
    answers(score, "one", (1.0, "a"))
    answers(score, "two", (1.0, "b"))
    assert score.accuracy(10.0) == {"one": None, "two": None, "ideal": None}
    assert score.so_far(10.0) == {"one": 1.0, "two": 0.0, "ideal": 1.0}


def test_a_trial_that_a_decoder_did_not_answer_is_not_complete(score):
    answers(score, "one", (1.0, "a"), (2.0, "b"))
    answers(score, "two", (2.0, "b"))
    assert score.complete(10.0) == [1]


def test_a_trial_is_complete_half_a_second_after_its_end(score):
    for decoder in ("one", "two"):
        answers(score, decoder, (1.0, "a"))
    assert score.complete(1.4) == []
    assert score.complete(1.6) == [0]


def test_an_account_tells_bins_that_did_not_come():
    account = Account(newest_s=0.001)
    for seq in (5, 6, 9, 10):
        account.take({"seq": seq, "gap": False, "time": 100.0}, 100 + seq / 1000)
    account.take({"seq": 11, "gap": True, "time": 100.0}, 200.0)
    assert (account.bins, account.missed) == (5, 2)
    assert account.latency_ms() == {"p50": 8.5, "p99": 10.97, "max": 11.0}
