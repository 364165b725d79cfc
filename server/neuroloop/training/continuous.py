"""Fitting decoders of continuous targets: on the first part of the bins, measured on the last as in a session.

A rate vector is the mean over the request's `window` bins without a hole, one by default. Bins in which a rate or a
target is unknown have no part in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models import decoder_files
from neuroloop.models.base import check_settings
from neuroloop.models.continuous import ContinuousDecoder, Kalman, Ridge
from neuroloop.models.continuous_fit import fit_kalman, fit_ridge
from neuroloop.models.continuous_settings import CONTINUOUS
from neuroloop.models.fitted_state import Arrays
from neuroloop.training import arrays as inputs
from neuroloop.training.fitted import Fitted, Tell
from neuroloop.training.metrics import correlation, r2
from neuroloop.training.request import FitRequest
from neuroloop.training.splits import Bins, holes, last_share, moving_mean

LEAST_BINS = 10

F64 = NDArray[np.float64]
Learn = Callable[[Any, F64, F64, Bins], Arrays]
KINDS: Mapping[str, tuple[type[ContinuousDecoder], Learn]] = {
    "ridge": (Ridge, fit_ridge),
    "kalman": (Kalman, fit_kalman),
}


@dataclass(frozen=True, eq=False, slots=True)
class TargetBins:
    """What a fit of continuous targets is given, (bins, ...). training: bins to learn from; test: to measure on.

    breaks: a bin does not follow the one before. names: of the targets. channels: labels, where the data have them.
    """

    rates: F64
    targets: F64
    breaks: Bins
    training: Bins
    test: Bins
    names: list[str]
    channels: list[str] | None


def fit(request: FitRequest, arrays: inputs.Arrays, tell: Tell) -> Fitted:
    """Raises ModelError where too few bins are left to learn from, or the settings are not the kind's."""
    model, learn = KINDS[request.kind]
    settings: Any = check_settings(request.kind, CONTINUOUS[request.kind], request.settings)
    bins = read(request, arrays)
    chosen = bins.training
    weights = learn(settings, bins.rates[chosen], bins.targets[chosen], _follows(bins.breaks, chosen))
    decoder = model(bins.names, bins.rates.shape[1], settings)
    decoder.take(weights | {"samples": np.array([chosen.sum()], np.int64)})
    tell(1.0, None)
    return fitted(decoder, bins)


def read(request: FitRequest, arrays: inputs.Arrays) -> TargetBins:
    """Raises ModelError where too few bins are left to learn from."""
    targets = np.asarray(arrays["targets"], np.float64)
    breaks = holes(arrays.get("times"), arrays.get("usable"), len(targets))
    rates = moving_mean(arrays["rates"], breaks, request.window or 1).astype(np.float64)
    known = np.asarray(np.isfinite(rates).all(axis=1) & np.isfinite(targets).all(axis=1))
    if "usable" in arrays:
        known &= arrays["usable"]
    held_out = last_share(len(targets), request.held_out)
    training = known & ~held_out
    if training.sum() < LEAST_BINS:
        raise ModelError(f"targets: expected {LEAST_BINS} known bins or more to learn from, got {training.sum()}")
    named = arrays.get("target_names", [f"target {number}" for number in range(targets.shape[1])])
    channels = [str(name) for name in arrays["channels"]] if "channels" in arrays else None
    return TargetBins(rates, targets, breaks, training, known & held_out, [str(name) for name in named], channels)


def fitted(
    decoder: ContinuousDecoder,
    bins: TargetBins,
    amounts: Mapping[str, int] | None = None,
    training: Mapping[str, Any] | None = None,
) -> Fitted:
    """What the fit has made, measured. amounts, training: as in `Fitted`, of the kinds that have more of them."""
    metrics = measure(decoder, bins.rates, bins.targets, bins.breaks, bins.test) if bins.test.any() else {}
    file = decoder_files.of(decoder, bins.rates.shape[1], bins.channels)
    about = file.about.model_dump(mode="json", include={"settings", "targets", "features", "channels"})
    counts = {"training_samples": int(bins.training.sum()), "held_out_samples": int(bins.test.sum())}
    return Fitted(decoder_files.write(file), about, metrics, counts | dict(amounts or {}), dict(training or {}))


def measure(decoder: ContinuousDecoder, rates: F64, targets: F64, breaks: Bins, asked: Bins) -> dict[str, float]:
    """Means over the targets; the decoder sees the bins one after the other, and starts anew after a hole."""
    answers, bins = [], np.flatnonzero(asked)
    if len(bins) < 2:
        return {}
    decoder.reset()
    for number, follows in zip(bins, _follows(breaks, asked), strict=True):
        if not follows:
            decoder.reset()
        answers.append(decoder.predict(rates[number]).values)
    estimates, truth = np.array(answers), targets[bins]
    return {"r2": r2(estimates, truth), "correlation": correlation(estimates, truth)}


def _follows(breaks: Bins, chosen: Bins) -> Bins:
    """Of the chosen bins, those that come right after a chosen one."""
    follows = np.zeros(len(chosen), np.bool_)
    follows[1:] = chosen[:-1] & ~breaks[1:]
    return follows[chosen]
