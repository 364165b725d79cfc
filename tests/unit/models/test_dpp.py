import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroloop.errors import ModelError
from neuroloop.models.dpp import lfr_kernel, select


def outputs_of(projectors, samples=20, dim=4, seed=0):
    return np.random.default_rng(seed).standard_normal((projectors, samples, dim))


def volume(kernel, indices):
    return np.linalg.det(kernel[np.ix_(indices, indices)])


def test_the_kernel_is_that_of_the_flattened_similarities():
    outputs = outputs_of(5)
    rows = outputs / np.linalg.norm(outputs, axis=2, keepdims=True)
    flat = (rows @ rows.transpose(0, 2, 1)).reshape(5, -1)
    flat /= np.linalg.norm(flat, axis=1, keepdims=True)
    np.testing.assert_allclose(lfr_kernel(outputs), flat @ flat.T, rtol=1e-12)


@given(st.integers(0, 1000), st.integers(1, 6))
def test_every_choice_is_the_one_that_adds_the_most_volume(seed, length):
    kernel = lfr_kernel(outputs_of(7, samples=6, seed=seed))
    chosen = select(kernel, length).indices
    for number in range(1, length):
        gains = {p: volume(kernel, [*chosen[:number], p]) for p in range(7) if p not in chosen[:number]}
        assert gains[chosen[number]] >= max(gains.values()) * (1 - 1e-9)


def test_a_projector_is_chosen_once_and_its_doubles_never():
    outputs = outputs_of(3)
    doubled = np.concatenate([outputs, outputs, 2 * outputs])
    selection = select(lfr_kernel(doubled), 9)
    assert sorted(index % 3 for index in selection.indices) == [0, 1, 2]
    assert selection.reason == "3 of the 9 targets asked for: the others add nothing to what these tell"


@pytest.mark.parametrize("spoilt", [0.0, np.nan, np.inf])
def test_a_projector_without_a_finite_output_is_never_chosen(spoilt):
    outputs = outputs_of(4)
    outputs[1] = spoilt
    kernel = lfr_kernel(outputs)
    assert np.isfinite(kernel).all()
    assert sorted(select(kernel, 4).indices) == [0, 2, 3]


def test_a_kernel_with_nan_loses_the_items_that_it_says_nothing_about():
    kernel = lfr_kernel(outputs_of(4))
    kernel[2] = kernel[:, 2] = np.nan
    selection = select(kernel, 4)
    assert sorted(selection.indices) == [0, 1, 3]
    assert selection.reason.endswith("(1 have values that are not finite)")


@pytest.mark.parametrize("kernel", [np.zeros((3, 3)), np.full((3, 3), np.nan)])
def test_a_kernel_of_nothing_gives_nothing_and_says_so(kernel):
    selection = select(kernel, 2)
    assert selection.indices == []
    assert selection.reason.startswith("0 of the 2 targets asked for")


@pytest.mark.parametrize("length", [0, -1, 5, 6, 100])
def test_no_length_or_one_too_large_means_all(length):
    selection = select(lfr_kernel(outputs_of(5)), length)
    assert sorted(selection.indices) == [0, 1, 2, 3, 4]
    assert selection.reason is None


@given(st.floats(1e-12, 1e12))
def test_the_scale_of_the_kernel_does_not_matter(scale):
    kernel = lfr_kernel(outputs_of(6))
    assert select(scale * kernel, 4).indices == select(kernel, 4).indices


def test_what_is_no_kernel_and_no_outputs_is_refused():
    with pytest.raises(ModelError, match=r"expected real numbers \(projectors, projectors\), got float64 \(2, 3\)"):
        select(np.zeros((2, 3)), 1)
    with pytest.raises(ModelError, match=r"\(projectors, samples, dim\), got float64 \(4, 3\)"):
        lfr_kernel(np.zeros((4, 3)))
