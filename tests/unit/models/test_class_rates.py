import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloop.errors import ModelError
from neuroloop.models.class_rates import ClassRates, check_label, check_sample, restore

NAN = float("nan")


def learned(*samples, decay=0.0, half_life_s=None, duration_s=1.0, classes=3, features=2):
    rates = ClassRates.empty(classes, features)
    for values, index in samples:
        rates = rates.learn(np.array(values, dtype=float), index, decay, half_life_s, duration_s)
    return rates


def test_nothing_is_seen_before_the_first_sample():
    empty = ClassRates.empty(3, 2)
    assert not empty.seen.any()
    assert not empty.rates().any()
    assert not empty.baseline().any()


@given(st.lists(st.tuples(st.integers(0, 2), st.floats(0, 100)), min_size=1, max_size=30))
@settings(max_examples=25, deadline=None)
def test_the_rate_is_the_mean_of_the_samples_of_its_class_however_often_it_was_shown(samples):
    rates = learned(*(([value, 2 * value], index) for index, value in samples))
    for index in range(3):
        own = [value for other, value in samples if other == index]
        expected = [np.mean(own), 2 * np.mean(own)] if own else [0.0, 0.0]
        np.testing.assert_allclose(rates.rates()[index], expected, rtol=1e-12, atol=1e-12)
        assert rates.counts[index] == len(own)
        np.testing.assert_allclose(rates.rates("sum")[index, 0], sum(own), rtol=1e-12, atol=1e-12)


def test_decay_forgets_the_class_that_was_shown_and_no_other():
    rates = learned(([1, 0], 0), ([5, 0], 1), ([3, 0], 0), decay=np.log(2))
    assert rates.rates()[0, 0] == pytest.approx((0.5 * 1 + 3) / 1.5)
    assert rates.rates("sum")[0, 0] == pytest.approx(3.5)
    assert rates.weights[1] == 1.0


def test_a_half_life_forgets_every_class_by_the_time_that_passed():
    rates = learned(([1, 0], 0), ([4, 0], 1), half_life_s=2.0, duration_s=2.0)
    assert rates.weights.tolist() == [0.5, 1.0, 0.0]
    assert rates.rates()[:2, 0].tolist() == [1.0, 4.0]


def test_a_class_not_heard_of_for_a_thousand_half_lives_is_forgotten_without_nan():
    rates = learned(([1, 0], 0), *[([4, 0], 1)] * 1100, half_life_s=1.0)
    assert rates.seen.tolist() == [False, True, False]
    assert np.isfinite(rates.rates()).all()


def test_the_baseline_counts_every_class_once():
    rates = learned(([1, 0], 0), ([1, 0], 0), ([1, 0], 0), ([5, 0], 1))
    assert rates.baseline()[0] == pytest.approx(3.0)


def test_a_missing_value_leaves_the_mean_as_it_was_and_is_counted():
    rates = learned(([2, 4], 0), ([NAN, 6], 0))
    assert rates.rates()[0].tolist() == [2.0, 5.0]
    assert rates.missing == 1


def test_a_value_missing_in_a_new_class_is_taken_from_the_others():
    rates = learned(([2, 4], 0), ([6, 4], 1), ([NAN, 9], 2))
    assert rates.rates()[2].tolist() == [4.0, 9.0]


def test_learning_changes_no_rates_that_a_reader_holds():
    before = learned(([2, 4], 0))
    before.learn(np.array([8.0, 8.0]), 0, 0.1, 1.0, 1.0)
    assert before.sums[0].tolist() == [2.0, 4.0]
    assert before.weights.tolist() == [1.0, 0.0, 0.0]


def test_the_state_comes_back_bit_for_bit():
    rates = learned(([1 / 3, 0.1], 0), ([NAN, 0.7], 2), decay=0.1)
    back = restore(rates.state_dict(), 3, 2)
    for name in ("sums", "weights", "counts", "missing"):
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
        restore(ClassRates.empty(3, 2).state_dict() | change, 3, 2)


@pytest.mark.parametrize("index", [-1, 2, 99])
def test_a_label_out_of_range_names_the_classes(index):
    with pytest.raises(ModelError, match=f"label: {index} is no class; there are: 0 left, 1 right"):
        check_label(index, ("left", "right"))


@pytest.mark.parametrize("dtype", [bool, np.int16, np.uint8, np.float32])
def test_any_real_type_is_cast_to_float64(dtype):
    sample = check_sample(np.array([0, 1, 1], dtype), 3)
    assert sample.dtype == np.float64
    assert sample.tolist() == [0.0, 1.0, 1.0]


def test_an_infinity_counts_as_missing():
    assert np.isnan(check_sample(np.array([1.0, np.inf, -np.inf]), 3)).tolist() == [False, True, True]


def test_another_number_of_features_is_refused():
    with pytest.raises(ModelError, match="expected 3 features, got 4"):
        check_sample(np.zeros(4), 3)
