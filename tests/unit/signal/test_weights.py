import numpy as np
import pytest

from neuroloop.errors import ModelError
from neuroloop.signal.weights import car_weights, identity_weights, weights_from_array

LABELS = ["a", "b", "c", "d"]


def test_the_identity_leaves_every_channel_as_it_is():
    weights = identity_weights(LABELS)
    assert not weights.matrix.any()
    assert weights.channels == ("a", "b", "c", "d")
    assert weights.version == 0


def test_the_common_average_of_a_cluster_leaves_the_channel_itself_out():
    data = np.random.default_rng(0).standard_normal((10, 4))
    output = data - data @ car_weights(LABELS, [[0, 1, 3]]).matrix
    np.testing.assert_allclose(output[:, 1], data[:, 1] - (data[:, 0] + data[:, 3]) / 2)
    np.testing.assert_allclose(output[:, 2], data[:, 2])


def test_the_common_average_leaves_clusters_of_two_as_they_are():
    assert not car_weights(LABELS, [[0, 1], [2, 3]]).matrix.any()


def test_uploaded_weights_are_copied_and_cannot_be_written():
    matrix = np.ones((4, 4), np.float32) - np.eye(4, dtype=np.float32)
    weights = weights_from_array(matrix, LABELS, version=7)
    matrix[0, 1] = 99
    assert weights.matrix[0, 1] == 1.0
    assert (weights.version, weights.source, weights.matrix.dtype) == (7, "upload", np.float64)
    with pytest.raises(ValueError, match="read-only"):
        weights.matrix[0, 1] = 2.0


@pytest.mark.parametrize("shape", [(5, 4), (4, 5)])
def test_the_affine_form_is_refused_by_its_shape(shape):
    with pytest.raises(ModelError, match=r"expected \(4, 4\) for 4 channels, got .*; upload W, not the affine form"):
        weights_from_array(np.zeros(shape), LABELS)


@pytest.mark.parametrize("shape", [(3, 3), (4,), (1, 4, 4), ()])
def test_any_other_shape_is_refused(shape):
    with pytest.raises(ModelError, match="one row and one column per channel"):
        weights_from_array(np.zeros(shape), LABELS)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_refused_with_their_place(value):
    matrix = np.zeros((4, 4))
    matrix[2, 1] = value
    with pytest.raises(ModelError, match=rf"1 values are not finite, the first is {value} at row 2, column 1"):
        weights_from_array(matrix, LABELS)


def test_the_complement_of_the_weights_is_recognised_and_refused():
    with pytest.raises(ModelError, match="this looks like I - W; upload W"):
        weights_from_array(np.eye(4), LABELS)


def test_a_channel_that_predicts_itself_is_refused():
    matrix = np.zeros((4, 4))
    matrix[1, 1] = 0.5
    with pytest.raises(ModelError, match=r"got 0\.5 at channel 1; no channel may predict itself"):
        weights_from_array(matrix, LABELS)


@pytest.mark.parametrize("matrix", [np.zeros((4, 4), complex), np.full((4, 4), "0")])
def test_what_is_no_real_number_is_refused(matrix):
    with pytest.raises(ModelError, match="expected real numbers"):
        weights_from_array(matrix, LABELS)
