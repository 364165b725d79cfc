"""The fit process: reads a job's folder, fits, writes the result beside it, and says how far it is.

It ends when its standard input is closed, so it never outlives the server that started it. Everything that libraries
print goes to standard error: standard output is for messages alone.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

import numpy as np

from neuroloop import __version__, importing
from neuroloop.errors import ModelError, NeuroloopError
from neuroloop.models.continuous_settings import CONTINUOUS
from neuroloop.models.fitted_settings import FITTED
from neuroloop.models.kept import Stages, nowhere
from neuroloop.training import arrays, messages
from neuroloop.training.arrays import Arrays
from neuroloop.training.checkpoints import Checkpoint, digest_of
from neuroloop.training.fitted import Fitted, Tell
from neuroloop.training.job import FILE, INPUT, RECORDING, RESULT, WEIGHTS, candidate_name, load, part_name, write_whole
from neuroloop.training.request import FitRequest
from neuroloop.training.settings import workers_of

if TYPE_CHECKING:  # it imports PyTorch
    from neuroloop.models.team import Team

PACKAGES = ("numpy", "numba", "torch", "lightning", "safetensors", "scikit-learn")
ORPHANED = 3  # exit code

IN_EPOCHS = ("gsnn", "lfr", "gsnn_continuous")  # trained by one process or several
# By kind; the others are learned by `decoders`. Each imports what it needs, some of it heavy.
MODULES = {"lrr": "rereference", "lnp": "encoders"}
MODULES |= dict.fromkeys(CONTINUOUS, "continuous") | dict.fromkeys(FITTED, "fitted_decoders")
MODULES |= {kind: kind for kind in IN_EPOCHS}


class Shared(NamedTuple):
    """A fit that several processes share: which of them this is, how many they are, HOST:PORT where they meet."""

    rank: int
    size: int
    place: str


def main(folder: Path, only: int | None = None, shared: Shared | None = None) -> int:
    """Fit the job of a folder; returns the exit code. What whoever asked can put right is said in a message.

    only: of a job from several recordings, measure this one and write its part; of a search, fit this candidate.
    shared: with other processes, of which the first alone says how far it is, keeps checkpoints and writes the result;
    the others come to the same one, and forget it.
    """
    said = _own_output()
    threading.Thread(target=_end_with_input, name="input", daemon=True).start()

    def say(message: messages.Message) -> None:
        said.write(messages.write(message))
        said.flush()

    is_first = shared is None or shared.rank == 0
    report = Report(say) if is_first else Report(lambda _: None)
    try:
        job = load(folder)
        if job is None:
            raise ModelError(f"fit: {folder / FILE} cannot be read")
        request = job.request
        if request.source.recordings is not None and only is not None:
            from neuroloop.training import covariances

            covariances.keep(covariances.measure(request, folder, only), folder / part_name(only))
            return 0
        _prepare(request.kind)
        if request.search is not None:
            _search(request, folder, report, only, shared)
            return 0
        weights, document = _carry_out(request, folder, read(request, folder), report, shared)
        if is_first:
            write_whole(folder / WEIGHTS, weights)
            write_whole(folder / RESULT, json.dumps(document, allow_nan=False).encode())
    except messages.Parted as error:
        print(error, file=sys.stderr)
        return messages.PARTED
    except NeuroloopError as error:
        say(messages.Failed(detail=str(error)))
        return 1
    return 0


@dataclass(frozen=True)
class Report:
    """What is said of a fit, or of a candidate, whose progress is a share of the whole; losses only of the whole."""

    say: Callable[[messages.Message], None]
    begins: float = 0.0
    share: float | None = None

    def tell(self, progress: float, loss: float | None) -> None:
        self.say(messages.Progress(progress=self._of_all(progress), loss=loss if self.share is None else None))

    def go_on(self, told: list[tuple[float, float | None]]) -> None:
        """From a checkpoint before which this was told."""
        progress = max((progress for progress, _ in told), default=0.0)
        self.say(messages.Resumed(progress=self._of_all(progress)))
        for one in told:
            self.tell(*one)

    def _of_all(self, progress: float) -> float:
        return progress if self.share is None else min(1.0, self.begins + self.share * progress)


def _carry_out(
    request: FitRequest, folder: Path, data: Arrays | None, report: Report, shared: Shared | None
) -> tuple[bytes, dict[str, Any]]:
    """The weights, and what the registry is to know of them; from the checkpoint in the folder if it is of this fit."""
    if data is None:
        from neuroloop.training import covariances

        fitted, of_data = covariances.fit(request, folder, report.tell)
        return fitted.weights, result(request, of_data, fitted)
    of_data = digest(data)
    checkpoint = Checkpoint(folder, digest_of(request, of_data))
    if checkpoint.read():
        report.go_on(checkpoint.told)
    with _team(request, shared) as team:
        stages = checkpoint.stage if team is None or team.rank == 0 else checkpoint.reading
        fitted = fit(request, data, checkpoint.noting(report.tell), stages, team)
    return fitted.weights, result(request, of_data, fitted)


def _search(request: FitRequest, folder: Path, report: Report, only: int | None, shared: Shared | None) -> None:
    """Fit the candidates that are not yet, and choose; only: fit this one, and leave what it came to. See `search`."""
    from neuroloop.training import search

    data, candidates, behind = read(request, folder), request.candidates, search.done(request, folder)
    if behind and only is None:
        report.go_on([(len(behind) / len(candidates), None)])
    for number in (only,) if only is not None else range(len(candidates)):
        path, share = folder / candidate_name(number), 1 / len(candidates)
        part = Report(report.say, number * share, share)
        if number not in behind:
            try:
                weights, document = _carry_out(candidates[number], folder, data, part, shared)
                failure = None
            except messages.Parted:
                raise
            except ModelError as error:
                failure = str(error)
            if shared is not None and shared.rank:
                continue
            if failure is None:
                search.keep(path, weights, document)
            else:
                search.keep_failure(path, failure)
        part.tell(1.0, None)
    if only is None:
        search.settle(request, folder)


@contextmanager
def _team(request: FitRequest, shared: Shared | None) -> Iterator[Team | None]:
    """Those who share the fit; None where it is not shared. Raises ModelError where it is to be, and is not."""
    workers, size = workers_of(request), 1 if shared is None else shared.size
    if workers != size:
        raise ModelError(f"training.workers: expected {workers} processes that share the fit, got {size}; engine: ray")
    if shared is None:
        yield None
        return
    from neuroloop.training.meeting import met  # and PyTorch

    with met(shared.rank, shared.size, shared.place) as team:
        yield team


def read(request: FitRequest, folder: Path) -> Arrays | None:
    """The data of a job; None of one that reads its recordings itself, some seconds at a time."""
    if request.source.arrays is not None or request.source.live is not None:
        return arrays.read(folder / INPUT)
    if request.kind == "lrr":
        return None
    from neuroloop.training import recordings

    return recordings.read(next(folder.glob(f"{RECORDING}.*")), request)


def fit(request: FitRequest, data: Arrays, tell: Tell, stages: Stages = nowhere, team: Team | None = None) -> Fitted:
    """The fit of the request's kind.

    stages: where those that train in epochs keep their states. The others are through soon, and begin anew.
    team: those who share it, of the kinds that can be.
    """
    arrays.check(request.kind, {name: arrays.Header(array.shape, array.dtype) for name, array in data.items()})
    kind = _module(request.kind)
    fitted: Fitted
    if request.kind in IN_EPOCHS:
        fitted = kind.fit(request, data, tell, stages, **({} if team is None else {"team": team}))
    elif request.kind == "lnp":
        fitted = kind.fit(request, data, tell, stages)
    else:
        fitted = kind.fit(request, data, tell)
    return fitted


def _module(kind: str) -> ModuleType:
    return import_module(f"neuroloop.training.{MODULES.get(kind, 'decoders')}")


def _prepare(kind: str) -> None:
    """Import what fits of a kind need."""
    with importing.for_good():
        _module(kind)
        if "torch" in sys.modules:
            import_module("torch._dynamo")  # as an optimiser's first step does


def result(request: FitRequest, of_data: str, fitted: Fitted) -> dict[str, Any]:
    """What the registry is to know: what was made, out of what, by what, and how good it is.

    of_data: their digest.
    """
    return {
        "kind": request.kind,
        **fitted.about,
        "metrics": {name: value if np.isfinite(value) else None for name, value in fitted.metrics.items()},
        "training": {
            "digest": of_data,
            "source": request.source.model_dump(mode="json", by_alias=True, exclude_none=True),
            "seed": fitted.training.get("seed", request.seed),
            "held_out": request.held_out,
            "window": request.window,
            **({"settings": fitted.training} if fitted.training else {}),
            **fitted.amounts,
            "packages": {"neuroloop": __version__} | _versions(),
        },
    }


def digest(data: Arrays) -> str:
    """`sha256:...` over all arrays, their names, types and shapes."""
    total = hashlib.sha256()
    for name in sorted(data):
        array = np.ascontiguousarray(data[name])
        total.update(digest_head(name, array.dtype, array.shape))
        total.update(array.tobytes() if array.dtype.kind == "U" else array.data if array.size else b"")
    return f"sha256:{total.hexdigest()}"


def digest_head(name: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> bytes:
    """What stands for an array in `digest`, before its values."""
    return f"{name}:{dtype.str}:{shape}:".encode()


def _versions() -> dict[str, str]:
    """Of the packages that were at work."""
    modules = {"scikit-learn": "sklearn"}
    return {name: importlib.metadata.version(name) for name in PACKAGES if modules.get(name, name) in sys.modules}


def _own_output() -> BinaryIO:
    """Standard output for messages alone; what others print goes to standard error from now on."""
    own = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return own


def _end_with_input() -> None:
    """Whoever started this process holds its standard input open."""
    while os.read(0, 4096):
        continue
    os._exit(ORPHANED)
