"""What a training loop goes on from after an interruption: its state after an epoch, kept by whoever calls it.

A state is made of maps, lists, tuples, numbers, strings, None and tensors: parameters, optimiser, random generators,
the epoch, the best so far. A loop hands it over after each epoch, and asks for it before its first; it may go on
changing the tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

State = dict[str, Any]


def _nothing() -> State | None:
    return None


def _forget(_state: State) -> None:
    return None


@dataclass(frozen=True)
class Kept:
    """Where one loop keeps its state. By default nowhere."""

    load: Callable[[], State | None] = _nothing
    save: Callable[[State], None] = _forget


# Where each loop of a fit keeps its state, by the name of the loop.
Stages = Callable[[str], Kept]


def nowhere(_stage: str) -> Kept:
    return Kept()
