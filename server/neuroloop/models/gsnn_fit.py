"""Fitting a GSNN decoder to labelled samples: AdamW on the cross-entropy and the pathway losses.

    loss = mean of -log p(label) + L_sim + L_dis

Each step takes a share of the features as missing (`missing`): the answer may not hang on any of them, neither for a
channel that is lost later nor for noise that was learned by heart. Simulated, 96 units with cosine tuning and eight
directions, 102 trials to learn from and 26 to stop by, four sets of 32 held out: accuracy 0.77 and log-loss 0.66 with
half of the features missing, 0.67 and 0.82 with none; with norm `layer`, which takes the size out of what a site hears,
0.70 and 0.80. A Poisson decoder, which knows how these data are made, reaches 0.91.

The training may be shared by several processes (`team`): each takes a part of the samples of every step, and the
correlations of the pathways are those over the whole batch all the same. Norms are over the channels of a node, so they
need nothing of the others.

Held-back samples, the last of the trials, say when to stop: the parameters of the epoch with the least log-loss on them
are kept. The same samples give the temperature, as in a session (`calibration`). Everything random, the start and the
order of the samples, comes from the seed.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from neuroloop.errors import ModelError
from neuroloop.models.calibration import Trials
from neuroloop.models.gsnn_graph import Graph
from neuroloop.models.gsnn_parameters import start
from neuroloop.models.gsnn_settings import ClusterGraph, GSNNFitSettings, GSNNSettings, NetworkSettings, NodeGraph
from neuroloop.models.gsnn_state import GSNNWeights, standardised
from neuroloop.models.gsnn_torch import GSNNModule
from neuroloop.models.kept import Kept
from neuroloop.models.online import mean_of_known
from neuroloop.models.pathway import PathwayRegulariser
from neuroloop.models.team import ALONE, Team
from neuroloop.models.torch_threads import threads

F64 = NDArray[np.float64]
Indices = NDArray[np.intp]
Bins = NDArray[np.bool_]
Loss = Callable[[Tensor, Tensor], Tensor]
OnEpoch = Callable[[int, float], None]


@dataclass(frozen=True, eq=False, slots=True)
class GSNNFit:
    """curve: log-loss on the held-back samples after each epoch; of the training where none are held back.

    left_out: pathways that have no two nodes, so that nothing in them can go together.
    """

    weights: GSNNWeights
    curve: list[float]
    left_out: tuple[str, ...]


@dataclass(frozen=True, eq=False, slots=True)
class Trained:
    """A module after its training; `curve` and `left_out` as in `GSNNFit`."""

    module: GSNNModule
    curve: list[float]
    left_out: tuple[str, ...]


def fit(
    rates: F64,
    labels: Indices,
    held_back: Bins,
    classes: int,
    graph: Graph,
    settings: GSNNSettings,
    training: GSNNFitSettings,
    on_epoch: OnEpoch | None = None,
    kept: Kept = Kept(),  # noqa: B008 (immutable)
    team: Team = ALONE,
) -> GSNNFit:
    """Fit a decoder.

    rates: (samples, features); what is not finite counts as the feature's mean. labels: (samples,), from 0 on.
    held_back: (samples,), those to stop by. on_epoch: called after each epoch with its number, from 1, and its loss.
    kept: what it goes on from, to the same end.
    Raises ModelError where fewer than two samples are left to learn from, or a pathway names no function.
    """
    mean, scale = standard(rates[~held_back])
    inputs = torch.from_numpy(standardised(rates, mean, scale))
    targets = torch.from_numpy(labels.astype(np.int64))
    loss, gain = functional.cross_entropy, 1.0  # the temperature makes up for features that are missing in training
    trained = train(inputs, targets, held_back, graph, settings, training, loss, gain, on_epoch, kept, team)
    with threads(training.threads):
        sharpness = _sharpness(trained.module, inputs[held_back], labels[held_back], classes)
    samples = np.bincount(labels, minlength=classes).astype(np.int64)
    weights = GSNNWeights(graph, trained.module.export(), mean, scale, sharpness, samples)
    return GSNNFit(weights, trained.curve, trained.left_out)


def train(
    inputs: Tensor,
    targets: Tensor,
    held_back: Bins,
    graph: Graph,
    settings: NetworkSettings,
    training: GSNNFitSettings,
    loss: Loss,
    gain: float,
    on_epoch: OnEpoch | None,
    kept: Kept,
    team: Team,
) -> Trained:
    """Train a network from its start.

    inputs: (samples, features), standardised. loss: of outputs and targets, a mean over samples. gain: on the features
    that are not taken as missing. Raises ModelError as `fit` does.
    """
    learned = ~held_back
    if np.count_nonzero(learned) < 2:
        raise ModelError(f"gsnn: expected two samples or more to learn from, got {np.count_nonzero(learned)}")
    team.check(int(np.count_nonzero(learned)))
    module = GSNNModule(graph, settings, start(settings, graph, training.seed))
    names, regulariser = _regulariser(graph, settings, training)
    with threads(training.threads):
        loop = _Loop(module, regulariser, training, loss, gain, kept, team)
        curve = loop.run(inputs[learned], targets[learned], inputs[held_back], targets[held_back], on_epoch)
    return Trained(module, curve, tuple(names[number] for number in regulariser.left_out) if regulariser else ())


def standard(rates: F64) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and deviation of each feature over what is known of it; 0 and 1 where nothing is, or nothing changes."""
    mean = np.nan_to_num(mean_of_known(rates))
    deviation = np.sqrt(np.nan_to_num(mean_of_known((rates - mean) ** 2)))
    scale = np.where(deviation > 0, deviation, 1.0)
    return mean.astype(np.float32), scale.astype(np.float32)


def membership(graph: Graph, settings: NetworkSettings, training: GSNNFitSettings) -> tuple[list[str], NDArray[Any]]:
    """Names of the pathways, and which functions belong to them, (pathways, functions). Raises ModelError."""
    given: dict[str, Sequence[int | str]] = dict(training.pathways or {})
    if training.pathways is None and isinstance(settings.graph, ClusterGraph):
        given = {str(number): cluster for number, cluster in enumerate(settings.graph.clusters)}
    names = settings.graph.functions if isinstance(settings.graph, NodeGraph) else []
    matrix = np.zeros((len(given), graph.functions), np.float32)
    for row, (pathway, functions) in enumerate(given.items()):
        for function in functions:
            number = names.index(function) if function in names else function
            if not isinstance(number, int) or not 0 <= number < graph.functions:
                known = f"0 to {graph.functions - 1}" + (", or by name" if names else "")
                raise ModelError(f"pathways: {pathway}: expected functions from {known}; got {function!r}")
            matrix[row, number] = 1.0
    return list(given), matrix


def _regulariser(
    graph: Graph, settings: NetworkSettings, training: GSNNFitSettings
) -> tuple[list[str], PathwayRegulariser | None]:
    names, matrix = membership(graph, settings, training)
    for name in (name for pair in training.dissimilar for name in pair):
        if name not in names:
            raise ModelError(f"dissimilar: {name!r} is no pathway; there are: {', '.join(names) or 'none'}")
    if not names or training.lambda_sim == training.lambda_dis == 0:
        return names, None
    return names, PathwayRegulariser(
        matrix,
        settings.channels,
        dissimilar=[(names.index(first), names.index(second)) for first, second in training.dissimilar],
        lambda_sim=training.lambda_sim,
        lambda_dis=training.lambda_dis,
        self_inclusive=training.self_inclusive,
        learn_phi=training.learn_phi,
    )


class _Loop:
    """The training of one module, in place."""

    def __init__(
        self,
        module: GSNNModule,
        regulariser: PathwayRegulariser | None,
        training: GSNNFitSettings,
        loss: Loss,
        gain: float,
        kept: Kept,
        team: Team,
    ) -> None:
        self._module, self._regulariser, self._training, self._kept = module, regulariser, training, kept
        self._loss, self._gain, self._team = loss, gain, team
        self._parts = nn.ModuleList([module] if regulariser is None else [module, regulariser])
        learned = [one for part in self._parts for one in part.parameters() if one.requires_grad]
        self._optimiser = torch.optim.AdamW(learned, lr=training.learning_rate, weight_decay=training.weight_decay)
        self._generator = torch.Generator().manual_seed(training.seed)

    def run(self, x: Tensor, y: Tensor, held_x: Tensor, held_y: Tensor, tell: OnEpoch | None) -> list[float]:
        """The curve. Leaves the parameters of its least point, or of its last where nothing is held back."""
        curve: list[float] = []
        best, least, since = copy.deepcopy(self._module.state_dict()), math.inf, 0
        if (state := self._kept.load()) is not None:
            self._go_on(state)
            curve, best, least, since = state["curve"], state["best"], state["least"], state["since"]
        for epoch in range(len(curve) + 1, self._training.epochs + 1):
            if since >= self._training.patience:
                break
            loss = self._epoch(x, y)
            if len(held_y):
                loss = self._held_back_loss(held_x, held_y)
            curve.append(loss)
            if tell is not None:
                tell(epoch, loss)
            if len(held_y):
                since += 1
                if loss < least:
                    best, least, since = copy.deepcopy(self._module.state_dict()), loss, 0
            self._kept.save(self._state() | {"curve": curve, "best": dict(best), "least": least, "since": since})
        if len(held_y):
            self._module.load_state_dict(best)
        return curve

    def _state(self) -> dict[str, Any]:
        return {
            "parameters": dict(self._parts.state_dict()),
            "optimiser": self._optimiser.state_dict(),
            "generator": self._generator.get_state(),
        }

    def _go_on(self, state: dict[str, Any]) -> None:
        self._parts.load_state_dict(state["parameters"])
        self._optimiser.load_state_dict(state["optimiser"])
        self._generator.set_state(state["generator"])

    def _epoch(self, x: Tensor, y: Tensor) -> float:
        """One pass in batches of even size, two samples or more each; the mean loss."""
        order = torch.randperm(len(y), generator=self._generator)
        self._team.follow(self._parts)
        total = 0.0
        for batch in order.tensor_split(max(1, len(y) // self._training.batch)):
            known = torch.rand(len(batch), x.shape[1], generator=self._generator) >= self._training.missing
            part = self._team.own(len(batch))
            own = batch[part]
            passed = self._module(x[own] * known[part] * self._gain)
            loss = self._loss(passed.outputs, y[own]) * (len(own) / len(batch))
            total += float(loss.detach()) * len(batch)
            if self._regulariser is not None:
                gather = partial(self._team.gathered, count=len(batch))
                loss = loss + sum(self._regulariser(passed.activations, gather))
            self._optimiser.zero_grad()
            torch.autograd.backward(loss)
            self._team.add_up_gradients(self._parts.parameters())
            self._optimiser.step()
        return self._team.total(total) / len(y)

    def _held_back_loss(self, x: Tensor, y: Tensor) -> float:
        own, total = self._team.own(len(y)), 0.0
        if own.start < own.stop:
            with torch.no_grad():
                total = float(self._loss(self._module(x[own]).outputs, y[own])) * (own.stop - own.start)
        return self._team.total(total) / len(y)


def _sharpness(module: GSNNModule, x: Tensor, labels: Indices, classes: int) -> float:
    """1 / temperature, from answers to samples that were not learned from; 1 where there are none."""
    if not len(labels):
        return 1.0
    with torch.no_grad():
        logits = module(x).outputs.double().numpy()
    trials, eligible = Trials(classes), np.ones(classes)
    for one, label in zip(logits, labels.tolist(), strict=True):
        trials.observe(one, eligible, label)
    return trials.sharpness
