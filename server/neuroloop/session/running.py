"""A decoder at work: asked for every bin, taught between two bins, and never trusted.

A kind may come from another package. Whatever its code raises, and whatever it answers that no subscriber could use,
is a `Fault` here, so that it ends no thread.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from operator import index as as_index
from time import perf_counter
from typing import Any, Literal

import numpy as np

from neuroloop.models.base import Decoder, Scores, digest
from neuroloop.session.latency import Latency

Role = Literal["active", "shadow"]


class Fault(Exception):
    """A decoder raised, or gave no answer that can be used; the text says what."""


@contextmanager
def faults_of(what: str) -> Iterator[None]:
    """Any error of a decoder's own code as a `Fault`."""
    try:
        yield
    except Exception as error:
        raise Fault(f"{what} raised {type(error).__name__}: {error}") from error


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a decoder knows since its last lesson; made anew with each, so that other threads may read it.

    learned: labels since it was made; by_class: labelled samples of each class ever. digest: of its whole state.
    """

    learned: int
    by_class: dict[str, int]
    digest: str


class RunningDecoder:
    """One decoder, used by one thread at a time."""

    def __init__(self, name: str, kind: str, role: Role, decoder: Decoder) -> None:
        self.name = name
        self.kind = kind
        self.role = role
        self.decoder = decoder
        self.predict_ms = 0.0
        self.latency = Latency(("predict",))
        self.knowledge = self._knowledge(0)

    def _knowledge(self, learned: int) -> Knowledge:
        return Knowledge(learned, self.decoder.learned(), digest(self.decoder))

    def predict(self, rates: Any) -> Scores:
        """The answer for one bin; `predict_ms` says how long it took. Raises Fault."""
        started = perf_counter()
        with faults_of("predict"):
            scores = usable(self.decoder.predict(rates), len(self.decoder.classes))
        self.predict_ms = 1000 * (perf_counter() - started)
        return scores

    def learn(self, rates: Any, index: int, duration_s: float) -> None:
        """Raises Fault; what the decoder then knows is for its own code to say."""
        with faults_of("learn"):
            self.decoder.learn(rates, index, duration_s)
            self.knowledge = self._knowledge(self.knowledge.learned + 1)

    def reset(self) -> None:
        """Raises Fault."""
        with faults_of("reset"):
            self.decoder.reset()

    def model(self) -> dict[str, Any]:
        """What a prediction says of who made it."""
        knowledge = self.knowledge
        return {
            "name": self.name,
            "version": knowledge.learned,
            "digest": knowledge.digest,
            "learned": knowledge.learned,
        }

    def describe(self) -> dict[str, Any]:
        """What the status says of it."""
        model = self.model()
        return {
            "name": self.name,
            "kind": self.kind,
            "role": self.role,
            "version": model["version"],
            "digest": model["digest"],
            "learned": self.knowledge.by_class,
            "model": model,
            "latency_ms": self.latency.summary()["predict"],
            "bins": self.latency.added,
        }


def usable(scores: Scores, classes: int) -> Scores:
    """The same, or Fault: not finite, of another shape, or an index of no class."""
    for name, array in (("values", scores.values), ("probability", scores.probability)):
        if array.shape != (classes,):
            raise Fault(f"predict gave {name} of shape {array.shape}; expected ({classes},)")
        if not np.isfinite(array).all():
            raise Fault(f"predict gave {name} that are not finite")
    if scores.index is not None:
        scores.index = as_index(scores.index)
        if not 0 <= scores.index < classes:
            raise Fault(f"predict gave index {scores.index}; there are {classes} classes")
    return scores
