"""The published implementations, reproduced on the arrays that they gave."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloop.errors import ModelError
from neuroloop.reference import lrr_apply, lrr_fit, maxrate_logits, maxrate_run
from neuroloop.signal.covariance import Covariance
from neuroloop.signal.rereference import Rereference, car_weights, solve, weights_from_array

FIXTURES = Path(__file__).parents[1] / "fixtures"
RELEASES = {"lrr_seed": 2, "lrr_latest": 3}  # and the size from which a cluster is regressed
GROUPS = ("basic", "decay", "grid", "time", "absent", "sparse")


@pytest.fixture(scope="module", params=RELEASES)
def lrr(request):
    return dict(np.load(FIXTURES / f"{request.param}.npz")), RELEASES[request.param]


@pytest.fixture(scope="module")
def seed():
    return dict(np.load(FIXTURES / "lrr_seed.npz"))


@pytest.fixture(scope="module")
def maxrate():
    return dict(np.load(FIXTURES / "maxrate.npz"))


def assert_same(actual, expected, tolerance=1e-9):
    assert actual.shape == expected.shape
    assert np.abs(actual - expected).max() <= tolerance * np.abs(expected).max()


def split(flat, sizes):
    return [part.tolist() for part in np.split(flat, np.cumsum(sizes)[:-1])]


def test_one_cluster_without_ridge_is_as_published(lrr):
    data, _ = lrr
    weights = lrr_fit(data["X_fit"])
    assert_same(weights, data["single_W"])
    assert_same(lrr_apply(data["X_test"], weights), data["single_Y"])
    assert_same(lrr_apply(data["X_test"], weights), data["warm_then_fit_Y"])


def test_channels_first_is_as_published_after_a_transpose(lrr):
    data, _ = lrr
    weights = lrr_fit(data["X_fit"])
    assert_same(weights, data["chfirst_W"])
    assert_same(lrr_apply(data["X_test"], weights).T, data["chfirst_Y"])


def test_an_absolute_ridge_is_as_published(lrr):
    data, _ = lrr
    weights = lrr_fit(data["X_fit"], ridge_lambda=float(data["ridge_lambda"]))
    assert_same(weights, data["ridge_W"])
    assert_same(lrr_apply(data["X_test"], weights), data["ridge_Y"])


@pytest.mark.parametrize("kind", ["clusters", "clusters_ridge"])
def test_uneven_clusters_out_of_order_are_as_published(lrr, kind):
    data, min_regress = lrr
    clusters = split(data["clusters_flat"], data["clusters_sizes"])
    ridge = float(data["ridge_lambda"]) if kind.endswith("ridge") else 0.0
    weights = lrr_fit(data["X_fit"], clusters, ridge, min_regress)
    assert_same(weights, data[f"{kind}_W"])
    assert_same(lrr_apply(data["X_test"], weights), data[f"{kind}_Y"])


def test_merging_clusters_for_speed_changes_no_number(lrr):
    data, min_regress = lrr
    clusters = split(data["clusters_flat"], data["clusters_sizes"])
    output = lrr_apply(data["X_test"], lrr_fit(data["X_fit"], clusters, min_regress=min_regress))
    assert_same(output, data["clusters_default_merge_Y"])


def test_channels_in_no_cluster_pass_unchanged(lrr):
    data, min_regress = lrr
    clusters = split(np.arange(11), data["unassigned_clusters_sizes"])
    weights = lrr_fit(data["X_fit"], clusters, min_regress=min_regress)
    output = lrr_apply(data["X_test"], weights)
    assert_same(weights, data["unassigned_W"])
    assert_same(output, data["unassigned_default_merge_Y"])
    assert_same(output[:, :11], data["unassigned_Y"][:, :11])  # in release 1.4 the last is 0
    assert np.array_equal(output[:, 11], data["X_test"][:, 11])


def test_chunks_add_up_as_published(lrr):
    data, _ = lrr
    covariance = Covariance([range(12)], 12)
    labels = [str(c) for c in range(12)]
    for number in range(3):
        covariance.add(data[f"chunk{number}"])
        snapshot = covariance.snapshot()
        weights = solve(
            snapshot, labels, ridge=0, min_samples_per_channel=0, center=False, version=1, source="fit"
        ).matrix
        raw = snapshot.scatter[0] + snapshot.samples * np.outer(snapshot.mean, snapshot.mean)
        assert_same(raw, data[f"inc{number}_cxx"])
        assert_same(weights, data[f"inc{number}_W"])
        assert_same(lrr_apply(data["X_test"], weights), data[f"inc{number}_Y"])
        assert snapshot.samples == data[f"inc{number}_n"]


def test_a_chunk_with_one_nan_changes_nothing(lrr):
    data, _ = lrr
    covariance = Covariance([range(12)], 12)
    spoilt = data["chunk0"].copy()
    spoilt[5, 3] = np.nan
    for chunk in (data["chunk0"], data["chunk1"], data["chunk2"], spoilt):
        covariance.add(chunk)
    labels = [str(c) for c in range(12)]
    weights = solve(
        covariance.snapshot(), labels, ridge=0, min_samples_per_channel=0, center=False, version=1, source="fit"
    )
    assert_same(weights.matrix, data["inc_after_nan_W"])


def test_each_chunk_for_itself_is_as_published(lrr):
    data, _ = lrr
    weights = lrr_fit(data["chunk2"])
    assert_same(weights, data["noninc_W"])
    assert_same(lrr_apply(data["X_test"], weights), data["noninc_Y"])


def test_float32_is_as_published_within_its_rounding(lrr):
    data, _ = lrr
    weights = lrr_fit(data["X_fit"].astype(np.float32))
    assert_same(weights, data["f32_W"], 1e-5)
    assert_same(lrr_apply(data["X_test"].astype(np.float32), weights), data["f32_Y"], 1e-5)


def test_epochs_are_flattened_to_samples_as_published(seed):
    weights = lrr_fit(seed["X_fit"][:216].reshape(6, 36, 12))
    assert_same(weights, seed["ep3d_W"])
    assert_same(lrr_apply(seed["X_test"][:30].reshape(3, 10, 12), weights), seed["ep3d_Y"])


def test_weights_from_a_csv_are_applied_as_published(lrr):
    data, _ = lrr
    matrix = np.loadtxt(FIXTURES / "lrr_weights.csv", delimiter=",")
    weights = weights_from_array(matrix, [str(c) for c in range(12)])
    assert_same(lrr_apply(data["X_test"], weights.matrix), data["csv_Y"])


def test_the_cold_start_by_common_average_is_as_published():
    data = np.load(FIXTURES / "lrr_latest.npz")
    clusters = split(data["clusters_flat"], data["clusters_sizes"])
    weights = car_weights([str(c) for c in range(12)], clusters)
    assert_same(lrr_apply(data["X_test"], weights.matrix), data["coldstart_car_Y"])


def test_the_hot_path_gives_the_published_output_in_float32(lrr):
    data, min_regress = lrr
    clusters = split(data["clusters_flat"], data["clusters_sizes"])
    stage = Rereference(clusters, 12)
    matrix = lrr_fit(data["X_fit"], clusters, min_regress=min_regress)
    stage.set_weights(weights_from_array(matrix, [str(c) for c in range(12)]))
    assert_same(stage(data["X_test"].astype(np.float32)), data["clusters_Y"], 1e-5)


def test_one_cluster_agrees_with_the_least_squares_oracle(seed):
    assert_same(lrr_fit(seed["X_fit"]), seed["oracle_single_W"])


def test_a_doubled_channel_gives_the_minimum_norm_output_of_the_oracle(seed):
    doubled, test = seed["X_fit"].copy(), seed["X_test"].copy()
    doubled[:, 2], test[:, 2] = doubled[:, 1], test[:, 1]
    assert_same(lrr_apply(test, lrr_fit(doubled)), seed["oracle_dup_Y"])


def test_a_dead_channel_is_left_out_as_by_the_oracle(seed):
    dead, test = seed["X_fit"].copy(), seed["X_test"].copy()
    dead[:, 3] = test[:, 3] = 0.0
    weights = lrr_fit(dead)
    assert_same(weights, seed["oracle_dead_W"])
    assert_same(lrr_apply(test, weights), seed["oracle_dead_Y"])


def test_weights_with_a_row_too_many_are_refused(seed):
    with pytest.raises(ModelError, match=r"expected \(12, 12\), got \(13, 12\)"):
        lrr_apply(seed["X_test"], np.zeros((13, 12)))


@pytest.mark.parametrize("clusters", [[[0, 1], [1, 2]], [[0, 12]], [[-1, 2]]])
def test_clusters_that_overlap_or_reach_outside_are_refused(seed, clusters):
    with pytest.raises(ModelError, match="channel_clusters: cluster"):
        lrr_fit(seed["X_fit"], clusters)


def published_form(X, clusters, ridge, min_regress):
    """W as ezmsg-learn computes it: the inverse of the raw second moment of each cluster."""
    flat = np.asarray(X, dtype=np.float64).reshape(-1, np.shape(X)[-1])
    weights = np.zeros((flat.shape[1], flat.shape[1]))
    for cluster in [list(range(flat.shape[1]))] if clusters is None else clusters:
        if len(cluster) >= min_regress:
            moment = flat[:, cluster].T @ flat[:, cluster] + ridge * np.eye(len(cluster))
            inverse = np.linalg.inv(moment)
            part = -inverse / np.diagonal(inverse)
            np.fill_diagonal(part, 0)
            weights[np.ix_(cluster, cluster)] = part
    return weights


@given(
    st.integers(0, 10_000),
    st.sampled_from(["float64", "float32", "int16"]),
    st.sampled_from([(400,), (5, 80), (2, 4, 50)]),
    st.sampled_from([None, [[0], [5, 1, 2]], [[0, 3], [4], [6, 5, 2, 1]], [[6, 5, 4, 3, 2, 1, 0]], []]),
    st.sampled_from([0.0, 1.0, 1e4]),
    st.sampled_from([2, 3]),
)
@settings(max_examples=60)
def test_any_array_gives_what_the_published_formula_gives(seed, dtype, shape, clusters, ridge, min_regress):
    rng = np.random.default_rng(seed)
    X = (rng.standard_normal((*shape, 7)) + 2 * rng.standard_normal((*shape, 1)) + 0.7) * np.linspace(50, 400, 7)
    X = X.astype(dtype)
    weights = lrr_fit(X, clusters, ridge, min_regress)
    expected = published_form(X, clusters, ridge, min_regress)
    assert np.abs(weights - expected).max() <= 1e-9 * max(1.0, np.abs(expected).max())
    values = X.astype(np.float64)
    output = lrr_apply(X, weights)
    assert output.shape == X.shape
    assert np.abs(output - (values - values @ expected)).max() <= 1e-9 * np.abs(values).max()


def run(data, group):
    batches = [(data[f"{group}_x{i}"], data[f"{group}_y{i}"]) for i in range(int(data[f"{group}_batches"]))]
    shape = data[f"{group}_shape"].tolist()
    return maxrate_run(batches, shape, int(data[f"{group}_K"]), float(data[f"{group}_decay"]))


@pytest.mark.parametrize("group", GROUPS)
def test_every_batch_of_maxrate_is_as_published(maxrate, group):
    for number, step in enumerate(run(maxrate, group)):
        assert np.array_equal(step["pred"], maxrate[f"{group}_fwd_pred{number}"])
        assert np.array_equal(step["assignments"], maxrate[f"{group}_assign{number}"])
        assert np.array_equal(step["occurrences"], maxrate[f"{group}_occ{number}"])
        np.testing.assert_allclose(step["logits"], maxrate[f"{group}_fwd_logits{number}"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(step["rates"], maxrate[f"{group}_rates{number}"], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(step["proportions"], maxrate[f"{group}_prop{number}"], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("group", GROUPS)
@pytest.mark.parametrize("proportional", [False, True])
def test_maxrate_answers_new_inputs_as_published(maxrate, group, proportional):
    logits = maxrate_logits(run(maxrate, group)[-1]["rates"], maxrate[f"{group}_query"], proportional)
    np.testing.assert_allclose(logits, maxrate[f"{group}_logits_prop{int(proportional)}"], rtol=1e-5, atol=1e-6)
    assert np.array_equal(logits.argmax(axis=1), maxrate[f"{group}_pred_prop{int(proportional)}"])


def test_a_fresh_maxrate_answers_zero_to_everything(maxrate):
    query = maxrate["untrained_query"]
    step = maxrate_run([(query, np.zeros(len(query), int))], [4], 3)[0]
    assert np.array_equal(step["logits"], maxrate["untrained_logits_prop1"])


def test_rates_that_are_all_zero_belong_to_the_first_class(maxrate):
    logits = maxrate_logits(np.zeros((4, 3)), maxrate["untrained_query"], False)
    np.testing.assert_allclose(logits, maxrate["zeroset_logits_prop0"], rtol=1e-5)


def test_inputs_of_another_shape_and_labels_of_no_class_are_refused():
    with pytest.raises(ModelError, match=r"expected \(batch, \*\(3,\)\)"):
        maxrate_run([(np.zeros((2, 4)), [0, 1])], [3], 2)
    with pytest.raises(ModelError, match="label: 2 is no class"):
        maxrate_run([(np.zeros((2, 3)), [0, 2])], [3], 2)
    with pytest.raises(ModelError, match="expected one for each of 2 inputs, got 1"):
        maxrate_run([(np.zeros((2, 3)), [0])], [3], 2)
