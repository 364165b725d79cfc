"""The guard tells when a decoder fails, is slow, or is well again: each once."""

import pytest

from neuroloop.session.guard import Guard, budget_ms


@pytest.fixture
def guard():
    return Guard(budget_ms=2.0, overrun_bins=3)


def test_a_decoder_that_fails_is_told_once_and_so_is_its_return(guard):
    assert [guard.failed("nan"), guard.failed("nan")] == ["nan", None]
    assert [guard.answered(0.1), guard.answered(0.1)] == ["answers again", None]
    assert guard.failed("nan again") == "nan again"


def test_only_overruns_in_a_row_count(guard):
    assert [guard.answered(ms) for ms in (3.0, 3.0, 0.1, 3.0, 3.0)] == [None] * 5
    assert not guard.is_slow
    assert guard.answered(3.0) == "took longer than its budget of 2 ms for 3 bins in a row"
    assert guard.is_slow
    assert guard.answered(3.0) is None
    assert guard.answered(0.1) == "answers within its budget again"


def test_the_budget_is_half_a_bin_unless_it_is_given():
    assert [budget_ms(None, 20.0), budget_ms(None, 0.025), budget_ms(0.5, 20.0)] == [10.0, 1.0, 0.5]
