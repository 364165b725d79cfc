import numpy as np
import pytest
import torch
from torch import nn

from neuroloop.errors import ModelError
from neuroloop.models.lfr_torch import LearnFromRandomness, barlow_twins


@pytest.fixture(autouse=True)
def _seeded():
    torch.manual_seed(0)


def make_model(targets=3, backbone=None, **more):
    projectors = [nn.Sequential(nn.Linear(6, 4), nn.Tanh()) for _ in range(targets)]
    predictors = [nn.Linear(5, 4) for _ in range(targets)]
    backbone = backbone or nn.Sequential(nn.Linear(6, 5), nn.ReLU())
    return LearnFromRandomness(backbone, projectors, predictors, nn.Linear(5, 5), **more)


def values(module):
    return torch.cat([parameter.detach().flatten() for parameter in module.parameters()]).clone()


def train(model, epochs, steps=2):
    """Of each step, whether it changed backbone, adapter and predictors."""
    optimizer = torch.optim.AdamW(model.learned_parameters(), lr=1e-2, weight_decay=0.1)
    changes = []
    for epoch in range(epochs):
        model.train()
        model.begin_epoch(epoch)
        for _ in range(steps):
            before = [values(part) for part in (model.backbone, model.adapter, model.predictors)]
            optimizer.zero_grad()
            model.loss(torch.randn(8, 6)).backward()
            optimizer.step()
            model.after_step()
            after = [values(part) for part in (model.backbone, model.adapter, model.predictors)]
            changes.append([not torch.equal(one, other) for one, other in zip(before, after, strict=True)])
    return changes


def test_the_loss_falls_while_it_learns():
    model, x = make_model(), torch.randn(64, 6)
    optimizer = torch.optim.AdamW(model.learned_parameters(), lr=1e-2)
    losses = []
    for _ in range(60):
        optimizer.zero_grad()
        loss = model.loss(x)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_epochs_for_the_predictors_alone_leave_backbone_and_adapter_as_they_are_to_the_bit():
    changes = train(make_model(predictor_training_epochs=2), epochs=4)
    assert changes == [[True] * 3] * 2 + [[False, False, True]] * 4 + [[True] * 3] * 2


@pytest.mark.parametrize("most", [0, 1, 3])
def test_the_backbone_takes_exactly_the_steps_that_it_has(most):
    model = make_model(max_backbone_training_steps=most)
    changes = train(model, epochs=3)
    assert changes == [[True] * 3] * most + [[False, False, True]] * (6 - most)
    assert model.backbone_steps == most
    assert model.has_done_its_steps


def test_what_the_user_froze_stays_frozen_when_the_rest_is_released():
    first = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 5))
    first[0].requires_grad_(False)
    model = make_model(backbone=first, predictor_training_epochs=1)
    before = values(first[0])
    changes = train(model, epochs=3)
    assert changes[0][0]
    assert torch.equal(values(first[0]), before)
    assert not first[0].weight.requires_grad
    assert first[1].weight.requires_grad


def test_statistics_of_a_frozen_backbone_do_not_drift():
    norm = nn.BatchNorm1d(6)
    model = make_model(backbone=nn.Sequential(norm, nn.Linear(6, 5)), predictor_training_epochs=1)
    train(model, epochs=1)
    mean = norm.running_mean.clone()
    assert mean.abs().max() > 0
    model.begin_epoch(1)
    model.train()
    model.loss(torch.randn(8, 6) + 5)
    assert torch.equal(norm.running_mean, mean)
    assert not norm.training


def test_projectors_are_frozen_and_always_in_evaluation_mode():
    projector = nn.Sequential(nn.Linear(6, 4), nn.Dropout(0.5))
    model = LearnFromRandomness(nn.Linear(6, 5), [projector], [nn.Linear(5, 4)])
    model.train()
    x = torch.randn(8, 6)
    first, second = model(x)[1], model(x)[1]
    assert torch.equal(first, second)
    assert not first.requires_grad
    assert projector[0].weight not in set(model.learned_parameters())
    assert all(not parameter.requires_grad for parameter in projector.parameters())


def test_a_perfect_prediction_has_no_loss_of_its_own():
    generator = torch.Generator().manual_seed(1)
    rows = torch.randn(1, 500, 3, generator=generator)
    q = rows / rows.norm(dim=2, keepdim=True)
    assert (q.square().sum(2) > 1.0).any()  # by rounding
    assert barlow_twins(rows, rows, 0.0, False).item() < 1e-9
    assert torch.isfinite(barlow_twins(torch.zeros(1, 4, 3), torch.zeros(1, 4, 3), 0.01, True)).all()


def test_a_loss_over_the_batch_does_not_grow_with_its_size():
    p, z = torch.randn(1, 4, 3), torch.randn(1, 4, 3)
    summed, mean = (barlow_twins(p, z, 0.0, normalize) for normalize in (False, True))
    doubled = barlow_twins(torch.cat([p, p], 1), torch.cat([z, z], 1), 0.0, True)
    np.testing.assert_allclose(mean, summed / 4, rtol=1e-6)
    np.testing.assert_allclose(doubled, mean, rtol=1e-6)


def test_targets_that_differ_are_kept_with_their_predictors():
    model = make_model(targets=4)
    sample, predictors = torch.randn(50, 6), list(model.predictors)
    outputs = model(sample)[1]
    selection = model.select_targets(sample, 2)
    assert selection.indices == model.chosen
    assert len(model.chosen) == 2
    assert list(model.predictors) == [predictors[index] for index in model.chosen]
    np.testing.assert_allclose(model(sample)[1], outputs[model.chosen], rtol=1e-6)


def test_fewer_targets_than_asked_are_used_and_said():
    projector = nn.Linear(6, 4)
    model = LearnFromRandomness(nn.Linear(6, 5), [projector] * 3, [nn.Linear(5, 4) for _ in range(3)])
    selection = model.select_targets(torch.randn(20, 6), 2)
    assert model.chosen == [0]
    assert selection.reason.startswith("1 of the 2 targets asked for")
    assert model(torch.randn(8, 6))[0].shape == (1, 8, 4)


@pytest.mark.parametrize("count", [0, -1, 99])
def test_no_number_of_targets_or_one_too_large_means_all(count):
    model = make_model(targets=4)
    model.select_targets(torch.randn(50, 6), count)
    assert sorted(model.chosen) == [0, 1, 2, 3]


def test_projectors_that_tell_nothing_and_parts_that_do_not_fit_are_refused():
    silent = nn.Linear(6, 4)
    nn.init.zeros_(silent.weight)
    nn.init.zeros_(silent.bias)
    model = LearnFromRandomness(nn.Linear(6, 5), [silent], [nn.Linear(5, 4)])
    with pytest.raises(ModelError, match="every projector gives 0"):
        model.select_targets(torch.randn(20, 6), 1)
    with pytest.raises(ModelError, match="got 2 projectors and 1 predictors"):
        LearnFromRandomness(nn.Linear(6, 5), [nn.Linear(6, 4)] * 2, [nn.Linear(5, 4)])
    with pytest.raises(ModelError, match=r"like the projectors', \(1, 8, 4\), got \(1, 8, 3\)"):
        LearnFromRandomness(nn.Linear(6, 5), [nn.Linear(6, 4)], [nn.Linear(5, 3)]).loss(torch.randn(8, 6))
