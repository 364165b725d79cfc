"""Works are measured in processes of their own, one per interpreter, that take turns.

A worker reads requests from its standard input and answers on its standard output, a line of JSON each:

    {"do": "prepare", "name": W, "file": F}   make W, warm it up, save its results to F      {}
    {"do": "time", "name": W, "seconds": S}   repeat W's step for so long                    {"ms": [...]}
    {"do": "parts", "name": W}                times of its parts, where it tells             {"parts": {...}}
    {"do": "drop"}                            free what was prepared                         {}

It begins with {"versions": {...}}. Whatever a library prints from then on goes to standard error.
Numpy and the standard library only: the peers' interpreters have no more in common.
"""

import gc
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ONE_THREAD = {f"{library}_NUM_THREADS": "1" for library in ("OMP", "OPENBLAS", "MKL", "NUMBA")}
FEWEST = 5  # steps, however long they take, but for those
LONG_S = 0.3  # or longer, of which one is enough


@dataclass(frozen=True)
class Work:
    """step: what is timed. results: arrays to be compared with the other side's. parts: milliseconds by name.

    steps: how many such steps the work has, all alike; times are those of one, as often.
    """

    step: Callable[[], object]
    results: Mapping[str, Any]
    parts: Callable[[], Mapping[str, float]] = field(default=dict)
    steps: int = 1


class WorkerError(Exception):
    """What a worker said, or that it ended."""


class Worker:
    """A running worker process. packages: names and versions of what it measures.

    module: one of the repository, or of the folder.
    """

    def __init__(self, module: str, python: str, folder: Path = ROOT) -> None:
        self._errors = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the worker
        path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
        self._process = subprocess.Popen(
            [python, "-m", module],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            cwd=folder,
            env=os.environ | ONE_THREAD | {"PYTHONPATH": path},
        )
        self.packages: dict[str, str] = self._answer()["versions"]

    def ask(self, **request: Any) -> dict[str, Any]:
        """Raises WorkerError with what went wrong there."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait(20)
        self._errors.close()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        while line and not line.startswith("{"):  # what a library prints when it is imported
            line = self._process.stdout.readline()
        if not line:
            self._process.wait(20)
            self._errors.seek(0)
            said = self._errors.read().decode(errors="replace").strip()
            self.close()
            raise WorkerError(said.rpartition("\n")[2] or f"ended with {self._process.returncode}")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer


def times_ms(step: Callable[[], object], seconds: float) -> list[float]:
    """Of each of the steps that fit into so many seconds."""
    taken: list[float] = []
    gc.collect()
    gc.disable()
    until = time.perf_counter() + seconds
    while len(taken) < (FEWEST if max(taken, default=0.0) < 1000 * LONG_S else 1) or time.perf_counter() < until:
        start = time.perf_counter_ns()
        step()
        taken.append((time.perf_counter_ns() - start) / 1e6)
    gc.enable()
    return taken


def median_ms(step: Callable[[], object], seconds: float = 0.3) -> float:
    return statistics.median(times_ms(step, seconds))


def serve(packages: Sequence[str], works: Mapping[str, Callable[[], Work]]) -> None:
    """Answer requests until standard input ends. works: by name, what makes each."""
    said = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    said.write(json.dumps({"versions": {package: version(package) for package in packages}}) + "\n")
    prepared: dict[str, Work] = {}
    for line in sys.stdin:
        try:
            answer = _answer(json.loads(line), works, prepared)
        except Exception as error:  # noqa: BLE001 - told to the one who asked
            answer = {"error": f"{type(error).__name__}: {error}"}
        said.write(json.dumps(answer) + "\n")


def _answer(
    request: dict[str, Any], works: Mapping[str, Callable[[], Work]], prepared: dict[str, Work]
) -> dict[str, Any]:
    match request["do"]:
        case "prepare":
            import numpy as np

            work = prepared[request["name"]] = works[request["name"]]()
            np.savez(request["file"], **work.results)
            return {}
        case "time":
            work = prepared[request["name"]]
            return {"ms": [work.steps * taken for taken in times_ms(work.step, request["seconds"])]}
        case "parts":
            return {"parts": dict(prepared[request["name"]].parts())}
        case _:
            prepared.clear()
            return {}
