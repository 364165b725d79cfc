"""What each fault does to a stretch of samples."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloop_sources.faults.kinds import KINDS, LONGEST_S, SHORT_S, Chunk, stretch_samples

RATE = 1000.0
SEEDS, COUNTS = st.integers(0, 2**32 - 1), st.integers(2, 200)


def chunk(count: int, channels: int = 3) -> Chunk:
    """Every value says which sample and channel it is."""
    samples = np.arange(count * channels, dtype=np.float32).reshape(count, channels)
    return Chunk(samples, 50 + np.arange(count) / RATE)


def apply(kind: str, seed: int, stretch: Chunk):
    return KINDS[kind](stretch, np.random.default_rng(seed), RATE)


def numbers(after: Chunk) -> np.ndarray:
    """Which samples they are; each still has its own timestamp."""
    found = (after.samples[:, 0] / after.samples.shape[1]).astype(int)
    np.testing.assert_allclose(after.times, 50 + found / RATE)
    return found


@settings(max_examples=30)
@given(seed=SEEDS, count=COUNTS)
def test_drop_leaves_out_one_run_of_samples(seed, count):
    after, effect = apply("drop", seed, chunk(count))
    left_out = np.setdiff1d(np.arange(count), numbers(after))
    assert effect.dropped == len(left_out) > 0
    assert (np.diff(left_out) == 1).all()
    assert (np.diff(numbers(after)) > 0).all()


@settings(max_examples=30)
@given(seed=SEEDS, count=COUNTS)
def test_duplicate_sends_one_run_of_samples_again_at_once(seed, count):
    after, effect = apply("duplicate", seed, chunk(count))
    back = np.flatnonzero(np.diff(numbers(after)) != 1)
    assert len(after) == count + effect.repeated
    assert effect.repeated > 0
    assert len(back) == 1
    assert np.diff(numbers(after))[back[0]] == 1 - effect.repeated


@settings(max_examples=30)
@given(seed=SEEDS, count=COUNTS)
def test_reorder_keeps_every_sample_and_counts_those_that_come_after_a_later_one(seed, count):
    after, effect = apply("reorder", seed, chunk(count))
    order = numbers(after)
    assert sorted(order) == list(range(count))
    assert effect.late == sum(order[i] < order[:i].max(initial=-1) for i in range(count))


@settings(max_examples=30)
@given(seed=SEEDS, count=COUNTS, channels=st.integers(1, 20))
def test_nan_counts_the_values_that_are_not_finite_and_changes_no_other(seed, count, channels):
    before = chunk(count, channels)
    after, effect = apply("nan", seed, before)
    spoilt = ~np.isfinite(after.samples)
    assert effect.nonfinite == spoilt.sum() > 0
    np.testing.assert_array_equal(after.samples[~spoilt], before.samples[~spoilt])
    np.testing.assert_array_equal(after.times, before.times)
    assert np.isfinite(before.samples).all()


@settings(max_examples=30)
@given(seed=SEEDS)
def test_step_is_of_whole_samples_and_far_enough_to_be_told_from_disorder(seed):
    _, effect = apply("step", seed, chunk(2))
    assert effect.step_s * RATE == pytest.approx(round(effect.step_s * RATE), abs=1e-6)
    assert 0.29 < abs(effect.step_s) <= 200_000


@pytest.mark.parametrize("kind", ["delay", "stall", "channels", "kill"])
@settings(max_examples=30)
@given(seed=SEEDS, count=COUNTS)
def test_faults_of_the_connection_change_no_sample(kind, seed, count):
    before = chunk(count)
    after, effect = apply(kind, seed, before)
    assert after is before
    assert effect.hold_s + effect.outage_s > 0


@pytest.mark.parametrize("kind", KINDS)
@settings(max_examples=30)
@given(seed=SEEDS, rate=st.sampled_from([1.0, 250.0, 30_000.0]))
def test_a_stretch_has_two_samples_or_more_and_lasts_no_longer_than_the_kind_may(kind, seed, rate):
    samples = stretch_samples(kind, np.random.default_rng(seed), rate)
    assert 2 <= samples <= max(2, LONGEST_S.get(kind, SHORT_S) * rate)
