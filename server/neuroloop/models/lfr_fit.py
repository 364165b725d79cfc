"""Fitting a backbone: without labels, and with them. PyTorch, one device, seeded.

    pretrain    learning from randomness (`lfr_torch`) over all windows of the rates
    tune        backbone and a softmax regression on it, by AdamW, until held-back trials get no better

The head of a backbone that stays as it is: `lfr_regression`.

Both may be shared by several processes (`team`): each takes a part of the windows of every step. The loss is that of
the whole batch all the same, for pretraining too; see `lfr_torch.LearnFromRandomness.loss`.

Windows overlap, so an epoch of pretraining takes every `stride`th, each epoch others: all are seen within `stride`
epochs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroloop.models.backbones_torch import Backbone
from neuroloop.models.kept import Kept
from neuroloop.models.lfr_projectors import make_predictors, make_projectors, seeded
from neuroloop.models.lfr_regression import Lessons, Patience, cross_entropy
from neuroloop.models.lfr_settings import LFRFitSettings
from neuroloop.models.lfr_torch import MOST_SAMPLES, LearnFromRandomness
from neuroloop.models.team import ALONE, Team

F32 = NDArray[np.float32]
Indices = NDArray[np.intp]

# Told the number of an epoch, from 1 on, and its loss.
OnEpoch = Callable[[int, float], None]

AT_ONCE = 1024  # windows whose features are taken


class Windows:
    """All windows of standardised rates, (bins, units), on a device; one is known by the bin that it ends with."""

    def __init__(self, rates: F32, bins: int, device: torch.device) -> None:
        self.bins, self.units, self.device = bins, rates.shape[1], device
        self._rates = torch.from_numpy(np.ascontiguousarray(rates)).to(device)
        self._back = torch.arange(1 - bins, 1, device=device)

    def of(self, ends: Tensor) -> Tensor:
        """(windows, bins, units)."""
        return self._rates[ends.to(self.device)[:, None] + self._back]


def device_of(settings: LFRFitSettings) -> torch.device:
    name = settings.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def pretrain(
    backbone: Backbone,
    width: int,
    windows: Windows,
    ends: Indices,
    settings: LFRFitSettings,
    on_epoch: OnEpoch,
    kept: Kept = Kept(),  # noqa: B008 (immutable)
    team: Team = ALONE,
) -> list[int]:
    """Train the backbone, whose features are so many, in place; returns the numbers of the projectors it learned from.

    ends: the windows to learn from. kept: what it goes on from, to the same end. Raises ModelError where a projector
    does not fit the window.
    """
    team.check(len(ends) // settings.stride)
    model = _model(backbone, width, windows, settings)
    team.follow(model)
    order = np.random.default_rng(settings.seed)
    sample = order.choice(ends, size=min(MOST_SAMPLES, len(ends)), replace=False)
    model.select_targets(windows.of(torch.from_numpy(np.sort(sample))), settings.targets, team)
    optimizer = _adamw(model.learned_parameters(), settings.learning_rate, settings)
    first = 0
    if (state := kept.load()) is not None:
        first = _go_on(state, model, optimizer, order)
        model.backbone_steps = state["backbone_steps"]
    for epoch in range(first, settings.pretrain_epochs):
        if epoch and model.has_done_its_steps:
            break
        model.train()
        model.begin_epoch(epoch)
        team.follow(model)
        seen = ends[epoch % min(settings.stride, len(ends)) :: settings.stride]
        total, steps = 0.0, 0
        for batch in _batches(seen, settings.batch, order, team):
            optimizer.zero_grad(set_to_none=True)
            loss = model.loss(windows.of(batch[team.own(len(batch))]), team, len(batch))
            loss.backward()  # type: ignore[no-untyped-call]
            team.add_up_gradients(model.parameters())
            optimizer.step()
            model.after_step()
            total, steps = total + loss.item(), steps + 1
        on_epoch(epoch + 1, team.total(total) / steps)
        kept.save(_state(epoch + 1, model, optimizer, order) | {"backbone_steps": model.backbone_steps})
    backbone.requires_grad_(True).eval()
    return model.chosen


def _model(backbone: Backbone, width: int, windows: Windows, settings: LFRFitSettings) -> LearnFromRandomness:
    asked, seed = settings.projectors, settings.seed
    projectors = make_projectors(asked, windows.bins, windows.units, seed)
    adapted = settings.adapter or width
    predictors = make_predictors(settings.predictors, len(projectors), adapted, asked.outputs, seed + len(projectors))
    with seeded(seed + len(projectors) + 1):
        adapter = nn.Linear(width, adapted) if settings.adapter else None
    model = LearnFromRandomness(
        backbone,
        projectors,
        predictors,
        adapter,
        predictor_training_epochs=settings.predictor_training_epochs,
        max_backbone_training_steps=settings.max_backbone_training_steps,
    )
    return model.to(windows.device)


def tune(
    backbone: Backbone,
    width: int,
    classes: int,
    windows: Windows,
    lessons: Lessons,
    held_back: Lessons | None,
    settings: LFRFitSettings,
    epochs: int,
    on_epoch: OnEpoch,
    kept: Kept = Kept(),  # noqa: B008 (immutable)
    team: Team = ALONE,
) -> None:
    """Train the backbone in place under a linear head that is then dropped; it is left as it was in the best epoch.

    held_back: what the best is told by; the training's own loss where there is none. kept: what it goes on from.
    """
    team.check(len(lessons.ends))
    with seeded(settings.seed + 1):
        head = nn.Linear(width, classes).to(windows.device)
    whole = nn.Sequential(backbone.to(windows.device), head)
    optimizer = _adamw(list(whole.parameters()), settings.tune_learning_rate, settings)
    order = np.random.default_rng(settings.seed + 1)
    labels, weights = _tensor(lessons.labels, windows), _tensor(lessons.weights, windows)
    stop, best, first = Patience(settings.patience), copy.deepcopy(backbone.state_dict()), 0
    if (state := kept.load()) is not None:
        first, best = _go_on(state, whole, optimizer, order), state["best"]
        stop.since, stop.best = state["patience"]
    for epoch in range(first, epochs):
        if stop.is_over:
            break
        whole.train()
        team.follow(whole)
        total, steps = 0.0, 0
        for batch in _batches(np.arange(len(lessons.ends)), settings.batch, order, team):
            optimizer.zero_grad(set_to_none=True)
            own = batch[team.own(len(batch))]
            logits, weight = whole(windows.of(torch.from_numpy(lessons.ends)[own])), weights[batch.to(windows.device)]
            own = own.to(windows.device)
            loss = cross_entropy(logits, labels[own], weights[own], weight.sum())
            loss.backward()  # type: ignore[no-untyped-call]
            team.add_up_gradients(whole.parameters())
            optimizer.step()
            total, steps = total + loss.item(), steps + 1
        value = team.total(total) / steps if held_back is None else _held_back_loss(whole, windows, held_back, team)
        on_epoch(epoch + 1, value)
        if stop.is_better(value):
            best = copy.deepcopy(backbone.state_dict())
        kept.save(
            _state(epoch + 1, whole, optimizer, order) | {"best": dict(best), "patience": (stop.since, stop.best)}
        )
    backbone.load_state_dict(best)
    backbone.eval()


def features_of(backbone: Backbone, windows: Windows, ends: Indices) -> Tensor:
    """(windows, width)."""
    backbone.to(windows.device).eval()
    with torch.no_grad():
        return torch.cat([backbone(windows.of(part)) for part in torch.split(torch.from_numpy(ends), AT_ONCE)])


def _batches(items: Indices, size: int, order: np.random.Generator, team: Team) -> Iterator[Tensor]:
    """In random order; one that is left over alone has nothing to be told apart from, and is left out if it can be.

    So are those that are left over for a team of more processes.
    """
    shuffled = torch.from_numpy(order.permutation(items))
    for batch in torch.split(shuffled, size):
        if len(batch) >= max(2, team.size) or len(shuffled) == 1:
            yield batch


def _state(
    epochs: int, model: nn.Module, optimizer: torch.optim.Optimizer, order: np.random.Generator
) -> dict[str, Any]:
    """After so many epochs."""
    return {
        "epochs": epochs,
        "model": dict(model.state_dict()),
        "optimizer": optimizer.state_dict(),
        "order": order.bit_generator.state,
    }


def _go_on(
    state: dict[str, Any], model: nn.Module, optimizer: torch.optim.Optimizer, order: np.random.Generator
) -> int:
    """From a state; returns how many epochs are behind it."""
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    order.bit_generator.state = state["order"]
    return int(state["epochs"])


def _adamw(parameters: list[nn.Parameter], rate: float, settings: LFRFitSettings) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=rate, weight_decay=settings.weight_decay)


def _tensor(values: NDArray[np.generic], windows: Windows) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(windows.device)


def _held_back_loss(whole: nn.Module, windows: Windows, held_back: Lessons, team: Team) -> float:
    whole.eval()
    own = team.own(len(held_back.ends))
    labels, weights = _tensor(held_back.labels[own], windows), _tensor(held_back.weights[own], windows)
    total = 0.0
    with torch.no_grad():
        ends = torch.from_numpy(held_back.ends[own])
        for part in torch.split(torch.arange(len(ends)), AT_ONCE):
            logits, where = whole(windows.of(ends[part])), part.to(windows.device)
            total += cross_entropy(logits, labels[where], weights[where], torch.ones(())).item() if len(part) else 0.0
    return team.total(total) / float(held_back.weights.sum())
