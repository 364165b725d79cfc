"""The mean rate of every feature in every class, learned one labelled sample at a time.

Kept apart per class k: the weighted sum `s_k` of the samples and their weight `w_k`. The rate is `s_k / w_k`, a true
mean, however often the class was shown. With rule "sum" (the published one) it is `s_k` itself, and a frequent class
wins.

Forgetting: `decay` per sample of the same class, `s_k <- exp(-decay) s_k + x`; `half_life_s` per second of labelled
time, of all classes alike. A value that is NaN counts as missing: it is replaced by the feature's mean in that class,
which leaves that mean as it was (in a class not seen yet, by the mean over the others, or 0).

A `ClassRates` never changes; learning makes a new one, so a reader never sees half an update. O(features) per sample
to add, O(features x classes) to copy.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError

F64 = NDArray[np.float64]
Rule = Literal["mean", "sum"]

FORGOTTEN = 1e-280  # weight of a class; below it the sums run out of digits, after some 900 half-lives


@dataclass(frozen=True, eq=False, slots=True)
class ClassRates:
    """sums: (classes, features). weights: (classes,). counts: (classes,), labelled samples. missing: NaN values."""

    sums: F64
    weights: F64
    counts: NDArray[np.int64]
    missing: int = 0

    @staticmethod
    def empty(classes: int, features: int) -> ClassRates:
        return ClassRates(np.zeros((classes, features)), np.zeros(classes), np.zeros(classes, np.int64))

    @property
    def seen(self) -> NDArray[np.bool_]:
        """Which classes have evidence: (classes,)."""
        return self.weights > FORGOTTEN

    def rates(self, rule: Rule = "mean") -> F64:
        """Rate of each feature in each class, (classes, features); 0 for classes not seen."""
        if rule == "sum":
            return self.sums.copy()
        return self.sums / np.where(self.seen, self.weights, 1.0)[:, None]

    def baseline(self) -> F64:
        """Mean over the classes seen, each counting once: (features,)."""
        seen = self.seen
        return self.rates()[seen].mean(axis=0) if seen.any() else np.zeros(self.sums.shape[1])

    def only(self, features: NDArray[np.bool_]) -> ClassRates:
        """Of some features: (features,), which ones."""
        return replace(self, sums=self.sums[:, features])

    def learn(self, sample: F64, index: int, decay: float, half_life_s: float | None, duration_s: float) -> ClassRates:
        """With one labelled sample more; sample: (features,) float64."""
        holes = np.isnan(sample)
        missing = int(np.count_nonzero(holes))
        if missing:
            mean = self.sums[index] / self.weights[index] if self.seen[index] else self.baseline()
            sample = np.where(holes, mean, sample)
        sums, weights, counts = self.sums.copy(), self.weights.copy(), self.counts.copy()
        if half_life_s is not None:
            kept = 0.5 ** (duration_s / half_life_s)
            sums *= kept
            weights *= kept
        if decay > 0:
            kept = float(np.exp(-decay))
            sums[index] *= kept
            weights[index] *= kept
        sums[index] += sample
        weights[index] += 1.0
        counts[index] += 1
        return ClassRates(sums, weights, counts, self.missing + missing)

    def state_dict(self) -> dict[str, Any]:
        return {
            "sums": self.sums.copy(),
            "weights": self.weights.copy(),
            "counts": self.counts.copy(),
            "missing": self.missing,
        }


def restore(state: dict[str, Any], classes: int, features: int) -> ClassRates:
    """From a state dict. Raises ModelError where the shapes are those of another decoder, or values are not finite."""
    for name, expected in (("sums", (classes, features)), ("weights", (classes,)), ("counts", (classes,))):
        if np.shape(state[name]) != expected:
            raise ModelError(f"decoder state: expected {name} of shape {expected}, got {np.shape(state[name])}")
        if not np.isfinite(state[name]).all():
            raise ModelError(f"decoder state: {name} holds values that are not finite")
    return ClassRates(
        np.array(state["sums"], dtype=np.float64),
        np.array(state["weights"], dtype=np.float64),
        np.array(state["counts"], dtype=np.int64),
        int(state["missing"]),
    )


def check_label(index: int, classes: tuple[str, ...]) -> int:
    """The index. Raises ModelError, naming the classes, where it is none of theirs."""
    if not 0 <= index < len(classes):
        listed = ", ".join(f"{number} {name}" for number, name in enumerate(classes))
        raise ModelError(f"label: {index} is no class; there are: {listed}")
    return int(index)


def check_sample(rates: NDArray[Any], features: int) -> F64:
    """A rate vector as (features,) float64; infinities count as missing. Raises ModelError for another size."""
    sample = np.asarray(rates, dtype=np.float64).reshape(-1)
    if len(sample) != features:
        raise ModelError(f"rates: expected {features} features, got {len(sample)}")
    return np.where(np.isinf(sample), np.nan, sample) if np.isinf(sample).any() else sample
