"""Fitting a GSNN to continuous targets: on the first bins, measured on the last.

Of the first, the last say when to stop. The loss is the squared error relative to the targets' variance, on the bins
that the fit itself holds back (`training.validation`), and the training's own where it holds back none.
"""

from __future__ import annotations

import logging

from neuroloop.models.continuous_settings import GSNNContinuousSettings
from neuroloop.models.gsnn_continuous import GSNNContinuous
from neuroloop.models.gsnn_continuous_fit import fit as fit_network
from neuroloop.models.gsnn_graph import make_graph
from neuroloop.models.gsnn_settings import GSNNContinuousFitSettings
from neuroloop.models.kept import Stages, nowhere
from neuroloop.models.team import ALONE, Team
from neuroloop.training import continuous
from neuroloop.training.arrays import Arrays
from neuroloop.training.fitted import Fitted, Tell
from neuroloop.training.request import FitRequest
from neuroloop.training.settings import with_training
from neuroloop.training.splits import last_share

log = logging.getLogger(__name__)


def fit(request: FitRequest, arrays: Arrays, tell: Tell, stages: Stages = nowhere, team: Team = ALONE) -> Fitted:
    """team: those who share the training.

    Raises ModelError where too few bins are left to learn from, or the settings or the graph do not fit them.
    """
    settings, training = with_training(request, GSNNContinuousSettings, GSNNContinuousFitSettings)
    bins = continuous.read(request, arrays)
    rates, targets = bins.rates[bins.training], bins.targets[bins.training]
    held_back = last_share(len(targets), training.validation)
    graph = make_graph(settings.graph, rates.shape[1], bins.names)

    def on_epoch(epoch: int, loss: float) -> None:
        tell(epoch / training.epochs, loss)

    found = fit_network(rates, targets, held_back, graph, settings, training, on_epoch, stages("network"), team)
    if found.left_out:
        log.warning("pathways of fewer than two functions have nothing to compare with: %s", ", ".join(found.left_out))
    decoder = GSNNContinuous(bins.names, rates.shape[1], settings)
    decoder.take(found.weights.arrays())
    tell(1.0, None)
    amounts = {
        "held_back_samples": int(held_back.sum()),
        "epochs": len(found.curve),
        "pathways_left_out": len(found.left_out),
    }
    return continuous.fitted(decoder, bins, amounts, training.model_dump(mode="json"))
