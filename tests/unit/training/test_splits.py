import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroloop.errors import ModelError
from neuroloop.signal.rates import RateWindow
from neuroloop.training.splits import cut, hold_out, holes, last_share, moving_mean, trials_of


def bins_of(labels, **more):
    """Samples of bins whose one rate is their number."""
    labels = np.array(labels)
    rates = np.arange(len(labels), dtype=np.float32)[:, None]
    times, usable = more.pop("times", None), more.get("usable")
    return cut(rates, labels, breaks=holes(times, usable, len(labels)), **more)


def test_a_trial_is_a_run_of_bins_with_one_label_and_its_mean_one_sample():
    samples = bins_of([-1, 0, 0, 0, 1, 1, -1, 1])
    assert samples.rates.ravel().tolist() == [2.0, 4.5, 7.0]
    assert samples.labels.tolist() == [0, 1, 1]
    assert samples.bins.tolist() == [3, 2, 1]
    assert len(set(samples.trials.tolist())) == 3


def test_windows_lie_within_a_trial_and_a_short_trial_is_one_short_window():
    samples = bins_of([0, 0, 0, 0, 0, 1, -1], window=2)
    assert samples.rates.ravel().tolist() == [0.5, 2.5, 5.0]
    assert samples.bins.tolist() == [2, 2, 1]
    assert samples.trials[0] == samples.trials[1] != samples.trials[2]


def test_no_window_straddles_a_hole_in_time_or_a_bin_that_cannot_be_trusted():
    times = np.array([0.0, 0.02, 0.04, 1.04, 1.06, 1.08])
    samples = bins_of([0] * 6, times=times)
    assert samples.rates.ravel().tolist() == [1.0, 4.0]
    assert samples.trials[0] == samples.trials[1]  # the same trial still: both on one side of a split
    usable = np.array([True, True, False, True, True, True])
    assert bins_of([0] * 6, usable=usable).rates.ravel().tolist() == [0.5, 4.0]


def test_trials_of_one_label_that_follow_each_other_are_told_apart_by_their_numbers():
    samples = bins_of([1, 1, 1, 1], trial_numbers=np.array([7, 7, 8, 8]))
    assert samples.rates.ravel().tolist() == [0.5, 2.5]
    assert len(set(samples.trials.tolist())) == 2


def test_times_that_go_back_are_refused():
    with pytest.raises(ModelError, match=r"times: expected seconds that grow, got 1\.0 after 2\.0 at bin 2"):
        holes(np.array([0.0, 2.0, 1.0]), None, 3)


@given(st.lists(st.integers(-1, 2), min_size=4, max_size=60), st.floats(0.05, 0.6), st.integers(1, 5))
def test_what_is_held_out_comes_after_all_that_is_learned_and_shares_no_trial_with_it(labels, share, window):
    samples = bins_of(labels, window=window)
    if len(set(samples.trials.tolist())) < 3:
        return
    held_out = hold_out(samples.trials, share)
    learned, kept = samples.of(~held_out), samples.of(held_out)
    assert len(kept.labels) > 0
    assert learned.rates.max() < kept.rates.min()
    assert not set(learned.trials.tolist()) & set(kept.trials.tolist())


def test_a_share_that_leaves_nothing_to_learn_from_is_refused():
    with pytest.raises(ModelError, match=r"0\.9 of 2 trials leaves none"):
        hold_out(np.array([0, 1]), 0.9)
    with pytest.raises(ModelError, match="of 3 bins is 0"):
        last_share(3, 0.1)
    assert last_share(10, 0.2).tolist() == [False] * 8 + [True] * 2
    assert not last_share(10, 0.0).any()


def test_moving_means_are_those_of_a_session_and_start_anew_after_a_hole():
    rates = np.random.default_rng(0).poisson(8, (60, 3)).astype(np.float32)
    breaks = np.zeros(60, bool)
    breaks[[17, 18, 40]] = True
    for window in (1, 4, 30):
        ring = RateWindow(3, window)
        for number, expected in enumerate(moving_mean(rates, breaks, window)):
            if breaks[number]:
                ring.reset()
            np.testing.assert_allclose(ring.push(rates[number]), expected, rtol=1e-6)


def test_a_moving_mean_leaves_out_what_is_missing():
    rates = np.array([[2.0], [np.nan], [4.0], [np.inf], [np.nan]], np.float32)
    means = moving_mean(rates, np.zeros(5, bool), 2)
    np.testing.assert_array_equal(means[:, 0], [2, 2, 4, 4, np.nan])


def test_trials_are_numbered_as_they_are_cut():
    labels = np.array([-1, 0, 0, 1, 1, -1, 1, 0])
    samples = cut(np.ones((8, 1)), labels, breaks=np.zeros(8, bool))
    trials = trials_of(labels, None)
    assert trials[labels >= 0].tolist() == [1, 1, 2, 2, 4, 5]
    assert sorted(set(trials[labels >= 0])) == samples.trials.tolist()
    numbers = np.array([-1, 7, 7, 8, 8, -1, 8, 9])
    assert trials_of(labels, numbers)[labels >= 0].tolist() == [1, 1, 2, 2, 2, 3]
