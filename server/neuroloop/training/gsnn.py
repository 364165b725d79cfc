"""Fitting a GSNN decoder: on the first trials, measured on the last; of the first, the last say when to stop.

The loss is the log-loss on the trials that the fit itself holds back (`training.validation`), and the training's own
where it holds back none. The graph comes from the settings.
"""

from __future__ import annotations

import logging

import numpy as np

from neuroloop.errors import ModelError
from neuroloop.models import decoder_files
from neuroloop.models.gsnn import GSNN
from neuroloop.models.gsnn_fit import fit as fit_network
from neuroloop.models.gsnn_graph import make_graph
from neuroloop.models.kept import Stages, nowhere
from neuroloop.models.team import ALONE, Team
from neuroloop.training.arrays import Arrays
from neuroloop.training.decoders import class_labels, labelled_samples, measure
from neuroloop.training.fitted import Fitted, Tell
from neuroloop.training.request import FitRequest
from neuroloop.training.settings import gsnn_settings
from neuroloop.training.splits import hold_out

log = logging.getLogger(__name__)


def fit(request: FitRequest, arrays: Arrays, tell: Tell, stages: Stages = nowhere, team: Team = ALONE) -> Fitted:
    """team: those who share the training.

    Raises ModelError where the arrays hold fewer than two classes, or the settings or the graph do not fit them.
    """
    settings, training = gsnn_settings(request)
    named = request.classes or [str(name) for name in arrays.get("classes", ())]
    classes, labels = class_labels(arrays["labels"], named)
    samples = labelled_samples(request, arrays, labels)
    held_out = hold_out(samples.trials, request.held_out)
    learned, test = samples.of(~held_out), samples.of(held_out)
    held_back = hold_out(learned.trials, training.validation)
    found = np.unique(learned.labels[~held_back])
    if len(found) < 2:
        names = ", ".join(classes[label] for label in found) or "none"
        raise ModelError(f"labels: expected trials of two classes or more to learn from, got those of: {names}")
    features = samples.rates.shape[1]
    fitted = fit_network(
        learned.rates,
        learned.labels,
        held_back,
        len(classes),
        make_graph(settings.graph, features, classes),
        settings,
        training,
        lambda epoch, loss: tell(epoch / training.epochs, loss),
        stages("network"),
        team,
    )
    if fitted.left_out:
        log.warning("pathways of fewer than two functions have nothing to compare with: %s", ", ".join(fitted.left_out))
    decoder = GSNN(classes, features, settings)
    decoder.take(fitted.weights)
    tell(1.0, None)
    channels = [str(name) for name in arrays["channels"]] if "channels" in arrays else None
    file = decoder_files.of(decoder, features, channels)
    about = file.about.model_dump(mode="json", include={"settings", "classes", "features", "channels"})
    amounts = {
        "training_samples": len(learned.labels),
        "held_out_samples": len(test.labels),
        "held_back_samples": int(held_back.sum()),
        "epochs": len(fitted.curve),
        "pathways_left_out": len(fitted.left_out),
    }
    metrics = measure(decoder, test) if len(test.labels) else {}
    return Fitted(decoder_files.write(file), about, metrics, amounts, training.model_dump(mode="json"))
