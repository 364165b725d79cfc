"""From a rate vector to logits and probabilities: two forms of a linear readout, each one compiled call.

`Readout` is any matrix and bias. `Votes` is the form where every feature speaks for at most one class,

    logit_k = scale_k * sum over {i: owner_i = k} of  vote_i (x_i - center_i)

which costs features operations instead of features x classes: 1.1 us for 1024 features, one addition to memory each.

Both are made when a sample is learned and never change after it: they are published by one assignment, and a reader in
another thread sees the decoder before or after a sample, never in between.

Compiled because it runs once a bin, with cold caches, between a bin's last sample and its prediction: the same steps
as a dozen numpy calls took 0.13 ms there.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from neuroloop.models.answer_kernels import answer_by_product, answer_by_votes

F64 = NDArray[np.float64]


class AnyReadout(Protocol):
    """What a decoder publishes."""

    def answer(self, rates: NDArray[Any], sharpness: float, values: F64, probability: F64) -> tuple[int, int]:
        """Logits into `values`, their softmax over the classes that can be the answer into `probability`.

        rates: (features,), contiguous, float32 or float64. values, probability: (classes,).
        Returns what came of it, and the index of the best class. MISSING leaves nothing of use in the arrays.
        """

    def dense(self) -> Readout:
        """The same as a matrix."""


class Readout(NamedTuple):
    """Logits are `rates @ matrix + bias`.

    matrix: (features, classes). bias: (classes,). eligible: (classes,), which classes can be the answer.
    """

    matrix: F64
    bias: F64
    eligible: NDArray[np.bool_]

    def answer(self, rates: NDArray[Any], sharpness: float, values: F64, probability: F64) -> tuple[int, int]:
        """See `AnyReadout`. Silence is evidence too."""
        matrix, bias, eligible = self
        outcome: tuple[int, int] = answer_by_product(rates, matrix, bias, eligible, sharpness, values, probability)
        return outcome

    def dense(self) -> Readout:
        return self


class Votes(NamedTuple):
    """The module's second form.

    terms: (3, features), owner, vote and center; the owner of a feature that has none is the number of classes.
    scale: (classes,), 0 for a class that owns no feature, which cannot be the answer.
    """

    terms: NDArray[np.float32]
    scale: F64

    def answer(self, rates: NDArray[Any], sharpness: float, values: F64, probability: F64) -> tuple[int, int]:
        """See `AnyReadout`. Where every feature that has an owner is silent, there is no evidence."""
        outcome: tuple[int, int] = answer_by_votes(rates, self.terms, self.scale, sharpness, values, probability)
        return outcome

    def dense(self) -> Readout:
        owners, votes, centers = self.terms
        features, classes = len(owners), len(self.scale)
        matrix = np.zeros((features, classes + 1))
        matrix[np.arange(features), owners.astype(np.intp)] = votes
        matrix = matrix[:, :classes] * self.scale
        return Readout(matrix, -(centers @ matrix), self.scale > 0)
