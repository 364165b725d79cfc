"""MaxRate: every feature votes for the class that drives it most.

From the class rates r (see `class_rates`), per feature i:

    p_ik = r_ik / sum_k |r_ik|,    a_i = argmax_k p_ik  (ties to the lowest)
    logit_k = sum over {i: a_i = k} of  p_ik (x_i - m_i) / sqrt(m_i n_k),    n_k features owned by k

with m_i the feature's mean over the classes: deviations in Poisson standard units (`normalize: deviation`). Every class
counts once in m: where one class was shown 60 percent of the time, 96 simulated units told 8 directions apart at 0.98,
with the mean over all labelled samples at 0.73. The alternatives are

    logit_k = mean over {i: a_i = k} of  p_ik x_i / m_i     `normalize: mean`
    logit_k = mean over {i: a_i = k} of  p_ik x_i           `normalize: none`, as published

Without normalisation a few features of high baseline drown the rest; with the ratio, features that are nearly silent
do: one spike of a cell that fires once a minute is a ratio of a hundred. On 31 hippocampal cells and 8 places, chosen
by five folds of the first half of the recording: deviation 0.56, mean 0.49, none 0.49; then on the second half 0.54,
0.46, 0.44. On band power of EEG, deviation and mean both reach 1.00, none 0.67.

A feature that was silent in every class is assigned to no class (-1) and dilutes none. A class that owns no feature is
never the answer: its logit and probability are 0.

Cost, at 1024 features and 10 classes. An answer is a multiplication and an addition to memory per feature. A lesson
answers once for the calibration, fits that (see `calibration`), and derives p, a and m of every feature from the rates
of all classes: features x classes float32, 40 KB, read once, with six vector operations for every eight of them, then a
division, a square root and another division per feature. That is some 8000 vector operations for the rates, 8000 for
the calibration and 4000 scalar additions to memory: about 5 us at 3 GHz with AVX2, of which 1.3 us compare the rates,
1.2 us fit, 2.1 us are two answers. Measured on one core of a Xeon at 3 GHz, `predict` and `learn` together: 12.1 us at
best, 14.4 us in the median on a machine with other work; what is not in the kernels is Python calling them.

After the MaxRate classifier of inferno. `MaxRate.published` makes its form, which differs in rule (a sum over samples,
so that a frequent class wins), normalisation (none) and silent features (all owned by class 0).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models.calibration import Trials
from neuroloop.models.class_rates import ClassRates
from neuroloop.models.maxrate_kernels import lesson, vote
from neuroloop.models.online import ClassRateDecoder, mean_of_known
from neuroloop.models.online_settings import MaxRateSettings
from neuroloop.models.readout import Votes

F64 = NDArray[np.float64]
Indices = NDArray[np.intp]

_NORMALIZE = ("none", "mean", "deviation")


class MaxRate(ClassRateDecoder):
    """Answers with the class whose features are the most active; learns online."""

    kind = "maxrate"
    settings_model = MaxRateSettings
    settings: MaxRateSettings

    def __init__(
        self, classes: Sequence[str], features: int | Sequence[int], settings: MaxRateSettings | None = None
    ) -> None:
        chosen = settings or MaxRateSettings()
        self._rule = chosen.rule
        self._options: tuple[Any, ...] = (
            chosen.rule == "sum",
            _NORMALIZE.index(chosen.normalize),
            chosen.proportional,
            chosen.silent == "first",
        )
        super().__init__(classes, features, chosen)

    @classmethod
    def published(
        cls,
        classes: Sequence[str],
        features: int | Sequence[int],
        decay: float = 0.0,
        proportional: bool = True,
    ) -> MaxRate:
        """The classifier as inferno computes it."""
        return cls(
            classes,
            features,
            MaxRateSettings(rule="sum", normalize="none", silent="first", decay=decay, proportional=proportional),
        )

    @property
    def rates(self) -> F64:
        """r: the rate of each feature in each class, (*shape, classes)."""
        with self._lock:
            return np.ascontiguousarray(self._rates.exact().T).reshape(*self.shape, -1)

    def set_rates(self, rates: NDArray[Any]) -> None:
        """Start anew from rates of elsewhere, (*shape, classes), each as that of one sample of its class.

        Raises ModelError where they have another shape or are not finite.
        """
        given, expected = np.asarray(rates, dtype=np.float64), (*self.shape, len(self.classes))
        if given.shape != expected or not np.isfinite(given).all():
            raise ModelError(f"rates: expected finite values of shape {expected}, got {given.shape}")
        known = ClassRates(len(self.classes), self.features, self._rates.rule)
        known.take(given.reshape(self.features, -1).T, np.ones(len(self.classes)), np.ones(len(self.classes)))
        with self._lock:
            self._rates, self._trials = known, Trials(len(self.classes))
            self._publish(*self._readout(known))

    @property
    def proportions(self) -> F64:
        """p: the rates over the sum of their magnitudes, (*shape, classes); 0 for a silent feature."""
        rates = self.rates
        total = np.abs(rates).sum(axis=-1, keepdims=True)
        return rates / np.where(total > 0, total, 1.0)

    @property
    def assignments(self) -> Indices:
        """a: the class that owns each feature, (*shape,); -1 for none."""
        owners = self._votes.terms[0].astype(np.intp)
        return np.where(owners < len(self.classes), owners, -1).reshape(self.shape)

    @property
    def occurrences(self) -> Indices:
        """n: how many features each class owns, (classes,)."""
        return np.bincount(self._votes.terms[0].astype(np.intp), minlength=len(self.classes) + 1)[:-1]

    @property
    def _votes(self) -> Votes:
        readout = self._published[0]
        assert isinstance(readout, Votes)
        return readout

    def _lesson(self, sample: NDArray[Any], index: int, duration_s: float) -> None:
        rates, trials = self._rates, self._trials
        before, reason, _ = self._published
        assert isinstance(before, Votes)
        after = self._blank(self.features, len(self.classes))
        kept, age = self._left(1, duration_s)
        missing, signed, seen, eligible, tested, trials.sharpness = lesson(
            sample,
            index,
            kept,
            age,
            rates.sums,
            rates.weights,
            rates.counts,
            rates.rates,
            rates.signed,
            self._fitted and reason is None,
            *before,
            trials.logits,
            trials.own,
            trials.even,
            trials.count,
            trials.sharpness,
            *self._options,
            *after,
        )
        if tested:
            trials.took(index)
        rates.took(missing, signed)
        self._publish(after, seen, eligible)

    def _learn_batch(self, samples: F64, indices: list[int], duration_s: float) -> None:
        if self.settings.rule == "mean":
            super()._learn_batch(samples, indices, duration_s)
            return
        for sample, index in zip(samples, indices, strict=True):
            self._observe(sample, index)
        labels, rates, elapsed_s = np.array(indices), self._rates, len(indices) * duration_s
        for index in sorted(set(indices)):
            members = samples[labels == index]
            holes = np.count_nonzero(~np.isfinite(members))
            mean = mean_of_known(members)
            rates.learn(mean, index, *self._left(len(members), elapsed_s))
            rates.counts[index] += len(members) - 1
            rates.missing += int(holes - np.count_nonzero(np.isnan(mean)))
            elapsed_s = 0.0
        self._publish(*self._readout(rates))

    @staticmethod
    def _blank(features: int, classes: int) -> Votes:
        """To be filled in."""
        return Votes(np.empty((3, features), np.float32), np.empty(classes))

    def _readout(self, rates: ClassRates) -> tuple[Votes, int, int]:
        classes, features = rates.sums.shape
        votes = self._blank(features, classes)
        seen, eligible = vote(rates.rates, rates.sums, rates.weights, rates.signed, *self._options, *votes)
        return votes, seen, eligible
