"""The geometry of covariances against its definitions, and what must hold in it."""

import numpy as np
import pytest
from scipy import linalg

from neuroloop.errors import ModelError
from neuroloop.models.riemannian import distance, geometric_mean, inverse_root, loaded, logarithm, tangent

CHANNELS = 6


def covariances(count=12, seed=0, samples=10):
    """As unlike each other as those of few samples are."""
    generator = np.random.default_rng(seed)
    found = generator.standard_normal((count, samples, CHANNELS)) @ generator.standard_normal((CHANNELS, CHANNELS))
    return np.swapaxes(found, 1, 2) @ found / samples


def test_roots_and_logarithms_are_those_of_scipy():
    for matrix in covariances(4):
        np.testing.assert_allclose(inverse_root(matrix), linalg.inv(linalg.sqrtm(matrix)), rtol=1e-6, atol=1e-8)
        np.testing.assert_allclose(logarithm(matrix), linalg.logm(matrix), rtol=1e-8, atol=1e-9)


def test_the_distance_is_that_of_the_generalised_eigenvalues_and_mixing_does_not_change_it():
    one, other = covariances(2)
    values = linalg.eigvalsh(other, one)
    assert distance(one, other) == pytest.approx(np.sqrt((np.log(values) ** 2).sum()))
    assert distance(other, one) == pytest.approx(distance(one, other))
    mixing = np.random.default_rng(3).standard_normal((CHANNELS, CHANNELS))
    assert distance(mixing @ one @ mixing.T, mixing @ other @ mixing.T) == pytest.approx(distance(one, other))
    assert distance(linalg.inv(one), linalg.inv(other)) == pytest.approx(distance(one, other))


def test_the_mean_of_matrices_that_commute_has_the_geometric_means_of_their_eigenvalues():
    generator = np.random.default_rng(1)
    vectors = linalg.qr(generator.standard_normal((CHANNELS, CHANNELS)))[0]
    values = np.exp(2 * generator.standard_normal((9, CHANNELS)))
    mean = geometric_mean((vectors * values[:, None, :]) @ vectors.T)
    expected = (vectors * np.exp(np.log(values).mean(axis=0))) @ vectors.T
    np.testing.assert_allclose(mean, expected, rtol=1e-7, atol=1e-8)


def test_the_mean_of_two_matrices_lies_halfway_between_them():
    one, other = covariances(2)
    root, whiten = linalg.sqrtm(one), inverse_root(one)
    expected = root @ linalg.sqrtm(whiten @ other @ whiten) @ root
    mean = geometric_mean(np.stack([one, other]))
    np.testing.assert_allclose(mean, expected, rtol=1e-6)
    assert distance(one, mean) == pytest.approx(distance(one, other) / 2)


def test_the_mean_moves_with_whatever_mixes_the_channels_and_with_their_inverses():
    matrices = covariances()
    mixing = np.random.default_rng(3).standard_normal((CHANNELS, CHANNELS))
    mean = geometric_mean(matrices)
    np.testing.assert_allclose(geometric_mean(mixing @ matrices @ mixing.T), mixing @ mean @ mixing.T, rtol=1e-5)
    np.testing.assert_allclose(geometric_mean(np.linalg.inv(matrices)), linalg.inv(mean), rtol=1e-5)


@pytest.mark.parametrize("spread", [1.0, 30.0])
def test_at_the_mean_the_squared_distances_are_least_however_far_apart_the_matrices_are(spread):
    matrices = covariances() * np.exp(spread * np.random.default_rng(5).standard_normal(12))[:, None, None]
    mean = geometric_mean(matrices)

    def total(point):
        return sum(distance(point, matrix) ** 2 for matrix in matrices)

    least = total(mean)
    for seed in range(5):
        away = np.random.default_rng(seed).standard_normal((CHANNELS, CHANNELS)) * 1e-2
        root = linalg.sqrtm(mean)
        assert total(root @ linalg.expm(away + away.T) @ root) > least
    assert np.abs(tangent(matrices, inverse_root(mean)).mean(axis=0)).max() < 1e-7


def test_lengths_in_the_tangent_space_are_distances_to_the_mean():
    matrices = covariances()
    mean = geometric_mean(matrices)
    coordinates = tangent(matrices, inverse_root(mean))
    assert coordinates.shape == (12, CHANNELS * (CHANNELS + 1) // 2)
    expected = [distance(mean, matrix) for matrix in matrices]
    np.testing.assert_allclose(np.linalg.norm(coordinates, axis=1), expected, rtol=1e-9)


def test_a_ridge_makes_flat_directions_positive_by_a_share_of_the_power():
    samples = np.random.default_rng(0).standard_normal((3, 4, CHANNELS))
    flat = np.swapaxes(samples, 1, 2) @ samples
    with pytest.raises(ModelError, match="expected positive definite matrices, got an eigenvalue of"):
        geometric_mean(flat)
    power = np.trace(flat, axis1=1, axis2=2) / CHANNELS
    raised = np.linalg.eigvalsh(loaded(flat, 0.1))
    np.testing.assert_allclose(raised[:, 0], 0.1 * power)
    assert np.isfinite(geometric_mean(loaded(flat, 0.1))).all()
