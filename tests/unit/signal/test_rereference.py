import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloop.errors import ModelError
from neuroloop.signal.covariance import snapshot_of
from neuroloop.signal.rereference import Rereference, Weights, apply, identity_weights, predicted_scale, solve

LABELS = [str(c) for c in range(9)]
LAYOUTS = [[range(9)], [[0, 1, 2], [3, 4, 5], [6, 7, 8]], [[8, 2, 4], [0, 1]], [[0, 1], [2, 3, 4, 5, 6]]]


def noise(samples, channels=9, seed=0):
    return np.random.default_rng(seed).standard_normal((samples, channels)).astype(np.float32)


def random_weights(clusters, seed=0, version=1):
    matrix = np.zeros((9, 9))
    for cluster in clusters:
        cluster = list(cluster)
        matrix[np.ix_(cluster, cluster)] = np.random.default_rng(seed).standard_normal((len(cluster), len(cluster)))
    np.fill_diagonal(matrix, 0)
    return Weights(version, matrix, tuple(LABELS), "fit")


@pytest.mark.parametrize("clusters", LAYOUTS)
def test_blocks_come_out_as_the_definition_says(clusters):
    stage, weights, block = Rereference(clusters, 9), random_weights(clusters), noise(50)
    stage.set_weights(weights)
    np.testing.assert_allclose(stage(block), apply(block, weights.matrix), atol=1e-5)


def test_weights_that_reach_across_clusters_are_honoured():
    stage, weights, block = Rereference([[0, 1, 2], [3, 4, 5]], 9), random_weights([range(9)]), noise(50)
    stage.set_weights(weights)
    np.testing.assert_allclose(stage(block), apply(block, weights.matrix), atol=1e-5)


@pytest.mark.parametrize("clusters", LAYOUTS)
def test_it_starts_with_the_identity(clusters):
    block = noise(20)
    assert np.array_equal(Rereference(clusters, 9)(block), block)


def test_channels_in_no_cluster_pass_to_the_bit():
    stage, block = Rereference([[8, 2, 4], [0, 1]], 9), noise(20)
    stage.set_weights(random_weights([[8, 2, 4], [0, 1]]))
    assert np.array_equal(stage(block)[:, [3, 5, 6, 7]], block[:, [3, 5, 6, 7]])


@given(st.integers(0, 8), st.integers(0, 1000))
@settings(max_examples=25)
def test_what_is_subtracted_from_a_channel_does_not_depend_on_it(channel, seed):
    stage, block = Rereference([range(9)], 9), noise(30, seed=seed)
    stage.set_weights(random_weights([range(9)], seed))
    changed = block.copy()
    changed[:, channel] += 64
    difference = stage(changed).copy()[:, channel] - stage(block)[:, channel]
    np.testing.assert_allclose(difference, 64, atol=1e-4)


def test_prepared_weights_come_into_use_by_exchange():
    stage, block = Rereference([range(9)], 9), noise(20)
    prepared = stage.prepare(random_weights([range(9)], version=4))
    assert stage.weights.version == 0
    stage.set_weights(prepared)
    assert stage.weights.version == 4
    assert not np.array_equal(stage(block), block)


def test_the_output_goes_where_it_is_asked_to():
    stage, block = Rereference(LAYOUTS[2], 9), noise(20)
    stage.set_weights(random_weights(LAYOUTS[2]))
    out = np.empty_like(block)
    assert stage(block, out) is out
    assert np.array_equal(out, stage(block))


def test_weights_for_another_number_of_channels_are_refused():
    with pytest.raises(ModelError, match=r"expected \(9, 9\), got \(4, 4\)"):
        Rereference([range(9)], 9).set_weights(identity_weights(list("abcd")))


def test_overlapping_clusters_are_refused():
    with pytest.raises(ValueError, match="must not overlap"):
        Rereference([[0, 1], [1, 2]], 9)


def test_a_reset_keeps_the_weights_and_the_state_brings_them_back():
    first, second, block = Rereference([range(9)], 9), Rereference([range(9)], 9), noise(20)
    first.set_weights(random_weights([range(9)], version=3))
    before = first(block).copy()
    first.reset()
    second.load_state_dict(first.state_dict())
    assert np.array_equal(first(block), before)
    assert np.array_equal(second(block), before)
    assert (second.weights.version, second.weights.source) == (3, "fit")


def test_the_change_of_amplitude_is_foretold():
    data = noise(2000).astype(float) + 3 * noise(2000, 1, seed=1)
    snapshot = snapshot_of(data, [range(9)])
    old = identity_weights(LABELS)
    new = solve(snapshot, LABELS, ridge=1e-3, version=1, source="fit")
    expected = apply(data, new.matrix).std(axis=0) / data.std(axis=0)
    np.testing.assert_allclose(predicted_scale(snapshot, old, new), expected, rtol=1e-6)


def test_no_change_is_foretold_where_nothing_is_known():
    snapshot = snapshot_of(noise(200), [[0, 1, 2]])
    scale = predicted_scale(snapshot, identity_weights(LABELS), random_weights([range(9)]))
    assert scale.tolist() == [1.0] * 9
    empty = snapshot_of(noise(0), [range(9)])
    assert predicted_scale(empty, identity_weights(LABELS), random_weights([range(9)])).tolist() == [1.0] * 9
