import sys
import threading

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloop.signal import lapack
from neuroloop.signal.covariance import Covariance, snapshot_of
from neuroloop.signal.regression import solve
from neuroloop.signal.rereference import apply


def mixed(samples=400, channels=6, seed=0):
    """Noise of its own in every channel, a common mode, and gains of 0.5 to 4."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((samples, 1))
    return (rng.standard_normal((samples, channels)) + 2 * common) * np.linspace(0.5, 4, channels)


def fitted(data, clusters=None, **options):
    channels = data.shape[-1]
    options = {"ridge": 0.0, "min_samples_per_channel": 1, "version": 1, "source": "fit"} | options
    snapshot = snapshot_of(data, [range(channels)] if clusters is None else clusters)
    return solve(snapshot, [f"ch{c}" for c in range(channels)], **options)


def least_squares(data):
    """Every channel on all others by brute force, with the minimum norm where that is not unique."""
    centered, channels = data - data.mean(axis=0), data.shape[1]
    weights = np.zeros((channels, channels))
    for c in range(channels):
        others = [r for r in range(channels) if r != c]
        weights[others, c] = np.linalg.lstsq(centered[:, others], centered[:, c], rcond=1e-10)[0]
    return weights


@pytest.mark.parametrize("channels", [2, 3, 12])
def test_the_weights_are_those_of_brute_force_least_squares(channels):
    data = mixed(channels=channels)
    np.testing.assert_allclose(fitted(data).matrix, least_squares(data), atol=1e-10)


def test_each_cluster_is_regressed_by_itself_and_the_rest_stays():
    data = mixed(channels=8)
    weights = fitted(data, [[5, 0, 2], [7, 1]])
    for cluster in ([5, 0, 2], [7, 1]):
        np.testing.assert_allclose(weights.matrix[np.ix_(cluster, cluster)], least_squares(data[:, cluster]))
    outside = weights.matrix.copy()
    for cluster in ([5, 0, 2], [7, 1]):
        outside[np.ix_(cluster, cluster)] = 0
    assert not outside.any()


@given(st.integers(0, 10_000), st.integers(3, 9))
@settings(max_examples=25)
def test_a_common_mode_without_noise_is_removed_exactly(seed, channels):
    rng = np.random.default_rng(seed)
    gains = rng.uniform(0.5, 4, channels)
    data = rng.standard_normal((300, 1)) * gains
    assert np.abs(apply(data, fitted(data).matrix)).max() < 1e-7 * np.abs(data).max()


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_what_is_subtracted_from_a_channel_never_depends_on_the_channel_itself(seed):
    data = mixed(seed=seed)
    weights = fitted(data, ridge=1e-3).matrix
    changed = data.copy()
    changed[:, 2] += 100 * np.random.default_rng(seed).standard_normal(len(data))
    np.testing.assert_allclose((changed @ weights)[:, 2], (data @ weights)[:, 2], rtol=1e-12)
    assert not np.diagonal(weights).any()


def test_a_relative_ridge_does_not_depend_on_unit_or_number_of_samples():
    data = mixed()
    weights = fitted(data, ridge=0.1).matrix
    np.testing.assert_allclose(fitted(data * 1e-6, ridge=0.1).matrix, weights, rtol=1e-9)
    np.testing.assert_allclose(fitted(np.tile(data, (5, 1)), ridge=0.1).matrix, weights, rtol=1e-9)


def test_a_relative_ridge_is_the_absolute_one_of_the_mean_diagonal():
    data = mixed()
    centered = data - data.mean(axis=0)
    absolute = 0.1 * np.diagonal(centered.T @ centered).mean()
    weights = fitted(data, ridge_absolute=absolute)
    np.testing.assert_allclose(weights.matrix, fitted(data, ridge=0.1).matrix, rtol=1e-9)
    assert weights.report["clusters"][0]["ridge"] == pytest.approx(absolute)


def test_an_offset_changes_nothing_unless_it_is_asked_for():
    data = mixed()
    np.testing.assert_allclose(fitted(data + 1e4).matrix, fitted(data).matrix, atol=1e-6)
    assert np.abs(fitted(data + 1e4, center=False).matrix - fitted(data).matrix).max() > 0.01


def test_an_offset_of_ten_thousand_in_float32_blocks_changes_little():
    data = mixed(4000).astype(np.float32)
    covariance = Covariance([range(6)], 6)
    for block in np.split(data + np.float32(1e4), 40):
        covariance.add(block)
    weights = solve(covariance.snapshot(), list("abcdef"), ridge=0, version=1, source="fit")
    np.testing.assert_allclose(weights.matrix, least_squares(data.astype(float)), atol=0.01)


@pytest.mark.parametrize("value", [0.0, 7.0])
def test_a_dead_channel_is_named_left_out_and_passed_through(value):
    data = mixed()
    data[:, 3] = value
    weights = fitted(data)
    alive = [0, 1, 2, 4, 5]
    assert weights.report["dead"] == ["ch3"]
    assert weights.report["warnings"] == ["near-constant channels are left out and passed through: ch3"]
    assert not weights.matrix[3].any()
    assert not weights.matrix[:, 3].any()
    np.testing.assert_allclose(weights.matrix[np.ix_(alive, alive)], least_squares(data[:, alive]), atol=1e-10)
    assert np.array_equal(apply(data, weights.matrix)[:, 3], data[:, 3])


def test_a_channel_that_carries_rounding_noise_only_counts_as_dead():
    data = mixed()
    data[:, 3] = 1e-9 * np.random.default_rng(1).standard_normal(len(data))
    assert fitted(data).report["dead"] == ["ch3"]


def test_a_constant_that_float32_rounds_up_and_down_counts_as_dead():
    data = 1e3 * mixed()
    data[:, 3] = 1e8 + 8.0 * (np.arange(len(data)) % 2)
    assert fitted(data).report["dead"] == ["ch3"]


def test_a_cluster_of_dead_channels_stays_as_it_is():
    data = mixed()
    data[:, :3] = 1.0
    weights = fitted(data, [[0, 1, 2], [3, 4, 5]])
    assert weights.report["dead"] == ["ch0", "ch1", "ch2"]
    assert not weights.matrix[:3].any()


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_a_channel_that_repeats_another_gives_the_minimum_norm_solution(seed):
    data = mixed(seed=seed)
    data[:, 4] = 2.5 * data[:, 1]
    weights = fitted(data)
    np.testing.assert_allclose(weights.matrix, least_squares(data), atol=1e-6)
    assert weights.report["clusters"][0]["method"] == "least squares"
    assert weights.report["clusters"][0]["condition"] is None


def test_after_a_common_average_reference_the_rank_is_reported():
    data = mixed()
    weights = fitted(data - data.mean(axis=1, keepdims=True))
    assert weights.report["clusters"][0]["rank"] == 5
    assert weights.report["warnings"][0].startswith("cluster 0: rank 5 of 6 channels")
    assert np.isfinite(weights.matrix).all()


def test_a_ridge_makes_a_singular_cluster_solvable_and_still_says_its_rank():
    data = mixed()
    data[:, 4] = data[:, 1]
    weights = fitted(data, ridge=1e-3)
    report = weights.report["clusters"][0]
    assert (report["rank"], report["method"]) == (5, "cholesky")
    assert np.abs(weights.matrix).max() < 10


def test_too_few_samples_leave_the_weights_out_and_say_how_many_are_needed():
    weights = fitted(mixed(samples=100), min_samples_per_channel=20)
    assert weights.report["ready"] is False
    assert weights.report["warnings"] == ["100 samples so far; 120 are needed"]
    assert not weights.matrix.any()


def test_nothing_at_all_gives_the_identity_without_a_warning_of_numpy():
    weights = solve(Covariance([range(3)], 3).snapshot(), list("abc"), ridge=0, version=1, source="fit")
    assert weights.report["ready"] is False
    assert not weights.matrix.any()


def test_clusters_smaller_than_asked_stay_as_they_are():
    weights = fitted(mixed(), [[0, 1], [2, 3, 4]], min_cluster=3)
    assert not weights.matrix[:2].any()
    assert weights.matrix[2, 3] != 0


def test_the_report_tells_condition_and_samples():
    data = mixed()
    report = fitted(data).report
    centered = (data - data.mean(axis=0)) / data.std(axis=0)
    exact = np.linalg.cond(centered.T @ centered, 1)
    assert report["samples"] == 400
    assert report["ready"] is True
    assert exact / 3 < report["clusters"][0]["condition"] <= exact * 1.01


@pytest.mark.parametrize("channels", [2, 31, 64, 65, 200])
@pytest.mark.parametrize("ridge", [0.0, 50.0])
def test_the_weights_are_those_of_numpys_inverse_at_every_size(channels, ridge):
    data = mixed(samples=3 * channels + 50, channels=channels)
    weights = fitted(data, ridge_absolute=ridge)
    centered = data - data.mean(axis=0)
    inverse = np.linalg.inv(centered.T @ centered + ridge * np.eye(channels))
    expected = -inverse / np.diagonal(inverse)
    np.fill_diagonal(expected, 0)
    assert np.abs(weights.matrix - expected).max() < 1e-9 * np.abs(expected).max()
    assert weights.report["clusters"][0]["rank"] == channels


def test_the_condition_is_that_of_what_is_inverted_with_its_ridge():
    data = mixed()
    centered = data - data.mean(axis=0)
    ridged = centered.T @ centered + 1e4 * np.eye(6)
    scale = np.sqrt(np.diagonal(ridged))
    report = fitted(data, ridge_absolute=1e4).report
    assert report["clusters"][0]["condition"] == pytest.approx(np.linalg.cond(ridged / np.outer(scale, scale), 1))


@pytest.mark.parametrize("ridge", [1e-9, 1e-3, 1.0, 1e3])
def test_the_rank_is_told_of_the_data_however_large_the_ridge(ridge):
    data = mixed()
    assert fitted(data, ridge=ridge).report["clusters"][0]["rank"] == 6
    assert fitted(data, ridge=ridge).report["warnings"] == []
    common = data - data.mean(axis=1, keepdims=True)
    report = fitted(common, ridge=ridge).report
    assert report["clusters"][0]["rank"] == 5
    assert report["warnings"][0].startswith("cluster 0: rank 5 of 6 channels")


def test_the_snapshot_is_not_changed_by_solving_it():
    snapshot = snapshot_of(mixed(), [range(6)])
    before = snapshot.scatter[0].copy()
    solve(snapshot, list("abcdef"), ridge=1e-3, min_samples_per_channel=1, version=1, source="fit")
    assert np.array_equal(snapshot.scatter[0], before)


@pytest.mark.parametrize("channels", [1, 9, 64, 65, 130, 257])
def test_the_factor_and_the_inverse_are_those_of_numpy(channels):
    data = mixed(samples=2 * channels + 50, channels=channels)
    matrix = data.T @ data
    factor, reciprocal = lapack.cholesky(matrix)
    np.testing.assert_allclose(np.triu(factor), np.linalg.cholesky(matrix).T, rtol=1e-9, atol=1e-9)
    assert 0 < reciprocal <= 1
    inverse, expected = np.triu(matrix), np.triu(np.linalg.inv(matrix))
    assert lapack.invert(inverse)
    assert np.abs(np.triu(inverse) - expected).max() < 1e-11 * np.abs(expected).max()


@pytest.mark.parametrize("matrix", [-np.eye(3), np.ones((3, 3)) - np.eye(3), np.full((2, 2), np.nan)])
def test_what_is_not_positive_definite_has_no_factor(matrix):
    assert lapack.cholesky(matrix) is None


@pytest.mark.parametrize("where", [0, 70, 199])
def test_what_is_not_positive_definite_has_no_inverse_wherever_that_shows(where):
    matrix = np.eye(200)
    matrix[where, where] = -1.0
    assert not lapack.invert(matrix)


def test_other_threads_run_while_a_matrix_is_inverted():
    data = np.random.default_rng(0).standard_normal((600, 512))
    matrix = data.T @ data
    assert any(runs_beside_an_inversion(matrix.copy()) for _ in range(20))


def runs_beside_an_inversion(matrix):
    """Whether this thread got on before an inversion in another thread had ended."""
    interval, between = sys.getswitchinterval(), []
    began, ended = threading.Event(), threading.Event()

    def work():
        began.set()
        lapack.invert(matrix)
        ended.set()

    sys.setswitchinterval(60.0)  # whoever holds the lock is not asked to give it up
    try:
        thread = threading.Thread(target=work)
        thread.start()
        began.wait()
        between.append(not ended.is_set())
        thread.join()
    finally:
        sys.setswitchinterval(interval)
    return any(between)
