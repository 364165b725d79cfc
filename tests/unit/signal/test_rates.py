import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloop.signal.rates import RateWindow


@given(st.integers(1, 9), st.integers(1, 40), st.integers(0, 1000))
@settings(max_examples=25)
def test_the_mean_is_over_the_last_bins_or_over_fewer_at_first(window, bins, seed):
    values = np.random.default_rng(seed).poisson(3.0, (bins, 4)).astype(np.float32)
    rates = RateWindow(4, window)
    for number, row in enumerate(values):
        last = values[max(0, number + 1 - window) : number + 1]
        np.testing.assert_allclose(rates.push(row), last.mean(axis=0, dtype=np.float64), rtol=1e-6)
        assert rates.filled == len(last)


def test_rounding_does_not_build_up_over_a_long_run():
    rng = np.random.default_rng(0)
    rates = RateWindow(2, 25)
    for _ in range(20_000):
        rates.push((1e10 * rng.random(2)).astype(np.float32))
    for _ in range(25):
        mean = rates.push(np.array([0.1, 0.0], np.float32))
    assert mean[0] == np.float32(0.1)
    assert mean[1] == 0.0


def test_the_mean_can_be_read_without_a_push():
    rates = RateWindow(2, 3)
    assert rates.mean.tolist() == [0.0, 0.0]
    rates.push(np.array([1.0, 2.0], np.float32))
    rates.push(np.array([3.0, 2.0], np.float32))
    assert rates.mean.tolist() == [2.0, 2.0]


def test_a_reset_forgets_the_bins():
    rates = RateWindow(1, 3)
    rates.push(np.array([9.0], np.float32))
    rates.reset()
    assert rates.filled == 0
    assert rates.push(np.array([1.0], np.float32))[0] == 1.0


@pytest.mark.parametrize("before", [2, 7])
def test_a_window_loaded_from_a_state_goes_on_bit_for_bit(before):
    values = np.random.default_rng(0).random((20, 3)).astype(np.float32)
    first, second = RateWindow(3, 5), RateWindow(3, 5)
    for row in values[:before]:
        first.push(row)
    second.load_state_dict(first.state_dict())
    assert np.array_equal(first.mean, second.mean)
    for row in values[before:]:
        assert np.array_equal(first.push(row), second.push(row))
