"""Fitting a decoder: it learns the trials in the order in which they came, as it would have in a session.

The loss is the log-loss on the held-out trials, measured after each twentieth of the training: the curve shows whether
more trials would help. What is registered is the decoder that was measured, which has not seen what was held out.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models import decoder_files
from neuroloop.models.base import Decoder, make_decoder
from neuroloop.training.arrays import Arrays
from neuroloop.training.fitted import Fitted, Tell
from neuroloop.training.metrics import score
from neuroloop.training.request import FitRequest
from neuroloop.training.splits import Indices, Samples, cut, hold_out, holes

POINTS = 20  # of the loss curve


def fit(request: FitRequest, arrays: Arrays, tell: Tell) -> Fitted:
    """Raises ModelError where the arrays hold fewer than two classes, or the settings are not the kind's."""
    named = request.classes or [str(name) for name in arrays.get("classes", ())]
    classes, labels = class_labels(arrays["labels"], named)
    samples = labelled_samples(request, arrays, labels)
    held_out = hold_out(samples.trials, request.held_out)
    training, test = samples.of(~held_out), samples.of(held_out)
    learned = np.unique(training.labels)
    if len(learned) < 2:
        names = ", ".join(classes[label] for label in learned) or "none"
        raise ModelError(f"labels: expected trials of two classes or more to learn from, got those of: {names}")
    duration_s = float(arrays["duration_s"]) if "duration_s" in arrays else None
    decoder = make_decoder(request.kind, classes, samples.rates.shape[1], request.settings, duration_s)
    ends = np.unique(np.linspace(0, len(training.labels), POINTS + 1).astype(int))[1:]
    first = 0
    for end in ends.tolist():
        for sample, label in zip(training.rates[first:end], training.labels[first:end].tolist(), strict=True):
            decoder.learn(sample, label)
        first = end
        tell(end / len(training.labels), measure(decoder, test)["log_loss"] if len(test.labels) else None)
    channels = [str(name) for name in arrays["channels"]] if "channels" in arrays else None
    file = decoder_files.of(decoder, samples.rates.shape[1], channels)
    about = file.about.model_dump(mode="json", include={"settings", "classes", "features", "channels"})
    return Fitted(
        decoder_files.write(file),
        about,
        measure(decoder, test) if len(test.labels) else {},
        {"training_samples": len(training.labels), "held_out_samples": len(test.labels)},
    )


def measure(decoder: Decoder, test: Samples) -> dict[str, float]:
    """The held-out metrics of a decoder as it is now."""
    scores = [decoder.predict(rates) for rates in test.rates]
    answers = np.array([-1 if one.index is None else one.index for one in scores], dtype=np.intp)
    return score(answers, np.array([one.probability for one in scores]), test.labels)


def class_labels(given: NDArray[Any], classes: Sequence[str] | None) -> tuple[list[str], Indices]:
    """The classes, and the index of each label, -1 for none.

    given: (bins,), indices with -1 for none or names with '' for none. classes: those asked for; by default the names
    that occur, in alphabetical order, or the numbers up to the largest. Raises ModelError for a label of no class.
    """
    if given.dtype.kind == "U":
        names = list(classes) if classes else sorted({str(name) for name in given} - {""})
        unknown = sorted({str(name) for name in given} - {*names, ""})
        if unknown:
            raise ModelError(f"labels: {', '.join(unknown[:8])}: none of the classes {', '.join(names)}")
        index = {"": -1} | {name: number for number, name in enumerate(names)}
        indices = np.array([index[str(name)] for name in given], dtype=np.intp)
    else:
        indices = given.astype(np.intp)
        names = list(classes) if classes else [str(number) for number in range(int(indices.max()) + 1)]
        if indices.min() < -1 or indices.max() >= len(names):
            raise ModelError(
                f"labels: expected -1 for none, or 0 to {len(names) - 1}; got {indices.min()} to {indices.max()}"
            )
    if len(names) < 2:
        raise ModelError(f"labels: expected two classes or more, got: {', '.join(names) or 'none'}")
    return names, indices


def labelled_samples(request: FitRequest, arrays: Arrays, labels: Indices) -> Samples:
    """What a decoder learns from. labels: as `class_labels` gives them."""
    if "trials" in arrays:
        chosen = labels >= 0
        if "usable" in arrays:
            chosen &= arrays["usable"]
        numbers = arrays.get("trial_numbers", np.arange(len(labels)))
        whole = Samples(np.asarray(arrays["trials"], np.float64), labels, numbers, np.ones(len(labels), np.intp))
        return whole.of(chosen)
    usable = arrays.get("usable")
    return cut(
        arrays["rates"],
        labels,
        breaks=holes(arrays.get("times"), usable, len(labels)),
        usable=usable,
        trial_numbers=arrays.get("trial_numbers"),
        window=request.window,
    )
