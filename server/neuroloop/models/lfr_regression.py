"""The linear head of a backbone that stays as it is: softmax regression on its features, and how sure to be of it.

    loss = sum_w a_w CE(f_w W + b, y_w) / sum_w a_w + ridge |W|^2

over windows w of weight a_w, features standardised; by L-BFGS, until the cross-entropy of trials that are held back
gets no better. On these the sharpness of the softmax is fitted too.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from neuroloop.models.lfr_settings import LFRFitSettings

F32 = NDArray[np.float32]
Indices = NDArray[np.intp]

SHARPNESS = np.geomspace(0.02, 50.0, 400)  # among which that of the probabilities is sought


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


def fit_linear(
    features: Tensor,
    lessons: Lessons,
    held_back_features: Tensor | None,
    held_back: Lessons | None,
    classes: int,
    settings: LFRFitSettings,
    on_epoch: Callable[[int, float], None],
) -> Linear:
    """Softmax regression on the features of the lessons, (windows, width), in float64.

    held_back: what it stops on, and its sharpness is fitted to, with their features; without, it stops on its own loss.
    on_epoch: told the number of each five iterations, and the loss.
    """
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
        loss = cross_entropy(inputs @ weight + bias, labels, weights.double())
        loss = loss + settings.ridge * weight.square().sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return loss

    tested = None if held_back_features is None else ((held_back_features - mean) / std).double()
    stop, best = Patience(settings.patience), (weight.detach().clone(), bias.detach().clone())
    for epoch in range(settings.head_epochs):
        value = optimizer.step(closure).item()  # type: ignore[no-untyped-call]
        with torch.no_grad():
            if tested is not None and held_back is not None:
                value = weighed(tested @ weight + bias, held_back).item()
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


class Patience:
    """Ends a training after so many epochs without improvement. since: how many there were. best: the least loss."""

    def __init__(self, epochs: int) -> None:
        self._epochs, self.since, self.best = epochs, 0, float("inf")

    def is_better(self, value: float) -> bool:
        """Note an epoch's loss; whether it is the least so far, by more than rounding."""
        if value < self.best - 1e-5 * max(1.0, abs(value)):
            self.best, self.since = value, 0
            return True
        self.since += 1
        return False

    @property
    def is_over(self) -> bool:
        return self.since >= self._epochs


def cross_entropy(logits: Tensor, labels: Tensor, weights: Tensor, total: Tensor | None = None) -> Tensor:
    """logits: (windows, classes). labels, weights: (windows,). total: of all weights, where these are a part."""
    losses = functional.cross_entropy(logits, labels, reduction="none")
    return (losses * weights).sum() / (weights.sum() if total is None else total)


def weighed(logits: Tensor, lessons: Lessons) -> Tensor:
    """The cross-entropy of the lessons."""
    labels = torch.from_numpy(lessons.labels).to(logits.device)
    return cross_entropy(logits, labels, torch.from_numpy(lessons.weights).to(logits))
