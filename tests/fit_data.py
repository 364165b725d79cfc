"""Several runs of a recording as the arrays of one fit."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.training import recordings
from neuroloop.training.request import FitRequest

Arrays = dict[str, NDArray[Any]]


def read_runs(
    sources: Sequence[tuple[Path, int | None]], kind: str, recording: dict[str, Any], classes: list[str] | None = None
) -> Arrays:
    """Bins and labels of all runs, one after the other. sources: path, and run in it. recording: how they are made."""
    parts = []
    for path, run in sources:
        source = {"recording": recording | {"name": path.name, "run": run}}
        asked = FitRequest.model_validate({"name": "runs", "kind": kind, "source": source, "classes": classes})
        parts.append(recordings.read(path, asked))
    data = {key: parts[0][key] for key in ("classes", "channels")}
    data |= {key: np.concatenate([part[key] for part in parts]) for key in ("rates", "labels", "usable")}
    numbers = [np.where(part["labels"] < 0, -1, 1000 * n + part["trial_numbers"]) for n, part in enumerate(parts)]
    return data | {"trial_numbers": np.concatenate(numbers)}


def request(kind: str, **more: Any) -> FitRequest:
    """A fit of arrays."""
    return FitRequest.model_validate({"name": "runs", "kind": kind, "source": {"arrays": "runs.npz"}} | more)
