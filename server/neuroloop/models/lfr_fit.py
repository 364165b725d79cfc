"""Fitting a backbone and a head: without labels, with them, and the head alone. PyTorch, one device, seeded.

    pretrain    learning from randomness (`lfr_torch`) over all windows of the rates
    tune        backbone and a softmax regression on it, by AdamW, until held-back trials get no better
    fit_linear  softmax regression on the features of a backbone that stays as it is, by L-BFGS, until the same

Windows overlap, so an epoch of pretraining takes every `stride`th, each epoch others: all are seen within `stride`
epochs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from neuroloop.models.backbones_torch import Backbone
from neuroloop.models.lfr_projectors import make_predictors, make_projectors, seeded
from neuroloop.models.lfr_settings import LFRFitSettings
from neuroloop.models.lfr_torch import MOST_SAMPLES, LearnFromRandomness

F32 = NDArray[np.float32]
Indices = NDArray[np.intp]

# Told the number of an epoch, from 1 on, and its loss.
OnEpoch = Callable[[int, float], None]

AT_ONCE = 1024  # windows whose features are taken
SHARPNESS = np.geomspace(0.02, 50.0, 400)  # among which that of the probabilities is sought


class Windows:
    """All windows of standardised rates, (bins, units), on a device; one is known by the bin that it ends with."""

    def __init__(self, rates: F32, bins: int, device: torch.device) -> None:
        self.bins, self.units, self.device = bins, rates.shape[1], device
        self._rates = torch.from_numpy(np.ascontiguousarray(rates)).to(device)
        self._back = torch.arange(1 - bins, 1, device=device)

    def of(self, ends: Tensor) -> Tensor:
        """(windows, bins, units)."""
        return self._rates[ends.to(self.device)[:, None] + self._back]


@dataclass(frozen=True, eq=False, slots=True)
class Lessons:
    """ends: the windows. labels: their classes. weights: what each counts, 1 on average. trials: how many they are of.

    All but `trials` (windows,).
    """

    ends: Indices
    labels: Indices
    weights: F32
    trials: int


@dataclass(frozen=True, eq=False, slots=True)
class Linear:
    """weight: (width, classes). bias: (classes,). sharpness: of the softmax, as held-back trials have it."""

    weight: F32
    bias: F32
    sharpness: float


def device_of(settings: LFRFitSettings) -> torch.device:
    name = settings.device
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


@contextmanager
def threads(count: int) -> Iterator[None]:
    """Run PyTorch on so many threads: on a busy machine, threads waiting for each other made a fit ten times slower."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def pretrain(
    backbone: Backbone, width: int, windows: Windows, ends: Indices, settings: LFRFitSettings, on_epoch: OnEpoch
) -> list[int]:
    """Train the backbone, whose features are so many, in place; returns the numbers of the projectors it learned from.

    ends: the windows to learn from. Raises ModelError where a projector does not fit the window.
    """
    model = _model(backbone, width, windows, settings)
    order = np.random.default_rng(settings.seed)
    sample = order.choice(ends, size=min(MOST_SAMPLES, len(ends)), replace=False)
    model.select_targets(windows.of(torch.from_numpy(np.sort(sample))), settings.targets)
    optimizer = _adamw(model.learned_parameters(), settings)
    for epoch in range(settings.pretrain_epochs):
        model.train()
        model.begin_epoch(epoch)
        seen = ends[epoch % min(settings.stride, len(ends)) :: settings.stride]
        total, steps = 0.0, 0
        for batch in _batches(seen, settings.batch, order):
            optimizer.zero_grad(set_to_none=True)
            loss = model.loss(windows.of(batch))
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            model.after_step()
            total, steps = total + loss.item(), steps + 1
        on_epoch(epoch + 1, total / steps)
        if model.has_done_its_steps:
            break
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
) -> None:
    """Train the backbone in place under a linear head that is then dropped; it is left as it was in the best epoch.

    held_back: what the best is told by; the training's own loss where there is none.
    """
    with seeded(settings.seed + 1):
        head = nn.Linear(width, classes).to(windows.device)
    whole = nn.Sequential(backbone.to(windows.device), head)
    optimizer = _adamw(list(whole.parameters()), settings)
    order = np.random.default_rng(settings.seed + 1)
    labels, weights = _tensor(lessons.labels, windows), _tensor(lessons.weights, windows)
    stop, best = _Patience(settings.patience), copy.deepcopy(backbone.state_dict())
    for epoch in range(epochs):
        whole.train()
        total, steps = 0.0, 0
        for batch in _batches(np.arange(len(lessons.ends)), settings.batch, order):
            optimizer.zero_grad(set_to_none=True)
            logits = whole(windows.of(torch.from_numpy(lessons.ends)[batch]))
            loss = _cross_entropy(logits, labels[batch.to(windows.device)], weights[batch.to(windows.device)])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            total, steps = total + loss.item(), steps + 1
        value = total / steps if held_back is None else _held_back_loss(whole, windows, held_back)
        on_epoch(epoch + 1, value)
        if stop.is_better(value):
            best = copy.deepcopy(backbone.state_dict())
        if stop.is_over:
            break
    backbone.load_state_dict(best)
    backbone.eval()


def features_of(backbone: Backbone, windows: Windows, ends: Indices) -> Tensor:
    """(windows, width)."""
    backbone.to(windows.device).eval()
    with torch.no_grad():
        return torch.cat([backbone(windows.of(part)) for part in torch.split(torch.from_numpy(ends), AT_ONCE)])


def fit_linear(
    features: Tensor,
    lessons: Lessons,
    held_back_features: Tensor | None,
    held_back: Lessons | None,
    classes: int,
    settings: LFRFitSettings,
    on_epoch: OnEpoch,
) -> Linear:
    """Softmax regression on the features of the lessons, (windows, width); classes without a lesson get no weight."""
    mean, std = features.mean(0), features.std(0, correction=0)
    std = torch.where(std > 0, std, torch.ones_like(std))
    labels = torch.from_numpy(lessons.labels).to(features.device)
    weights = torch.from_numpy(lessons.weights).to(features.device)
    inputs = ((features - mean) / std).double()
    weight = torch.zeros(features.shape[1], classes, dtype=torch.float64, device=features.device, requires_grad=True)
    bias = torch.zeros(classes, dtype=torch.float64, device=features.device, requires_grad=True)
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=5, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = _cross_entropy(inputs @ weight + bias, labels, weights.double())
        loss = loss + settings.ridge * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    tested = None if held_back_features is None else ((held_back_features - mean) / std).double()
    stop, best = _Patience(settings.patience), (weight.detach().clone(), bias.detach().clone())
    for epoch in range(settings.head_epochs):
        value = optimizer.step(closure).item()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            if tested is not None and held_back is not None:
                value = _weighed(tested @ weight + bias, held_back).item()
        on_epoch(epoch + 1, value)
        if stop.is_better(value):
            best = weight.detach().clone(), bias.detach().clone()
        if stop.is_over:
            break
    weight, bias = best
    sharpness = 1.0
    if tested is not None and held_back is not None:
        sharpness = fit_sharpness((tested @ weight + bias).cpu().numpy(), held_back)
    weight = weight / std[:, None]
    bias = bias - mean.double() @ weight
    return Linear(weight.float().cpu().numpy(), bias.float().cpu().numpy(), sharpness)


def fit_sharpness(logits: NDArray[np.float64], held_back: Lessons) -> float:
    """Of the softmax, for the least cross-entropy with Platt's targets, as in `calibration`.

    logits: (windows, classes), of what is held back.
    """
    certain = held_back.trials / (held_back.trials + 1)
    classes = logits.shape[1]
    targets = np.full(logits.shape, (1 - certain) / (classes - 1))
    targets[np.arange(len(logits)), held_back.labels] = certain
    losses = []
    for sharpness in SHARPNESS:
        scaled = sharpness * (logits - logits.max(axis=1, keepdims=True))
        log_p = scaled - np.log(np.exp(scaled).sum(axis=1, keepdims=True))
        losses.append(-(held_back.weights[:, None] * targets * log_p).sum())
    return float(SHARPNESS[int(np.argmin(losses))])


class _Patience:
    """Ends a training after so many epochs without improvement."""

    def __init__(self, epochs: int) -> None:
        self._epochs, self._since, self._best = epochs, 0, float("inf")

    def is_better(self, value: float) -> bool:
        """Note an epoch's loss; whether it is the least so far, by more than rounding."""
        if value < self._best - 1e-5 * max(1.0, abs(value)):
            self._best, self._since = value, 0
            return True
        self._since += 1
        return False

    @property
    def is_over(self) -> bool:
        return self._since >= self._epochs


def _batches(items: Indices, size: int, order: np.random.Generator) -> Iterator[Tensor]:
    """In random order; one that is left over alone has nothing to be told apart from, and is left out if it can be."""
    shuffled = torch.from_numpy(order.permutation(items))
    for batch in torch.split(shuffled, size):
        if len(batch) > 1 or len(shuffled) == 1:
            yield batch


def _adamw(parameters: list[nn.Parameter], settings: LFRFitSettings) -> torch.optim.AdamW:
    return torch.optim.AdamW(parameters, lr=settings.learning_rate, weight_decay=settings.weight_decay)


def _tensor(values: NDArray[np.generic], windows: Windows) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values)).to(windows.device)


def _cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor) -> Tensor:
    return (functional.cross_entropy(logits, labels, reduction="none") * weights).sum() / weights.sum()


def _weighed(logits: Tensor, lessons: Lessons) -> Tensor:
    labels = torch.from_numpy(lessons.labels).to(logits.device)
    return _cross_entropy(logits, labels, torch.from_numpy(lessons.weights).to(logits))


def _held_back_loss(whole: nn.Module, windows: Windows, held_back: Lessons) -> float:
    whole.eval()
    with torch.no_grad():
        parts = torch.split(torch.from_numpy(held_back.ends), AT_ONCE)
        return _weighed(torch.cat([whole(windows.of(part)) for part in parts]), held_back).item()
