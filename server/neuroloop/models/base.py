"""What a decoder is, and how one is made by the name of its kind.

Kinds come from the entry-point group `neuroloop.models`; a third-party package adds one there. What it names is a class
with the constructor `(classes, features, settings)` and the class attribute `settings_model`, a frozen pydantic model.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ValidationError

from neuroloop.errors import ModelError

F64 = NDArray[np.float64]

GROUP = "neuroloop.models"


@dataclass(slots=True)
class Scores:
    """One answer of a decoder.

    values: (classes,) float64, finite; larger speaks for the class. probability: (classes,) float64, calibrated; sums
    to 1, or is all 0 when the decoder abstains for want of learning.
    index: of the class, or None when the decoder abstains; reason then says why, and is None otherwise.
    """

    values: F64
    index: int | None
    reason: str | None
    probability: F64


@dataclass(slots=True)
class BatchScores:
    """The answers to a batch; see `Scores`.

    values, probability: (batch, classes). index: (batch,), -1 where the decoder abstains. reason: one for each.
    """

    values: F64
    index: NDArray[np.intp]
    reason: list[str | None]
    probability: F64


@runtime_checkable
class Decoder(Protocol):
    """A decoder that answers every bin.

    online: whether it learns from the labels of a session; for one that does not, they are a test alone.
    A continuous kind (class attribute `continuous` True) has no classes but `targets`, names of what it estimates; its
    `Scores.values` are the targets, its `probability` is empty, and its `index` is None.
    """

    kind: str
    online: bool
    classes: tuple[str, ...]

    def predict(self, rates: NDArray[np.floating[Any]]) -> Scores:
        """The scores for a rate vector, (features,)."""

    def learn(self, rates: NDArray[np.floating[Any]], label: int, duration_s: float = 1.0) -> None:
        """Take in a rate vector of a class, its index. duration_s: what it adds to the age of what was learned.

        Raises ModelError where the decoder does not learn online.
        """

    def reset(self) -> None:
        """A hole in the input or a run's start: drop what depends on the bins before. What was learned stays."""

    def learned(self) -> dict[str, int]:
        """Labelled samples of each class so far."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@runtime_checkable
class Remembering(Protocol):
    """A decoder whose answers depend on the bins before, as far back as the last `reset`."""

    def memory(self) -> dict[str, Any]:
        """A copy of all that `reset` drops: arrays, lists and plain values."""

    def recall(self, memory: Mapping[str, Any]) -> None:
        """Go on as the decoder of the same state that this is the memory of."""


@cache
def _kinds() -> dict[str, EntryPoint]:
    """By name. Looked up once: it takes the interpreter for 9 ms, which a swap beside the loop would cost the loop."""
    return {point.name: point for point in entry_points(group=GROUP)}


def kinds() -> tuple[str, ...]:
    """The kinds of decoders that are installed, in alphabetical order."""
    return tuple(sorted(_kinds()))


def make_decoder(
    kind: str,
    classes: Sequence[str],
    features: int,
    settings: Mapping[str, Any] | None = None,
    duration_s: float | None = None,
) -> Decoder:
    """A fresh decoder.

    classes: their names, or those of the targets of a kind that is continuous (`is_continuous`). duration_s: over which
    rates are means; the setting of that name, of the kinds that have it, unless it is given.
    Raises ModelError for an unknown kind, or settings that it does not have.
    """
    model = _load_kind(kind)
    given = dict(settings or {})
    if duration_s is not None and "duration_s" in model.settings_model.model_fields:
        given.setdefault("duration_s", duration_s)
    decoder: Decoder = model(tuple(classes), features, check_settings(kind, model.settings_model, given))
    return decoder


def is_continuous(kind: str) -> bool:
    """Whether decoders of a kind answer with targets instead of classes. Raises ModelError for an unknown kind."""
    return bool(getattr(_load_kind(kind), "continuous", False))


def _load_kind(kind: str) -> Any:
    found = _kinds()
    if kind not in found:
        raise ModelError(f"decoder kind: {kind!r} is not known; there are: {', '.join(sorted(found))}")
    return found[kind].load()


def check_settings(kind: str, model: type[BaseModel], settings: Mapping[str, Any]) -> BaseModel:
    """The settings of a kind. Raises ModelError that names the key, the value and what is allowed."""
    try:
        return model.model_validate(dict(settings))
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            key = ".".join(str(part) for part in fault["loc"])
            if fault["type"] == "extra_forbidden":
                faults.append(f"{key}: unknown; {kind} has: {', '.join(model.model_fields)}")
            else:
                faults.append(f"{key}: {fault['msg']}; got {fault['input']!r}")
        raise ModelError(f"settings of {kind!r}: " + "; ".join(faults)) from error


def check_same(state: Mapping[str, Any], kind: str, **named: Sequence[str]) -> None:
    """Raise ModelError unless a state dict is of this kind, and of the classes or targets given by that name."""
    for name, expected in {"kind": kind, **{key: list(names) for key, names in named.items()}}.items():
        if state.get(name) != expected:
            raise ModelError(f"decoder state: expected {name} {expected!r}, got {state.get(name)!r}")


def digest(decoder: Decoder) -> str:
    """`sha256:...` over everything in the decoder's state dict; equal states, equal digests."""
    total = hashlib.sha256()
    for key, value in sorted(decoder.state_dict().items()):
        if isinstance(value, np.ndarray):
            array = np.ascontiguousarray(value)
            total.update(f"{key}:{array.dtype.str}:{array.shape}:".encode())
            total.update(array.data if array.size else b"")
        else:
            total.update(f"{key}:{json.dumps(value, sort_keys=True)}:".encode())
    return f"sha256:{total.hexdigest()}"


@runtime_checkable
class Encoder(Protocol):
    """An encoder that answers every stimulus frame with the rates that it expects, and learns from the spikes."""

    kind: str
    cells: tuple[str, ...]

    def predict(self, stimulus: Any) -> NDArray[np.floating[Any]]:
        """Expected spikes of each cell in the newest frame, (cells,).

        stimulus: a frame, or the window of all frames since the last call, oldest first.
        """

    def learn(self, stimulus: Any, counts: Any) -> None:
        """Take the stimulus in as `predict` does, and learn from the spikes of each cell in it, (cells,)."""

    def reset(self) -> None:
        """A hole in the stimulus or a run's start: forget the frames and spikes before. What was learned stays."""

    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: dict[str, Any]) -> None: ...
