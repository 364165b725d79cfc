"""A decoder at work: asked for every bin, taught between two bins, and never trusted.

A kind may come from another package. Whatever its code raises, and whatever it answers that no subscriber could use,
is a `Fault` here, so that it ends no thread.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from operator import index as as_index
from time import perf_counter
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuroloop.models.base import Decoder, Scores, digest
from neuroloop.models.decoder_files import About
from neuroloop.session.accuracy import Accuracy, AnswerLog
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
class ModelVersion:
    """A version in the registry. digest: of its file."""

    name: str
    version: int
    digest: str


@dataclass(frozen=True, slots=True)
class Loaded:
    """How a version was loaded. alias: the one that is followed; what loads the next one in its place does the same."""

    alias: str | None
    state: Literal["carry", "reprime", "cold"]
    reprime_bins: int


@dataclass(frozen=True, slots=True)
class Taught:
    """A label as decoders learn it: the mean rates, (features,), of its bins, whose numbers are `bins`."""

    rates: NDArray[np.float32]
    index: int
    duration_s: float
    bins: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Knowledge:
    """What a decoder knows since its last lesson; made anew with each, so that other threads may read it.

    learned: labels since it was made; by_class: labelled samples of each class ever. digest: of the model's file, or,
    where there is none, of the decoder's whole state. accuracy: of its answers, by the labels that came.
    """

    learned: int
    by_class: dict[str, int]
    digest: str
    accuracy: Accuracy


class RunningDecoder:
    """One decoder, used by one thread at a time. model: the version that it was loaded from.

    about: what its file says. was_shadow: promoted, and not loaded as the active one.
    lessons_from: number of the first label that it has learned, or would have.
    """

    def __init__(
        self, name: str, kind: str, role: Role, decoder: Decoder, history_bins: int, model: ModelVersion | None = None
    ) -> None:
        self.name = name
        self.kind = kind
        self.role = role
        self.decoder = decoder
        self.model = model
        self.about: About | None = None
        self.loaded: Loaded | None = None
        self.was_shadow = False
        self.lessons_from = 0
        self._targets = len(getattr(decoder, "targets", ())) if getattr(decoder, "continuous", False) else 0
        self.predict_ms = 0.0
        self.latency = Latency(("predict",))
        self._log = AnswerLog(history_bins)
        self.knowledge = self._knowledge(0, Accuracy())

    def _knowledge(self, learned: int, accuracy: Accuracy) -> Knowledge:
        state = digest(self.decoder) if self.model is None else self.model.digest
        return Knowledge(learned, self.decoder.learned(), state, accuracy)

    def restore(self, learned: int, accuracy: Accuracy) -> None:
        """It had learned so many labels, and its answers had been judged."""
        self.knowledge = self._knowledge(learned, accuracy)

    def predict(self, rates: Any, bin: int = -1) -> Scores:
        """The answer for one bin of this number, -1 for one of no account; `predict_ms` says how long it took.

        Raises Fault.
        """
        started = perf_counter()
        with faults_of("predict"):
            scores = usable(self.decoder.predict(rates), len(self.decoder.classes), self._targets)
        self.predict_ms = 1000 * (perf_counter() - started)
        if bin >= 0 and not self._targets:
            self._log.add(bin, scores.index)
        return scores

    def learn(self, *lessons: Taught) -> None:
        """Judge the answers by the labels, then learn these, if it learns online.

        Raises Fault; what it then knows, its code decides.
        """
        knowledge = self.knowledge
        accuracy = self._log.judge(knowledge.accuracy, lessons)
        if not getattr(self.decoder, "online", True):  # kinds from other packages may not say
            self.knowledge = replace(knowledge, accuracy=accuracy)
            return
        with faults_of("learn"):
            for lesson in lessons:
                self.decoder.learn(lesson.rates, lesson.index, lesson.duration_s)
            self.knowledge = self._knowledge(knowledge.learned + len(lessons), accuracy)

    def replay(self, bins: Iterable[NDArray[np.float32]]) -> None:
        """Let it see bins of the past, oldest first; nobody wants the answers. Raises Fault."""
        for rates in bins:
            self.predict(rates)

    def reset(self) -> None:
        """Raises Fault."""
        with faults_of("reset"):
            self.decoder.reset()

    def identity(self) -> dict[str, Any]:
        """What a prediction says of the model that made it."""
        knowledge = self.knowledge
        name, version = self.name, knowledge.learned
        if self.model is not None:
            name, version = self.model.name, self.model.version
        return {"name": name, "version": version, "digest": knowledge.digest, "learned": knowledge.learned}

    def describe(self) -> dict[str, Any]:
        """What the status says of it; read by the loop, whoever else uses the decoder."""
        knowledge, identity = self.knowledge, self.identity()
        return {
            "name": self.name,
            "kind": self.kind,
            "role": self.role,
            "version": identity["version"],
            "digest": identity["digest"],
            "learned": knowledge.by_class,
            "model": identity,
            "latency_ms": self.latency.summary()["predict"],
            "bins": self.latency.added,
            "accuracy": asdict(knowledge.accuracy),
            "loaded": None if self.loaded is None else asdict(self.loaded),
        }


def usable(scores: Scores, classes: int, targets: int = 0) -> Scores:
    """The same, or Fault: not finite, of another shape, or an index of no class. targets: of a continuous decoder."""
    for name, array, size in (
        ("values", scores.values, targets or classes),
        ("probability", scores.probability, classes),
    ):
        if array.shape != (size,):
            raise Fault(f"predict gave {name} of shape {array.shape}; expected ({size},)")
        if not np.isfinite(array).all():
            raise Fault(f"predict gave {name} that are not finite")
    if scores.index is not None:
        scores.index = as_index(scores.index)
        if not 0 <= scores.index < classes:
            raise Fault(f"predict gave index {scores.index}; there are {classes} classes")
    return scores
