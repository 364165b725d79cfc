"""Minerva's learning from randomness, reproduced on the arrays that it gave."""

from pathlib import Path

import numpy as np
import pytest
import torch

from neuroloop.errors import ModelError
from neuroloop.models import lfr_torch
from neuroloop.models.lfr_torch import LearnFromRandomness
from neuroloop.reference import batchwise_barlow_twins, dpp, lfr_kernel, lfr_schedule

DATA = dict(np.load(Path(__file__).parents[1] / "fixtures" / "lfr.npz"))
OPTIONS = {"default": (0.01, False), "lam05": (0.5, False), "norm": (0.01, True)}
SCHEDULES = {"None": None, "-1": -1, "0": 0, "1": 1, "2": 2, "3": 3}


def close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("case", range(int(DATA["dpp_count"])))
def test_the_choice_from_a_kernel_is_as_published(case):
    chosen = dpp(DATA[f"dpp{case}_kernel"], int(DATA[f"dpp{case}_max_length"]))
    assert chosen == DATA[f"dpp{case}_selected"].tolist()


def test_the_kernel_of_projectors_and_the_choice_from_it_are_as_published():
    outputs = np.tanh(DATA["sel_sample"] @ DATA["sel_proj_W"])
    close(lfr_kernel(outputs), DATA["sel_kernel"])
    chosen = dpp(DATA["sel_kernel"], int(DATA["sel_num_targets"]))
    assert chosen == DATA["sel_selected"].tolist()
    assert len(chosen) == DATA["sel_n_predictors_after"]


@pytest.mark.parametrize("batch", range(3))
@pytest.mark.parametrize("name", OPTIONS)
def test_the_loss_and_its_gradient_are_as_published(batch, name):
    p, z = DATA[f"bt{batch}_p"], DATA[f"bt{batch}_z"]
    close(batchwise_barlow_twins(p, z, *OPTIONS[name]), DATA[f"bt{batch}_{name}"])
    predicted = torch.from_numpy(p).requires_grad_()
    loss = lfr_torch.barlow_twins(predicted[None], torch.from_numpy(z)[None], *OPTIONS[name])[0]
    loss.backward()
    close(loss.item(), DATA[f"bt{batch}_{name}"])
    close(predicted.grad, DATA[f"bt{batch}_{name}_grad_p"])


def test_the_loss_over_several_targets_is_as_published():
    pairs = list(zip(*(DATA[name].transpose(1, 0, 2) for name in ("lft_y_pred", "lft_y_proj")), strict=True))
    close(np.mean([batchwise_barlow_twins(p, z) for p, z in pairs]), DATA["lft_loss"])
    predictions, targets = (torch.from_numpy(np.stack(side)) for side in zip(*pairs, strict=True))
    close(lfr_torch.barlow_twins(predictions, targets, 0.01, False).mean(), DATA["lft_loss"])


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_schedule_is_as_published_and_the_backbone_follows_it(name):
    frozen, learns, trains = DATA[f"sched_pte_{name}"].T
    assert lfr_schedule(SCHEDULES[name], len(frozen)) == frozen.tolist()
    linear = torch.nn.Linear
    model = LearnFromRandomness(linear(3, 2), [linear(3, 2)], [linear(2, 2)], predictor_training_epochs=SCHEDULES[name])
    for epoch in range(len(frozen)):
        model.train()
        model.begin_epoch(epoch)
        assert all(parameter.requires_grad == learns[epoch] for parameter in model.backbone.parameters())
        assert model.backbone.training == trains[epoch]


def test_arrays_of_different_shapes_are_refused():
    with pytest.raises(ModelError, match=r"of one shape, got \(3, 2\) and \(3, 4\)"):
        batchwise_barlow_twins(np.ones((3, 2)), np.ones((3, 4)))
    with pytest.raises(ModelError, match=r"got float64 \(2, 3\)"):
        dpp(np.ones((2, 3)), 1)
