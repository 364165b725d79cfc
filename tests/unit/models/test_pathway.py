import numpy as np
import pytest
import torch

from neuroloop.errors import ModelError
from neuroloop.models.pathway import PathwayRegulariser

MEMBERSHIP = np.array([[1, 1, 1, 0, 0], [0, 0, 1, 0.5, 0], [0, 0, 0, 0, 1]], np.float32)


@pytest.fixture
def activations():
    generator = np.random.default_rng(0)
    return [torch.from_numpy(generator.standard_normal((12, 5, 3))) for _ in range(2)]


def correlation(one, other):
    return np.corrcoef(one, other)[0, 1]


def test_a_node_is_compared_with_the_others_of_its_pathway(activations):
    regulariser = PathwayRegulariser(MEMBERSHIP, 3, lambda_sim=1.0, eps=0.0)
    layers = []
    for activation in activations:
        s = activation.mean(2).numpy()
        total = sum(correlation(s[:, i], np.delete(s[:, :3], i, axis=1).mean(axis=1)) for i in range(3))
        total += (1.0 + 0.5) * correlation(s[:, 2], s[:, 3])
        layers.append(-total / 4.5)
    assert float(regulariser(activations)[0]) == pytest.approx(np.mean(layers))


def test_a_pathway_of_one_is_left_out_and_named_where_it_was_perfect_as_published(activations):
    one = np.eye(1, 5, dtype=np.float32)
    published = PathwayRegulariser(one, 3, lambda_sim=1.0, self_inclusive=True)
    assert float(published(activations)[0]) == pytest.approx(-1.0, abs=1e-4)
    assert published.left_out == ()
    own = PathwayRegulariser(one, 3, lambda_sim=1.0)
    assert float(own(activations)[0]) == 0.0
    assert own.left_out == (0,)
    assert PathwayRegulariser(MEMBERSHIP, 3).left_out == (2,)


def test_a_pathway_of_one_leaves_the_others_as_they_were(activations):
    with_it = PathwayRegulariser(MEMBERSHIP, 3)(activations)
    without = PathwayRegulariser(MEMBERSHIP[:2], 3)(activations)
    assert float(with_it[0]) == float(without[0])


def test_nodes_that_go_together_are_perfect_and_a_step_brings_others_nearer(activations):
    regulariser = PathwayRegulariser(MEMBERSHIP[:1], 3, lambda_sim=1.0)
    same = activations[0][:, :1].expand(-1, 5, -1)
    assert float(regulariser([same])[0]) == pytest.approx(-1.0, abs=1e-4)
    values = activations[0].clone().requires_grad_()
    before = regulariser([values])[0]
    before.backward()
    assert regulariser([values - values.grad])[0] < before


def test_dissimilar_pathways_cost_their_squared_correlation(activations):
    regulariser = PathwayRegulariser(MEMBERSHIP, 3, dissimilar=[(0, 2)], lambda_dis=2.0, eps=0.0)
    expected = [
        correlation(activation.mean(2)[:, :3].mean(1), activation.mean(2)[:, 4]) ** 2 for activation in activations
    ]
    assert float(regulariser(activations)[1]) == pytest.approx(2.0 * np.mean(expected))


def test_flat_activations_are_those_of_nodes_side_by_side(activations):
    regulariser = PathwayRegulariser(MEMBERSHIP, 3)
    assert regulariser(activations) == regulariser([one.flatten(1) for one in activations])


def test_the_weights_of_the_channels_are_learned(activations):
    regulariser = PathwayRegulariser(MEMBERSHIP, 3, learn_phi=True)
    similar = regulariser(activations)[0]
    assert similar.item() == pytest.approx(PathwayRegulariser(MEMBERSHIP, 3)(activations)[0].item())
    similar.backward()
    assert regulariser.phi.grad.abs().sum() > 0


@pytest.mark.parametrize("self_inclusive", [True, False])
def test_a_node_that_never_changes_has_a_finite_gradient(activations, self_inclusive):
    values = activations[0].clone()
    values[:, 1] = 2.0
    values.requires_grad_()
    sum(PathwayRegulariser(MEMBERSHIP, 3, self_inclusive=self_inclusive)([values])).backward()
    assert torch.isfinite(values.grad).all()


def test_a_batch_of_one_is_an_error(activations):
    with pytest.raises(ModelError, match="batch of 1 has no correlation"):
        PathwayRegulariser(MEMBERSHIP, 3)([activations[0][:1]])


@pytest.mark.parametrize(
    ("membership", "pairs", "message"),
    [
        (np.ones(5), (), r"expected \(pathways, functions\).*got shape \(5,\)"),
        (-MEMBERSHIP, (), "from 0 on.*from -1 to"),
        (MEMBERSHIP, [(0, 3)], "two different pathways of 0 to 2, got 0 and 3"),
        (MEMBERSHIP, [(1, 1)], "two different pathways of 0 to 2, got 1 and 1"),
    ],
)
def test_what_is_no_pathway_is_refused(membership, pairs, message):
    with pytest.raises(ModelError, match=message):
        PathwayRegulariser(membership, 3, dissimilar=pairs)


def test_activations_of_other_nodes_are_refused(activations):
    with pytest.raises(ModelError, match=r"5 functions x 3 channels\), got \(12, 4, 3\)"):
        PathwayRegulariser(MEMBERSHIP, 3)([activations[0][:, :4]])
    with pytest.raises(ModelError, match="one layer or more, got none"):
        PathwayRegulariser(MEMBERSHIP, 3)([])
