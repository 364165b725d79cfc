"""Fitting a decoder of kind `lfr`: pretraining on every window of the training's bins, then the head on the labelled.

    bins -> rate vectors (mean over `window` bins) -> windows of `bins` rate vectors without a hole
         -> backbone, by learning from randomness -> head, and if asked the backbone again, on labelled windows

The last share of the trials is held out, and with it every bin from the first of them on: no backbone has seen it. The
decoder then answers those bins one after the other as in a session, and is judged by its answer at each trial's end.

The curve is the loss of the pretraining, and then the log-loss on the last trials of the training, which are held back
to know when to stop; its last point is the log-loss on what is held out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models import decoder_files, lfr_fit
from neuroloop.models.backbones_torch import make_backbone
from neuroloop.models.kept import Stages, nowhere
from neuroloop.models.lfr import LFR
from neuroloop.models.lfr_regression import Lessons, fit_linear
from neuroloop.models.lfr_settings import LFRFitSettings, LFRSettings
from neuroloop.models.team import ALONE, Team
from neuroloop.models.torch_threads import threads
from neuroloop.training.arrays import Arrays
from neuroloop.training.decoders import class_labels
from neuroloop.training.fitted import Fitted, Tell
from neuroloop.training.metrics import score
from neuroloop.training.request import FitRequest
from neuroloop.training.settings import lfr_settings
from neuroloop.training.splits import Bins, Indices, bin_ms, hold_out, holes, moving_mean, trials_of, whole

F32 = NDArray[np.float32]

PRETRAINING, TUNING, HEAD = 6, 3, 1  # shares of the progress
SUPERVISED_EPOCHS = 100  # at most, from scratch


@dataclass(frozen=True, eq=False, slots=True)
class Data:
    """Of each bin, (bins, ...): its rate vector, label and trial; whether it can be trusted, follows a hole, and ends a
    window without one.

    first_held_out: the bin from which on everything is held out.
    """

    rates: F32
    labels: Indices
    trials: Indices
    usable: Bins
    breaks: Bins
    is_whole: Bins
    first_held_out: int

    @property
    def ends_of_parts(self) -> Bins:
        """The last whole window of each part of a trial that has no hole."""
        taught = self.is_whole & (self.labels >= 0)
        goes_on = np.zeros_like(taught)
        goes_on[:-1] = taught[1:] & (self.trials[1:] == self.trials[:-1]) & ~self.breaks[1:]
        return taught & ~goes_on

    @property
    def is_training(self) -> Bins:
        return np.arange(len(self.labels)) < self.first_held_out


def fit(request: FitRequest, arrays: Arrays, tell: Tell, stages: Stages = nowhere, team: Team = ALONE) -> Fitted:
    """team: those who share the training.

    Raises ModelError for settings that the kind does not have, and where there is nothing to learn from.
    """
    settings, training = lfr_settings(request)
    known = {"window": rate_window(request, settings, arrays), "bin_ms": settings.bin_ms or bin_ms(arrays.get("times"))}
    settings = settings.model_copy(update=known)
    named = request.classes or [str(name) for name in arrays.get("classes", ())]
    classes, labels = class_labels(arrays["labels"], named)
    data = _data(request, arrays, labels, settings)
    taught = np.flatnonzero(data.is_whole & data.is_training & (labels >= 0))
    learned = np.unique(labels[taught])
    if len(learned) < 2:
        names = ", ".join(classes[label] for label in learned) or "none"
        raise ModelError(
            f"labels: expected trials of two classes or more to learn from, each with a bin that follows on "
            f"{settings.bins - 1} others without a hole; got those of: {names}"
        )
    decoder = LFR(classes, data.rates.shape[1], settings)
    pretraining = np.flatnonzero(data.is_whole & data.is_training)
    targets = _fit(decoder, data, pretraining, taught, training, tell, stages, team)
    tests = np.flatnonzero(data.ends_of_parts & ~data.is_training)
    metrics = measure(decoder, data, tests) if len(tests) else {}
    tell(1.0, metrics.get("log_loss"))
    channels = [str(name) for name in arrays["channels"]] if "channels" in arrays else None
    file = decoder_files.of(decoder, data.rates.shape[1], channels)
    about = file.about.model_dump(mode="json", include={"settings", "classes", "features", "channels"})
    amounts = {
        "training_samples": len(taught),
        "held_out_samples": len(tests),
        "pretraining_samples": len(pretraining) if training.pretrain_epochs else 0,
        "targets_asked": training.targets_asked if training.pretrain_epochs else 0,
        "targets": targets,
    }
    return Fitted(decoder_files.write(file), about, metrics, amounts, training.model_dump(mode="json"))


def rate_window(request: FitRequest, settings: LFRSettings, arrays: Arrays) -> int:
    """Bins whose mean is a rate vector: as asked, or as the session had it that the bins came from.

    Raises ModelError where the request says it twice, and not the same.
    """
    asked = settings.window if "window" in request.settings else request.window
    if asked != (request.window or asked):
        raise ModelError(f"window: {request.window} in the request and {asked} in its settings; give one of them")
    if asked is None and "duration_s" in arrays and len(arrays.get("times", ())) > 1:
        bin_s = float(np.median(np.diff(np.asarray(arrays["times"], np.float64))))
        return max(1, round(float(arrays["duration_s"]) / bin_s))
    return asked or 1


def _data(request: FitRequest, arrays: Arrays, labels: Indices, settings: LFRSettings) -> Data:
    count = len(labels)
    usable = np.asarray(arrays.get("usable", np.ones(count)), np.bool_)
    breaks = holes(arrays.get("times"), usable, count)
    is_whole = whole(breaks, settings.bins - 1) & usable
    trials = trials_of(labels, arrays.get("trial_numbers"))
    taught = np.flatnonzero(is_whole & (labels >= 0))
    if len(taught) == 0:
        raise ModelError(
            f"labels: no labelled bin follows on {settings.bins - 1} others without a hole; "
            "give more data, or fewer `bins`"
        )
    held_out = np.unique(trials[taught][hold_out(trials[taught], request.held_out)])
    in_them = np.flatnonzero(np.isin(trials, held_out) & (labels >= 0))
    first = int(in_them[0]) if len(in_them) else count
    rates = moving_mean(arrays["rates"], breaks, settings.window)
    return Data(rates, labels, trials, usable, breaks, is_whole, first)


def _fit(
    decoder: LFR,
    data: Data,
    pretraining: Indices,
    taught: Indices,
    training: LFRFitSettings,
    tell: Tell,
    stages: Stages,
    team: Team,
) -> int:
    """Fit the decoder in place; returns how many targets the backbone learned from."""
    settings, width, classes = decoder.settings, decoder.settings.width, len(decoder.classes)
    epochs = training.tune_epochs
    if epochs is None:
        epochs = 0 if training.pretrain_epochs else SUPERVISED_EPOCHS
    told = _stages(tell, (PRETRAINING, training.pretrain_epochs), (TUNING, epochs), (HEAD, training.head_epochs))
    mean, std = standards(data.rates[data.is_training & data.usable])
    standardised = np.nan_to_num((data.rates - mean) / std, nan=0.0, posinf=0.0, neginf=0.0)
    lessons, held_back = _lessons(data, taught, training.validation)
    chosen: list[int] = []
    with threads(training.threads):
        windows = lfr_fit.Windows(standardised, settings.bins, lfr_fit.device_of(training))
        backbone = make_backbone(settings, decoder.features, training.seed).to(windows.device)
        if training.pretrain_epochs:
            kept = stages("pretraining")
            chosen = lfr_fit.pretrain(backbone, width, windows, pretraining, training, told[0], kept, team)
        if epochs:
            kept = stages("tuning")
            lfr_fit.tune(backbone, width, classes, windows, lessons, held_back, training, epochs, told[1], kept, team)
        decoder.set_backbone(backbone.export(), mean, std, chosen)
        if settings.head == "linear":
            features = lfr_fit.features_of(backbone, windows, lessons.ends)
            tested = None if held_back is None else lfr_fit.features_of(backbone, windows, held_back.ends)
            linear = fit_linear(features, lessons, tested, held_back, classes, training, told[2])
            counts = np.bincount(lessons.labels, minlength=classes)
            decoder.set_linear(linear.weight, linear.bias, counts, linear.sharpness)
    if settings.head == "maxrate":
        for end in np.flatnonzero(data.ends_of_parts & data.is_training).tolist():
            decoder.learn(data.rates[end + 1 - settings.bins : end + 1], int(data.labels[end]))
    return len(chosen)


def standards(rates: F32) -> tuple[F32, F32]:
    """Mean and standard deviation of each unit, (units,); for one that is always the same, the others' median."""
    values = np.where(np.isfinite(rates), rates, np.nan).astype(np.float64)
    known = np.isfinite(values).any(axis=0)
    mean, std = np.zeros(values.shape[1]), np.zeros(values.shape[1])
    mean[known], std[known] = np.nanmean(values[:, known], axis=0), np.nanstd(values[:, known], axis=0)
    varies = std > 1e-6 * np.maximum(np.abs(mean), 1e-6)
    typical = np.median(std[varies]) if varies.any() else 1.0
    return mean.astype(np.float32), np.where(varies, std, typical).astype(np.float32)


def measure(decoder: LFR, data: Data, tests: Indices) -> dict[str, float]:
    """How right the decoder is at the bins `tests`, in order, asked bin by bin as in a session."""
    first, wanted, scores = int(tests[0]) + 1 - decoder.settings.bins, set(tests.tolist()), []
    decoder.reset()
    for number in range(first, int(tests[-1]) + 1):
        if data.breaks[number]:
            decoder.reset()
        answer = decoder.predict(data.rates[number])
        if number in wanted:
            scores.append(answer)
    answers = np.array([-1 if one.index is None else one.index for one in scores], dtype=np.intp)
    return score(answers, np.array([one.probability for one in scores]), data.labels[tests])


def _lessons(data: Data, taught: Indices, share: float) -> tuple[Lessons, Lessons | None]:
    """What the labels teach, and the last trials, held back to know when to stop: none where a class would be lost."""
    held_back = hold_out(data.trials[taught], share)
    if len(np.unique(data.labels[taught[~held_back]])) < len(np.unique(data.labels[taught])):
        return _weighed(data, taught), None
    return _weighed(data, taught[~held_back]), _weighed(data, taught[held_back])


def _weighed(data: Data, ends: Indices) -> Lessons:
    """Windows of which each trial's, together, count the same."""
    _, trial, sizes = np.unique(data.trials[ends], return_inverse=True, return_counts=True)
    weights = 1.0 / sizes[trial]
    return Lessons(ends, data.labels[ends], (weights / weights.mean()).astype(np.float32), len(sizes))


def _stages(tell: Tell, *stages: tuple[int, int]) -> list[Callable[[int, float], None]]:
    """For each stage, (share, epochs), what its epochs are told to."""
    total = sum(share for share, epochs in stages if epochs)
    told: list[Callable[[int, float], None]] = []
    begins = 0.0
    for share, epochs in stages:
        told.append(partial(_tell_epoch, tell, begins / total, share / total / max(epochs, 1)))
        begins += share if epochs else 0
    return told


def _tell_epoch(tell: Tell, begins: float, per_epoch: float, epoch: int, loss: float) -> None:
    if not np.isfinite(loss):
        raise ModelError(f"training: the loss became {loss} in epoch {epoch}; give a smaller learning_rate")
    tell(min(1.0, begins + per_epoch * epoch), loss)
