"""Fitting rereference weights (LRR): on the first part of the samples, measured on the last.

The residual variance of a channel is what is left of its variance after the others have been regressed out.
"""

from __future__ import annotations

import numpy as np

from neuroloop.errors import ModelError
from neuroloop.signal.lrr import LRR
from neuroloop.training.arrays import Arrays
from neuroloop.training.fitted import Fitted, Tell
from neuroloop.training.request import FitRequest
from neuroloop.training.settings import rereference_settings
from neuroloop.training.splits import last_share

PIECE = 1 << 16  # samples that are taken in between two reports


def fit(request: FitRequest, arrays: Arrays, tell: Tell) -> Fitted:
    """Raises ModelError where a cluster has too few samples, and for settings that are not those of LRR."""
    samples = arrays["samples"]
    channels = [str(name) for name in arrays["channels"]] if "channels" in arrays else samples.shape[1]
    lrr = LRR(channels, rereference_settings(request))
    held_out = last_share(len(samples), request.held_out)
    training, test = samples[~held_out], samples[held_out]
    for first in range(0, len(training), PIECE):
        lrr.partial_fit(training[first : first + PIECE])
        tell(min(first + PIECE, len(training)) / len(training), None)
    report = lrr.report
    if not report["ready"]:
        raise ModelError(f"rereference fit: {'; '.join(report['warnings'])}")
    about = {"settings": lrr.settings.model_dump(mode="json"), "channels": list(lrr.channels)}
    metrics = {}
    if len(test):
        residual = residual_variance(lrr, test)
        metrics = {"residual_variance": residual, "explained_variance": 1.0 - residual}
    amounts = {"training_samples": len(training), "held_out_samples": len(test)}
    return Fitted(lrr.save("safetensors"), about | {"features": len(lrr.channels)}, metrics, amounts)


def residual_variance(lrr: LRR, samples: np.ndarray) -> float:
    """Mean over the channels of the variance after rereferencing over that before; 1 for channels that are constant."""
    finite = samples[np.isfinite(samples).all(axis=1)].astype(np.float64)
    before, after = finite.var(axis=0), lrr.transform(finite).var(axis=0)
    return float(np.where(before > 0, after / np.where(before > 0, before, 1.0), 1.0).mean())
