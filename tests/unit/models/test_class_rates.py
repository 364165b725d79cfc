import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloop.errors import ModelError
from neuroloop.models.class_rates import ClassRates, restore

NAN = float("nan")


def learned(*samples, kept=1.0, age=1.0, classes=3, features=2, rule="mean"):
    rates = ClassRates(classes, features, rule)
    for values, index in samples:
        rates.learn(np.array(values, dtype=float), index, kept, age)
    return rates


def test_nothing_is_seen_before_the_first_sample():
    empty = ClassRates(3, 2)
    assert not empty.seen.any()
    assert not empty.exact().any()
    assert not empty.baseline().any()


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 100)), min_size=1, max_size=30))
@settings(max_examples=25)
def test_the_rate_is_the_mean_of_the_samples_of_its_class_however_often_it_was_shown(samples):
    given = [([value, 2 * value], index) for index, value in samples]
    rates, sums = learned(*given), learned(*given, rule="sum")
    for index in range(3):
        own = [value for other, value in samples if other == index]
        expected = [np.mean(own), 2 * np.mean(own)] if own else [0.0, 0.0]
        np.testing.assert_allclose(rates.exact()[index], expected, rtol=1e-12, atol=1e-12)
        np.testing.assert_allclose(rates.rates[index], expected, rtol=1e-6, atol=1e-30)
        assert rates.counts[index] == len(own)
        np.testing.assert_allclose(sums.exact()[index, 0], sum(own), rtol=1e-12, atol=1e-12)


def test_decay_forgets_the_class_that_was_shown_and_no_other():
    rates = learned(([1, 0], 0), ([5, 0], 1), ([3, 0], 0), kept=0.5)
    assert rates.exact()[0, 0] == pytest.approx((0.5 * 1 + 3) / 1.5)
    assert rates.sums[0, 0] == pytest.approx(3.5)
    assert rates.weights[1] == 1.0


def test_a_half_life_forgets_every_class_by_the_time_that_passed():
    rates = learned(([1, 0], 0), ([4, 0], 1), age=0.5)
    assert rates.weights.tolist() == [0.5, 1.0, 0.0]
    assert rates.exact()[:2, 0].tolist() == [1.0, 4.0]


def test_a_class_not_heard_of_for_a_thousand_half_lives_is_forgotten_without_nan():
    rates = learned(([1, 0], 0), *[([4, 0], 1)] * 1100, age=0.5)
    assert rates.seen.tolist() == [False, True, False]
    assert np.isfinite(rates.exact()).all()


def test_the_baseline_counts_every_class_once():
    rates = learned(([1, 0], 0), ([1, 0], 0), ([1, 0], 0), ([5, 0], 1))
    assert rates.baseline()[0] == pytest.approx(3.0)


def test_a_missing_value_leaves_the_mean_as_it_was_and_is_counted():
    rates = learned(([2, 4], 0), ([NAN, 6], 0))
    assert rates.exact()[0].tolist() == [2.0, 5.0]
    assert rates.missing == 1


def test_a_value_missing_in_a_new_class_is_taken_from_the_others():
    rates = learned(([2, 4], 0), ([6, 4], 1), ([NAN, 9], 2))
    assert rates.exact()[2].tolist() == [4.0, 9.0]


def test_a_value_that_is_infinite_is_missing_too():
    rates = learned(([2, 4], 0), ([-np.inf, 6], 0))
    assert rates.exact()[0].tolist() == [2.0, 5.0]


def test_a_sample_without_a_value_changes_nothing():
    rates = learned(([2, 4], 0))
    with pytest.raises(ModelError, match="all 2 values are missing"):
        rates.learn(np.array([NAN, np.inf]), 0, 0.5, 0.5)
    assert rates.weights.tolist() == [1.0, 0.0, 0.0]
    assert rates.missing == 0


def test_the_state_comes_back_bit_for_bit():
    rates = learned(([1 / 3, 0.1], 0), ([NAN, 0.7], 2), kept=0.9, age=0.8)
    back = restore(rates.state_dict(), 3, 2)
    for name in ("sums", "weights", "counts", "missing", "rates"):
        assert np.array_equal(getattr(back, name), getattr(rates, name))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"sums": np.zeros((3, 4))}, r"expected sums of shape \(3, 2\), got \(3, 4\)"),
        ({"weights": np.zeros(2)}, r"expected weights of shape \(3,\), got \(2,\)"),
        ({"sums": np.full((3, 2), np.inf)}, "sums holds values that are not finite"),
    ],
)
def test_a_state_that_does_not_fit_is_refused(change, message):
    with pytest.raises(ModelError, match=message):
        restore(ClassRates(3, 2).state_dict() | change, 3, 2)
