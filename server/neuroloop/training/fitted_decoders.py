"""Fitting the decoders that learn all trials at once: LDA, logistic regression, spatial patterns, geometry.

The temperature of the answers comes from the training alone: its trials are left out in turn, a run of them at a time,
and answered by a decoder fitted on the others. What is registered is fitted on the whole training and measured on what
was held out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models import decoder_files
from neuroloop.models.base import check_settings
from neuroloop.models.calibration import Trials
from neuroloop.models.csp import CSP
from neuroloop.models.csp_fit import fit_csp
from neuroloop.models.fitted import FittedDecoder
from neuroloop.models.fitted_settings import FITTED, CovarianceSettings, FittedSettings
from neuroloop.models.fitted_state import Arrays
from neuroloop.models.linear import LDA, Logistic
from neuroloop.models.linear_fit import fit_lda, fit_logistic
from neuroloop.models.riemann import Riemann
from neuroloop.models.riemann_fit import fit_riemann
from neuroloop.signal.band_covariance import pair_count
from neuroloop.training import arrays as inputs
from neuroloop.training.decoders import class_labels, labelled_samples, measure
from neuroloop.training.fitted import Fitted, Tell
from neuroloop.training.request import FitRequest
from neuroloop.training.splits import Indices, Samples, hold_out

FOLDS = 5

Learn = Callable[[Any, NDArray[np.float64], Indices, int], Arrays]
KINDS: Mapping[str, tuple[type[FittedDecoder], Learn]] = {
    "lda": (LDA, fit_lda),
    "logistic": (Logistic, fit_logistic),
    "csp": (CSP, fit_csp),
    "riemann": (Riemann, fit_riemann),
}


def fit(request: FitRequest, arrays: inputs.Arrays, tell: Tell) -> Fitted:
    """Raises ModelError where the arrays hold fewer than two classes, or the settings are not the kind's."""
    named = request.classes or [str(name) for name in arrays.get("classes", ())]
    classes, labels = class_labels(arrays["labels"], named)
    samples = labelled_samples(request, arrays, labels)
    samples = samples.of(np.asarray(np.isfinite(samples.rates).all(axis=1)))
    held_out = hold_out(samples.trials, request.held_out)
    training, test = samples.of(~held_out), samples.of(held_out)
    if len(np.unique(training.labels)) < 2:
        names = ", ".join(classes[label] for label in np.unique(training.labels)) or "none"
        raise ModelError(f"labels: expected trials of two classes or more to learn from, got those of: {names}")
    channels = [str(name) for name in arrays["channels"]] if "channels" in arrays else None
    features = samples.rates.shape[1]
    decoder = _fitted(request.kind, _settings(request, features, channels), classes, training, tell)
    metrics = measure(decoder, test) if len(test.labels) else {}
    tell(1.0, metrics.get("log_loss"))
    file = decoder_files.of(decoder, features, channels)
    about = file.about.model_dump(mode="json", include={"settings", "classes", "features", "channels"})
    amounts = {"training_samples": len(training.labels), "held_out_samples": len(test.labels)}
    return Fitted(decoder_files.write(file), about, metrics, amounts)


def _settings(request: FitRequest, features: int, channels: list[str] | None) -> FittedSettings:
    """As asked; of csp and riemann the number of bands, too, where the channels say it."""
    settings = check_settings(request.kind, FITTED[request.kind], request.settings)
    assert isinstance(settings, FittedSettings)
    if isinstance(settings, CovarianceSettings) and settings.bands is None:
        bands, rest = (0, 1) if channels is None else divmod(features, pair_count(len(channels)))
        if rest or not bands:
            known = "no channels" if channels is None else f"{len(channels)} channels"
            raise ModelError(
                f"{request.kind}: expected features of the front end covariance and their channels, "
                f"got {features} features and {known}; give `channels`, or the setting bands"
            )
        settings = settings.model_copy(update={"bands": bands})
    return settings


def _fitted(kind: str, settings: FittedSettings, classes: list[str], training: Samples, tell: Tell) -> FittedDecoder:
    """On all of the training, at the temperature that its own trials ask for."""
    model, learn = KINDS[kind]

    def decoder(samples: Samples, sharpness: float) -> FittedDecoder:
        made = model(classes, samples.rates.shape[1], settings)
        counts = np.bincount(samples.labels, minlength=len(classes)).astype(np.int64)
        known = {"samples": counts, "sharpness": np.array([sharpness])}
        made.take(learn(settings, samples.rates, samples.labels, len(classes)) | known)
        return made

    trials = Trials(len(classes))
    folds = np.array_split(np.unique(training.trials), FOLDS) if settings.temperature is None else []
    for number, left_out in enumerate(folds):
        is_left_out = np.isin(training.trials, left_out)
        others, asked = training.of(~is_left_out), training.of(is_left_out)
        if len(np.unique(others.labels)) >= 2:
            one = decoder(others, 1.0)
            eligible = np.isin(np.arange(len(classes)), others.labels).astype(np.float64)
            for rates, label in zip(asked.rates, asked.labels.tolist(), strict=True):
                trials.observe(one.predict(rates).values, eligible, label)
        tell((number + 1) / (len(folds) + 1), None)
    return decoder(training, trials.sharpness)
