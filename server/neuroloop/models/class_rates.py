"""The mean rate of every feature in every class, learned one labelled sample at a time.

Kept apart per class k: the weighted sum `s_k` of the samples and their weight `w_k`. The rate is `s_k / w_k`, a true
mean, however often the class was shown. With rule "sum" (the published one) it is `s_k` itself, and a frequent class
wins.

Forgetting: `decay` per sample of the same class, `s_k <- exp(-decay) s_k + x`; `half_life_s` per second of labelled
time, of all classes alike. A value that is missing (NaN or infinite) is replaced by the feature's mean in that class,
which leaves that mean as it was (in a class not seen yet, by the mean over the others, or 0).

Changed in place, by one learner. The sums are float64; what readouts are made from, `rates`, is float32, as the samples
of a session are: half the memory to go through at every sample, in vectors twice as long. It is always that of the
sums, to the bit. O(features) per sample; O(features x classes) with a half-life.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models.class_rate_kernels import FORGOTTEN, add, derive
from neuroloop.models.online_settings import Rule
from neuroloop.models.state_checks import check_class_rates

F64 = NDArray[np.float64]


class ClassRates:
    """sums: (classes, features). weights: (classes,). counts: (classes,), labelled samples. missing: missing values.

    rates: (classes, features) float32, by the rule; 0 for classes not seen.
    signed: whether a sample was ever negative; where none was, a sum of magnitudes is a sum.
    """

    def __init__(self, classes: int, features: int, rule: Rule = "mean") -> None:
        self.rule = rule
        self.sums = np.zeros((classes, features))
        self.weights = np.zeros(classes)
        self.counts = np.zeros(classes, np.int64)
        self.missing = 0
        self.rates = np.zeros((classes, features), np.float32)
        self.signed = False

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Which classes have evidence: (classes,)."""
        return self.weights > FORGOTTEN

    def exact(self) -> F64:
        """`rates` in float64."""
        divisor = np.where(self.seen, 1.0 if self.rule == "sum" else self.weights, np.inf)
        return self.sums / divisor[:, None]

    def baseline(self) -> F64:
        """Mean over the classes seen, each counting once: (features,)."""
        seen = self.seen
        if not seen.any():
            return np.zeros(self.sums.shape[1])
        baseline: F64 = (self.sums[seen] / self.weights[seen, None]).mean(axis=0)
        return baseline

    def only(self, features: NDArray[np.bool_]) -> ClassRates:
        """A copy for some features: (features,), which ones."""
        part = ClassRates(len(self.weights), 0, self.rule)
        part.sums = np.ascontiguousarray(self.sums[:, features])
        part.rates = np.ascontiguousarray(self.rates[:, features])
        part.weights, part.counts, part.signed = self.weights.copy(), self.counts.copy(), self.signed
        return part

    def take(self, sums: NDArray[Any], weights: NDArray[Any], counts: NDArray[Any]) -> None:
        """Start from these."""
        self.sums[:], self.weights[:], self.counts[:] = sums, weights, counts
        self.signed = bool((self.sums < 0).any())
        for k in range(len(self.weights)):
            derive(self.sums[k], self.weights[k], self.rule == "sum", self.rates[k])

    def learn(self, sample: NDArray[Any], index: int, kept: float, age: float) -> None:
        """One labelled sample more: (features,), contiguous.

        kept: what is left of the class's old samples, for the decay. age: what is left of those of every class.
        Raises ModelError, and learns nothing, where every value is missing.
        """
        summed = self.rule == "sum"
        self.took(*add(sample, index, kept, age, summed, self.sums, self.weights, self.counts, self.rates))

    def took(self, missing: int, signed: bool) -> None:
        """What `add` found in a sample. Raises ModelError where every value was missing, and nothing was added."""
        if missing == self.sums.shape[1]:
            raise ModelError(f"rates: all {missing} values are missing; nothing to learn")
        self.missing += missing
        self.signed |= signed

    def state_dict(self) -> dict[str, Any]:
        return {
            "sums": self.sums.copy(),
            "weights": self.weights.copy(),
            "counts": self.counts.copy(),
            "missing": self.missing,
            "signed": self.signed,
        }


def restore(state: dict[str, Any], classes: int, features: int, rule: Rule = "mean") -> ClassRates:
    """From a state dict. Raises ModelError where the shapes are those of another decoder, or values are not finite."""
    check_class_rates(state, classes, features)
    rates = ClassRates(classes, features, rule)
    rates.take(state["sums"], state["weights"], state["counts"])
    rates.missing, rates.signed = state["missing"], state["signed"] or rates.signed
    return rates
