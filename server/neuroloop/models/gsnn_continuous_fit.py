"""Fitting a GSNN to continuous targets: as `gsnn_fit`, with the squared error of standardised targets as its loss.

Features that a step takes as missing would make the sum that a site hears smaller than it is with all of them; here the
others are raised by 1 / (1 - missing) meanwhile, since nothing later puts the size of an answer right, as a temperature
does for classes. Fewer are taken (0.2 by default), for there are more bins than there are trials.

Simulated, a walk in a square seen by 48 units, 2400 bins of 3000 learned: where the units have fields in it, r2 is
0.970 on the others (0.972 with no feature missing, 0.928 with half), 0.876 by ridge regression and 0.906 by a Kalman
filter; where they are linear in it, 0.791, 0.804 and 0.889. It is for what is not linear, and does not smooth.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from neuroloop.models.gsnn_fit import OnEpoch, standard, train
from neuroloop.models.gsnn_graph import Graph
from neuroloop.models.gsnn_settings import GSNNFitSettings, NetworkSettings
from neuroloop.models.gsnn_state import GSNNTargetWeights, standardised
from neuroloop.models.kept import Kept
from neuroloop.models.team import ALONE, Team

F64 = NDArray[np.float64]


@dataclass(frozen=True, eq=False, slots=True)
class GSNNContinuousFit:
    """curve: squared error, relative to the variance of the targets, after each epoch; the rest as in `GSNNFit`."""

    weights: GSNNTargetWeights
    curve: list[float]
    left_out: tuple[str, ...]


def fit(
    rates: F64,
    targets: F64,
    held_back: NDArray[np.bool_],
    graph: Graph,
    settings: NetworkSettings,
    training: GSNNFitSettings,
    on_epoch: OnEpoch | None = None,
    kept: Kept = Kept(),  # noqa: B008 (immutable)
    team: Team = ALONE,
) -> GSNNContinuousFit:
    """Fit a decoder. targets: (samples, targets), finite; the rest is as for `gsnn_fit.fit`. Raises ModelError."""
    mean, scale = standard(rates[~held_back])
    target_mean, target_scale = targets[~held_back].mean(axis=0), targets[~held_back].std(axis=0)
    size = np.where(target_scale > 0, target_scale, 1.0)
    trained = train(
        torch.from_numpy(standardised(rates, mean, scale)),
        torch.from_numpy(((targets - target_mean) / size).astype(np.float32)),
        held_back,
        graph,
        settings,
        training,
        functional.mse_loss,
        1.0 / (1.0 - training.missing),
        on_epoch,
        kept,
        team,
    )
    weights = GSNNTargetWeights(
        graph, trained.module.export(), mean, scale, target_mean, target_scale, samples=len(targets)
    )
    return GSNNContinuousFit(weights, trained.curve, trained.left_out)
