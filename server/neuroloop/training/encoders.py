"""Fitting an LNP encoder: on the first part of the bins, measured on the last.

The loss is 1 - correlation on the bins that the fit itself holds out to know when to stop (`training.validation`), and
the training's own loss where it holds out none. Bins whose lags or spike history reach over a hole have no part in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuroloop.models.kept import Stages, nowhere
from neuroloop.models.lnp_fit import fit as fit_bank
from neuroloop.models.lnp_fit import score
from neuroloop.training.arrays import Arrays
from neuroloop.training.fitted import Fitted, Tell
from neuroloop.training.request import FitRequest
from neuroloop.training.settings import encoder_settings
from neuroloop.training.splits import bin_ms, holes, last_share, whole


def fit(request: FitRequest, arrays: Arrays, tell: Tell, stages: Stages = nowhere) -> Fitted:
    """Raises ModelError for settings that LNP does not have, and where there is nothing to learn from."""
    settings, training = encoder_settings(request)
    stimulus, counts, times = arrays["stimulus"], arrays["counts"], arrays.get("times")
    settings = settings.model_copy(update={"bin_ms": settings.bin_ms or bin_ms(times)})
    lead = max(settings.lags - 1, settings.history, settings.coupling)
    usable = arrays.get("usable", np.ones(len(stimulus), np.bool_))
    use = whole(holes(times, usable, len(stimulus)), lead) & usable
    held_out = last_share(len(stimulus), request.held_out)

    def on_epoch(epoch: int, value: float) -> None:
        tell(epoch / training.epochs, 1.0 - value if training.validation > 0 else value)

    fitted = fit_bank(
        stimulus,
        counts,
        settings,
        training,
        cells=[str(name) for name in arrays["cells"]] if "cells" in arrays else None,
        locations=arrays.get("locations"),
        use=use & ~held_out,
        on_epoch=on_epoch,
        kept=stages("bank"),
    )
    bank = fitted.model
    metrics = {} if request.held_out == 0 else _measure(score(bank, stimulus, counts, use & held_out))
    about = {"settings": settings.model_dump(mode="json"), "cells": list(bank.cells), "frame": list(bank.frame)}
    amounts = {"training_samples": int((use & ~held_out).sum()), "held_out_samples": int((use & held_out).sum())}
    return Fitted(bank.save(), about, metrics, amounts, training.model_dump(mode="json"))


def _measure(scored: Any) -> dict[str, float]:
    """Means over the cells that spiked."""
    figures = {"correlation": scored.correlation, "bits_per_spike": scored.bits_per_spike}
    return {name: float(np.nanmean(values)) for name, values in figures.items() if np.isfinite(values).any()}
