"""Poisson decoder: the class under which the spike counts are most probable, features taken as independent.

    logit_k = sum_i  T x_i log r_ik - T r_ik   (+ log prior_k)

from the same class rates r as MaxRate, x in spikes per second over a window of T seconds. What all classes share (the
factorials) is left out. Each class starts with `smoothing` samples at the feature's mean over the classes, so that a
feature not yet heard in a class makes it improbable, not impossible; a feature silent in every class has no say.
"""

from __future__ import annotations

import numpy as np

from neuroloop.models.class_rates import ClassRates
from neuroloop.models.online import ClassRateDecoder
from neuroloop.models.online_settings import PoissonSettings
from neuroloop.models.readout import Readout


class Poisson(ClassRateDecoder):
    """Answers with the most likely class; learns online."""

    kind = "poisson"
    settings_model = PoissonSettings
    settings: PoissonSettings

    def _readout(self, rates: ClassRates) -> tuple[Readout, int, int]:
        duration, smoothing = self.settings.duration_s, self.settings.smoothing
        seen, baseline = rates.seen, np.maximum(rates.baseline(), 0.0)
        weights = rates.weights[:, None]
        smoothed = (np.maximum(rates.sums, 0.0) + smoothing * baseline) / (weights + smoothing)
        known = seen[:, None] & (baseline > 0)
        matrix = duration * np.log(smoothed, out=np.zeros_like(smoothed), where=known)
        bias = -duration * np.where(known, smoothed, 0.0).sum(axis=1)
        if self.settings.prior == "frequency":
            bias[seen] += np.log(rates.weights[seen] / rates.weights[seen].sum())
        count = int(np.count_nonzero(seen))
        return Readout(np.ascontiguousarray(matrix.T), bias, seen), count, count
