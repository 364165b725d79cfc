"""A search over settings: what each candidate came to, and which of them becomes the version.

Every combination of the values is a candidate, a fit like any other. All are measured on the same held-out blocks, and
the best by the request's metric is taken, of equals the first; one whose fit fails is noted, and loses. That the best
was chosen by what is held out makes its own figure a little too good: the more so, the more candidates and the fewer
held-out trials there are.

With `engine: local` they are fitted one after another, with `engine: ray` as tasks over the nodes. Not by Ray Tune,
which would bring pandas, pyarrow, tensorboardX and its own checkpoints, for what a task for each candidate does too;
a search that ends bad candidates early would want it.
"""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from neuroloop.errors import ModelError
from neuroloop.training.arrays import read as read_arrays
from neuroloop.training.job import RESULT, WEIGHTS, candidate_name, write_whole
from neuroloop.training.request import FitRequest


def keep(path: Path, weights: bytes, result: dict[str, Any]) -> None:
    """Write what the fit of a candidate made, as an NPZ file."""
    file = io.BytesIO()
    np.savez(file, weights=np.frombuffer(weights, np.uint8), result=np.array(json.dumps(result, allow_nan=False)))
    write_whole(path, file.getvalue())


def keep_failure(path: Path, detail: str) -> None:
    """The same for one that made nothing."""
    keep(path, b"", {"failed": detail})


def done(request: FitRequest, folder: Path) -> list[int]:
    """The candidates whose fits are behind, by number."""
    return [number for number in range(len(request.candidates)) if (folder / candidate_name(number)).exists()]


def settle(request: FitRequest, folder: Path) -> None:
    """Write weights and result of the best, with the scores of all in its lineage. Raises ModelError where none is."""
    weights, results = [], []
    for number in range(len(request.candidates)):
        content = read_arrays(folder / candidate_name(number))
        weights.append(content["weights"].tobytes())
        results.append(json.loads(str(content["result"])))
    scores = [result.get("metrics", {}).get(request.gate) for result in results]
    scored = [number for number, score in enumerate(scores) if score is not None]
    if not scored:
        why = next((result["failed"] for result in results if "failed" in result), "nothing was held out")
        raise ModelError(f"search: none of {len(results)} candidates has a {request.gate}; the first: {why}")
    chosen = max(scored, key=lambda number: float(scores[number]))
    tried = [
        {"settings": settings, **{name: result[name] for name in ("metrics", "failed") if name in result}}
        for settings, result in zip(request.searched, results, strict=True)
    ]
    best = results[chosen]
    best["training"]["search"] = {"metric": request.gate, "chosen": chosen, "candidates": tried}
    write_whole(folder / WEIGHTS, weights[chosen])
    write_whole(folder / RESULT, json.dumps(best, allow_nan=False).encode())
