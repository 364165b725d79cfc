"""What the parts of a batch come to, one after the other in this process; `training/test_meeting.py` has several."""

import numpy as np
import pytest
import torch

from neuroloop.errors import ModelError
from neuroloop.models.gsnn_settings import GSNNFitSettings
from neuroloop.models.lfr_settings import LFRFitSettings
from neuroloop.models.lfr_torch import barlow_twins
from neuroloop.models.pathway import PathwayRegulariser
from neuroloop.models.team import ALONE, Team

SIZES = (2, 3)


@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_the_own_parts_are_all_samples_once_and_of_even_size(size):
    parts = [np.arange(20)[Team(rank, size).own(20)] for rank in range(size)]
    assert np.concatenate(parts).tolist() == list(range(20))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.mark.parametrize("size", SIZES)
def test_rows_are_gathered_in_their_places_and_only_the_own_have_a_gradient(size):
    rows = torch.arange(12.0).reshape(2, 6)
    for rank in range(size):

        def add_up(whole):
            whole.copy_(rows)

        team = Team(rank, size, add_up)
        own = rows[:, team.own(6)].clone().requires_grad_()
        whole = team.gathered(own, 6, dim=1)
        assert torch.equal(whole, rows)
        torch.autograd.backward(whole.square().sum())
        assert torch.equal(own.grad, 2 * rows[:, team.own(6)])


def test_alone_nothing_is_gathered_and_gradients_stay_as_they_are():
    parameter = torch.nn.Parameter(torch.ones(3))
    parameter.grad = torch.full((3,), 2.0)
    rows = torch.ones(2, 3)
    ALONE.add_up_gradients([parameter])
    assert ALONE.gathered(rows, 2) is rows
    assert parameter.grad.tolist() == [2, 2, 2]
    assert ALONE.total(0.1) == 0.1


def test_gradients_of_all_parameters_are_added_up_at_once():
    calls = []

    def add_up(values):
        calls.append(values.numel())
        values.mul_(3)

    parameters = [torch.nn.Parameter(torch.ones(shape)) for shape in ((2, 2), (3,), (1,))]
    for number, parameter in enumerate(parameters[:2]):
        parameter.grad = torch.full_like(parameter, 1.0 + number)
    Team(0, 2, add_up).add_up_gradients(parameters)
    assert calls == [7]
    assert parameters[0].grad.tolist() == [[3, 3], [3, 3]]
    assert parameters[1].grad.tolist() == [6, 6, 6]
    assert parameters[2].grad is None


@pytest.mark.parametrize("size", SIZES)
def test_the_parts_of_the_barlow_twins_loss_are_the_loss_of_the_whole_batch(size):
    generator = torch.Generator().manual_seed(1)
    predictions, targets = (torch.randn(2, 11, 5, generator=generator, dtype=torch.float64) for _ in range(2))
    parts = [Team(rank, size).own(11) for rank in range(size)]
    losses = [barlow_twins(predictions[:, part], targets, 0.01, True, part.start) for part in parts]
    whole = barlow_twins(predictions, targets, 0.01, True)
    torch.testing.assert_close(sum(losses), whole)
    alone = [barlow_twins(predictions[:, part], targets[:, part], 0.01, True) for part in parts]
    assert not torch.allclose(sum(alone) / size, whole)  # so the parts on their own would be another loss


@pytest.mark.parametrize("size", SIZES)
def test_the_gradients_of_pathway_losses_by_parts_add_up_to_those_of_the_whole_batch(size):
    membership = np.array([[1, 1, 1, 0, 0], [0, 0, 1, 1, 1]])
    activations = torch.randn(9, 5, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

    def gradients(part, gather):
        regulariser = PathwayRegulariser(membership, 3, dissimilar=[(0, 1)], lambda_dis=0.3, learn_phi=True).double()
        own = activations[part].clone().requires_grad_()
        torch.autograd.backward(sum(regulariser([own], gather)))
        return own.grad, regulariser.phi.grad

    def by(rank):
        part = Team(rank, size).own(9)
        scores = activations.mean(2)  # phi starts as the mean

        def gather(own):
            return torch.cat([scores[: part.start], own, scores[part.stop :]])

        return gradients(part, gather)

    expected, expected_phi = gradients(slice(None), lambda scores: scores)
    rows, phi = zip(*(by(rank) for rank in range(size)), strict=True)
    torch.testing.assert_close(torch.cat(rows), expected)
    torch.testing.assert_close(sum(phi), expected_phi)


def test_a_process_without_a_sample_is_refused():
    Team(0, 3).check(3)
    with pytest.raises(ModelError, match=r"training.workers: expected at most 2, the samples of an epoch; got 3"):
        Team(0, 3).check(2)
    for settings in (LFRFitSettings, GSNNFitSettings):
        assert settings(workers=4, batch=8).workers == 4
        with pytest.raises(ValueError, match="workers: expected at most half of batch, 4; got 5"):
            settings(workers=5, batch=8)
