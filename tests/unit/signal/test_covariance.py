import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloop.errors import ModelError
from neuroloop.signal.covariance import Covariance, check_clusters, snapshot_of

CLUSTERS = [[0, 3], [5, 1, 2]]


def noise(samples, channels, seed=0):
    return np.random.default_rng(seed).standard_normal((samples, channels)).astype(np.float32)


def assert_same(one, other, rtol=1e-9):
    assert one.samples == pytest.approx(other.samples)
    np.testing.assert_allclose(one.mean[[0, 1, 2, 3, 5]], other.mean[[0, 1, 2, 3, 5]], rtol=rtol, atol=1e-12)
    for left, right in zip(one.scatter, other.scatter, strict=True):
        np.testing.assert_allclose(left, right, rtol=rtol, atol=rtol * np.abs(right).max())


@given(st.lists(st.integers(0, 200), max_size=6))
@settings(max_examples=25)
def test_blocks_add_up_to_the_covariance_of_all_samples(cuts):
    data = noise(200, 7)
    covariance = Covariance(CLUSTERS, 7)
    for block in np.split(data, sorted(cuts)):
        covariance.add(block)
    assert_same(covariance.snapshot(), snapshot_of(data, CLUSTERS))


@pytest.mark.parametrize(("channels", "clusters"), [(7, CLUSTERS), (140, [list(range(135)), [136, 138]])])
def test_one_that_is_restored_from_a_snapshot_goes_on_as_the_one_it_was_taken_of(channels, clusters):
    data = noise(1500, channels)
    first, second = Covariance(clusters, channels), Covariance(clusters, channels)
    first.add(data[:700])
    second.add(data[700:800])
    second.restore(first.snapshot())
    for covariance in (first, second):
        covariance.add(data[700:])
    one, other = first.snapshot(), second.snapshot()
    assert one.samples == other.samples == 1500
    assert other.resolution == pytest.approx(one.resolution, rel=0.3)
    for left, right in zip(one.scatter, other.scatter, strict=True):
        np.testing.assert_allclose(left, right, rtol=1e-4, atol=1e-4 * np.abs(left).max())
    with pytest.raises(ModelError, match="expected a snapshot of these"):
        Covariance([[0, 1]], channels).restore(one)


def test_the_scatter_is_numpys_covariance_times_samples():
    data = noise(500, 7)
    snapshot = snapshot_of(data, CLUSTERS)
    for cluster, scatter in zip(CLUSTERS, snapshot.scatter, strict=True):
        np.testing.assert_allclose(scatter, np.cov(data[:, cluster].astype(float).T, ddof=0) * 500, rtol=1e-9)


@pytest.mark.parametrize("channels", [7, 120])
def test_an_offset_of_ten_thousand_costs_no_digits_that_matter(channels):
    data = noise(1000, channels) + np.float32(1e4)
    cluster = [list(range(channels))]
    covariance = Covariance(cluster, channels)
    for block in np.split(data, 10):
        covariance.add(block)
    expected = snapshot_of(data, cluster).scatter[0]
    assert np.abs(covariance.snapshot().scatter[0] - expected).max() < 1e-5 * expected.max()


def test_integers_of_sixteen_bits_do_not_overflow():
    data = (noise(300, 7) * 8000).astype(np.int16)
    covariance = Covariance(CLUSTERS, 7)
    covariance.add(data)
    assert_same(covariance.snapshot(), snapshot_of(data.astype(np.float64), CLUSTERS))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_block_that_is_not_finite_counts_for_nothing_and_is_reported(value):
    data, spoilt = noise(100, 7), noise(50, 7, seed=1)
    spoilt[7, 5] = value
    covariance = Covariance(CLUSTERS, 7)
    for block in (data, spoilt, data):
        covariance.add(block)
    snapshot = covariance.snapshot()
    assert snapshot.rejected == 50
    assert_same(snapshot, snapshot_of(np.concatenate((data, data)), CLUSTERS))


def test_samples_at_rest_that_are_not_finite_are_left_out_one_by_one():
    data = noise(100, 7)
    data[[3, 40], [0, 6]] = np.inf, np.nan
    snapshot = snapshot_of(data, CLUSTERS)
    assert snapshot.rejected == 2
    assert_same(snapshot, snapshot_of(np.delete(data, [3, 40], axis=0), CLUSTERS))


def test_a_block_marked_as_invalid_is_not_taken_in():
    covariance = Covariance(CLUSTERS, 7)
    covariance.add(noise(10, 7), valid=False)
    assert covariance.samples == 0


def test_after_a_half_life_half_the_weight_is_left():
    data = noise(200, 7)
    covariance = Covariance(CLUSTERS, 7, half_life_samples=100)
    covariance.add(data[:100])
    covariance.add(data[100:])
    weights = np.repeat([0.5, 1.0], 100)
    channels = data[:, [0, 3]].astype(float)
    assert covariance.samples == pytest.approx(150)
    np.testing.assert_allclose(
        covariance.snapshot().scatter[0], np.cov(channels.T, aweights=weights, ddof=0) * 150, rtol=1e-9
    )


def test_a_snapshot_never_changes():
    covariance = Covariance(CLUSTERS, 7)
    covariance.add(noise(50, 7))
    snapshot = covariance.snapshot()
    kept = [scatter.copy() for scatter in snapshot.scatter]
    covariance.add(noise(50, 7, seed=1))
    assert all(np.array_equal(now, then) for now, then in zip(snapshot.scatter, kept, strict=True))
    with pytest.raises(ValueError, match="read-only"):
        snapshot.scatter[0][0, 0] = 1.0


def test_the_state_comes_back_bit_for_bit():
    first, second = Covariance(CLUSTERS, 7), Covariance(CLUSTERS, 7)
    first.add(noise(64, 7))
    second.load_state_dict(first.state_dict())
    for covariance in (first, second):
        covariance.add(noise(64, 7, seed=1))
    one, other = first.snapshot(), second.snapshot()
    assert one.samples == other.samples
    assert all(np.array_equal(a, b) for a, b in zip(one.scatter, other.scatter, strict=True))


def test_a_reset_forgets_everything():
    covariance = Covariance(CLUSTERS, 7)
    covariance.add(noise(64, 7) + 3)
    covariance.reset()
    covariance.add(noise(64, 7, seed=1))
    assert_same(covariance.snapshot(), snapshot_of(noise(64, 7, seed=1), CLUSTERS))


def test_large_clusters_are_accumulated_in_float32_and_say_so():
    covariance = Covariance([range(101)], 101)
    data = noise(400, 101)
    for block in np.split(data, 16):
        covariance.add(block)
    snapshot = covariance.snapshot()
    assert snapshot.resolution == pytest.approx(np.finfo(np.float32).eps / 4)
    np.testing.assert_allclose(snapshot.scatter[0], snapshot_of(data, [range(101)]).scatter[0], atol=1e-3)


@pytest.mark.parametrize(
    ("clusters", "message"),
    [
        ([[0, 1], [2, 1]], "cluster 1: channel 1 is named twice"),
        ([[0, 7]], "cluster 0: channel 7 is not there; allowed: 0 to 6"),
        ([[-1, 2]], "channel -1 is not there"),
    ],
)
def test_clusters_that_overlap_or_reach_outside_are_refused(clusters, message):
    with pytest.raises(ValueError, match=message):
        check_clusters(clusters, 7)
