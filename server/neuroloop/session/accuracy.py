"""How often a decoder was right, by the labels that came later: bin by bin, before it learns from them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

LONGEST = 1 << 16
ABSTAINED = -1


class Labelled(Protocol):
    """A class, by its index, and the numbers of the bins that it holds for."""

    @property
    def index(self) -> int: ...

    @property
    def bins(self) -> NDArray[np.int64]: ...


@dataclass(frozen=True, slots=True)
class Accuracy:
    """bins: labelled ones that were answered; of these the correct ones, and those where the decoder abstained."""

    bins: int = 0
    correct: int = 0
    abstained: int = 0


class AnswerLog:
    """The classes that one decoder answered in its last bins, by the number of the bin."""

    def __init__(self, bins: int) -> None:
        size = max(1, min(bins, LONGEST))
        self._numbers = np.full(size, -1, np.int64)
        self._answers = np.zeros(size, np.int32)

    def add(self, number: int, index: int | None) -> None:
        row = number % len(self._numbers)
        self._numbers[row] = number
        self._answers[row] = ABSTAINED if index is None else index

    def judge(self, so_far: Accuracy, labels: Iterable[Labelled]) -> Accuracy:
        """With the bins of these labels, as far as they are kept."""
        bins, correct, abstained = so_far.bins, so_far.correct, so_far.abstained
        for label in labels:
            rows = label.bins % len(self._numbers)
            answers = self._answers[rows[self._numbers[rows] == label.bins]]
            bins += len(answers)
            correct += int(np.count_nonzero(answers == label.index))
            abstained += int(np.count_nonzero(answers == ABSTAINED))
        return Accuracy(bins, correct, abstained)
