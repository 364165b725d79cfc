import numpy as np
import pytest

from neuroloop.signal.covariance import Covariance, snapshot_of

CHANNELS = 140


def data(samples, offset=0.0):
    random = np.random.default_rng(0)
    mixing = random.standard_normal((CHANNELS, CHANNELS))
    return (random.standard_normal((samples, CHANNELS)) @ mixing + offset).astype(np.float32)


@pytest.mark.parametrize("samples", [60, 480, 540, 1200])
@pytest.mark.parametrize("offset", [0.0, 1e3])
def test_a_large_cluster_has_the_scatter_of_all_its_samples(samples, offset):
    X = data(samples, offset)
    covariance = Covariance([range(CHANNELS)], CHANNELS)
    for start in range(0, samples, 60):
        covariance.add(X[start : start + 60])
    exact, actual = snapshot_of(X, [range(CHANNELS)]), covariance.snapshot()
    assert actual.samples == samples
    np.testing.assert_allclose(actual.mean, exact.mean, atol=1e-4 * (1 + offset / 100))
    assert np.abs(actual.scatter[0] - exact.scatter[0]).max() <= 1e-5 * exact.scatter[0].max()


def test_forgetting_weighs_every_block_by_its_age():
    X = data(1200)
    covariance = Covariance([range(CHANNELS)], CHANNELS, half_life_samples=300)
    for start in range(0, 1200, 60):
        covariance.add(X[start : start + 60])
    weight = 0.5 ** ((1140 - np.arange(1200) // 60 * 60) / 300)
    mean = weight @ X / weight.sum()
    exact = (X - mean).T @ ((X - mean) * weight[:, None])
    actual = covariance.snapshot()
    assert actual.samples == pytest.approx(weight.sum())
    assert np.abs(actual.scatter[0] - exact).max() <= 1e-5 * exact.max()
    np.testing.assert_allclose(actual.mean, mean, atol=1e-3)


def test_a_snapshot_changes_nothing_of_what_follows():
    X = data(900)
    one, other = Covariance([range(CHANNELS)], CHANNELS), Covariance([range(CHANNELS)], CHANNELS)
    for start in range(0, 900, 60):
        one.add(X[start : start + 60])
        one.snapshot()
        other.add(X[start : start + 60])
    assert np.array_equal(one.snapshot().scatter[0], other.snapshot().scatter[0])


def test_a_large_cluster_out_of_order_beside_small_ones_keeps_its_channels_apart():
    X = np.concatenate((data(600), 5 + data(600)[:, :10]), axis=1)
    order = np.random.default_rng(1).permutation(150)
    clusters = [order[:130].tolist(), order[130:140].tolist()]
    covariance = Covariance(clusters, 150)
    for start in range(0, 600, 60):
        covariance.add(X[start : start + 60])
    exact, actual = snapshot_of(X, clusters), covariance.snapshot()
    for a, b in zip(actual.scatter, exact.scatter, strict=True):
        assert np.abs(a - b).max() <= 1e-5 * b.max()


def test_a_block_with_a_value_that_is_not_finite_counts_for_nothing():
    covariance = Covariance([range(CHANNELS)], CHANNELS)
    X = data(120)
    covariance.add(X[:60])
    spoilt = X[60:].copy()
    spoilt[3, 7] = np.inf
    covariance.add(spoilt)
    assert (covariance.samples, covariance.rejected) == (60, 60)
    assert np.array_equal(covariance.snapshot().scatter[0], _only(X[:60]).scatter[0])


def _only(X):
    covariance = Covariance([range(CHANNELS)], CHANNELS)
    covariance.add(X)
    return covariance.snapshot()
