"""What a fit makes, whatever its kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

# Told how much is done, in [0, 1], and the loss at that point where there is one.
Tell = Callable[[float, float | None], None]


@dataclass(frozen=True)
class Fitted:
    """weights: a file of the kind's form. about: what the registry says of it (settings, classes, ...).

    metrics: held-out figures, plain numbers. amounts: how much was learned from and held out. training: settings of the
    fit, every one, of the kinds that have them apart from the model's.
    """

    weights: bytes
    about: dict[str, Any]
    metrics: dict[str, float]
    amounts: dict[str, int] = field(default_factory=dict)
    training: dict[str, Any] = field(default_factory=dict)
