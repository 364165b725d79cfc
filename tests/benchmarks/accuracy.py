"""How well every kind of decoder that a fit can make does on real recordings, offline.

The rates, the labels and the fits are the server's own; what is scored was not learned from. Bands were chosen by
leaving out one training run at a time. Chance is 1 / classes. The recordings are those that NEUROLOOP_DATA names.

    ssvep   Muse headset, flicker at 20 or 30 Hz: runs 1-3 learned, 4-6 scored, windows of 1 s
    fists   64 channels, imagined fists or feet: R06 and R10 learned, R14 scored, 0.5 to 3.5 s after the cue
    places  31 hippocampal units, 4 places x 2 directions in half seconds of running: ten contiguous folds
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tests.fit_data import Arrays, read_runs, request

from neuroloop.config import BandpowerSettings, CountsSettings, CovarianceSettings, FrontEnd, check_kind
from neuroloop.errors import ModelError
from neuroloop.training.process import fit
from neuroloop.training.request import METRICS

KINDS = tuple(kind for kind, metrics in METRICS.items() if "accuracy" in metrics)
EEGBCI = Path("MNE-eegbci-data/files/eegmmidb/1.0.0/S001")
FLICKER = {"20 Hz": (19.0, 21.0), "30 Hz": (29.0, 31.0)}
RHYTHMS = {"mu": (8.0, 13.0), "low-beta": (13.0, 20.0), "high-beta": (20.0, 30.0)}


@dataclass(frozen=True)
class Task:
    """learned, scored: runs, as path and number. folds: of `learned`, instead of `scored`. window: in bins."""

    learned: Sequence[tuple[str, int | None]]
    front_ends: Mapping[str, FrontEnd]
    bin_ms: float
    interval: tuple[float, float]
    scored: Sequence[tuple[str, int | None]] = ()
    labels: dict[str, str] | None = None
    window: int | None = None
    folds: int = 0
    more: dict[str, Any] = field(default_factory=dict)


MUSE = "muse_ssvep_subject1.npz"
TASKS = {
    "ssvep": Task(
        learned=[(MUSE, run) for run in (0, 1, 2)],
        scored=[(MUSE, run) for run in (3, 4, 5)],
        front_ends={
            "relative": BandpowerSettings(bands=FLICKER, order=2, scale="relative"),
            "log": BandpowerSettings(bands=FLICKER, order=2, scale="log"),
            "covariance": CovarianceSettings(bands=FLICKER, order=2),
        },
        bin_ms=125,
        interval=(0.0, 3.0),
        window=8,
    ),
    "fists": Task(
        learned=[(f"{EEGBCI}/S001R{run}.edf", None) for run in ("06", "10")],
        scored=[(f"{EEGBCI}/S001R14.edf", None)],
        front_ends={
            "relative": BandpowerSettings(bands=RHYTHMS, scale="relative"),
            "log": BandpowerSettings(bands=RHYTHMS, scale="log"),
            "covariance": CovarianceSettings(bands={"mu-beta": (8.0, 30.0)}),
        },
        bin_ms=100,
        interval=(0.5, 3.5),
        labels={"T1": "fists", "T2": "feet"},
    ),
    "places": Task(
        learned=[("hc_linear_track.npz", None)],
        front_ends={"counts": CountsSettings()},
        bin_ms=20,
        interval=(0.0, 0.5),
        folds=10,
        more={"rate": 50},
    ),
}


def splits(task: Task, front_end: FrontEnd, kind: str, folder: Path) -> Iterator[tuple[Arrays, float]]:
    """Arrays whose last trials are those to be scored, and the share of these."""
    recording = {"front_end": front_end, "bin_ms": task.bin_ms, "interval": task.interval, "labels": task.labels}

    def read(runs: Sequence[tuple[str, int | None]]) -> Arrays:
        return read_runs([(folder / path, run) for path, run in runs], kind, recording | task.more)

    learned = read(task.learned)
    if not task.folds:
        scored = read(task.scored)
        scored["trial_numbers"] = np.where(scored["labels"] < 0, -1, scored["trial_numbers"] + 1_000_000)
        yield _joined(learned, scored)
        return
    for test in np.array_split(np.arange(len(learned["labels"])), task.folds):
        is_test = np.zeros(len(learned["labels"]), np.bool_)
        is_test[test] = True
        yield _joined(_bins(learned, ~is_test), _bins(learned, is_test))


def _bins(arrays: Arrays, chosen: Any) -> Arrays:
    return {name: array[chosen] if len(array) == len(chosen) else array for name, array in arrays.items()}


def _joined(learned: Arrays, scored: Arrays) -> tuple[Arrays, float]:
    counts = [len(np.unique(part["trial_numbers"][part["labels"] >= 0])) for part in (learned, scored)]
    per_bin = ("rates", "labels", "usable", "trial_numbers")
    return learned | {name: np.concatenate([learned[name], scored[name]]) for name in per_bin}, counts[1] / sum(counts)


def accuracy(task: Task, front_end: FrontEnd, kind: str, folder: Path, seed: int) -> float | None:
    """None where the kind does not take what the front end gives."""
    try:
        check_kind("kind", kind, front_end)
    except ValueError:
        return None
    right = scored = 0.0
    for arrays, share in splits(task, front_end, kind, folder):
        asked = request(kind, window=task.window, held_out=share, seed=seed)
        fitted = fit(asked, arrays, lambda progress, loss: None)
        right += fitted.metrics["accuracy"] * fitted.amounts["held_out_samples"]
        scored += fitted.amounts["held_out_samples"]
    return right / scored


def _cell(found: Sequence[float]) -> str:
    """Mean, and the standard deviation over seeds where there are several."""
    if not found:
        return "-"
    return f"{np.mean(found):.3f}" + (f" ± {np.std(found):.3f}" if len(found) > 1 else "")


def main() -> None:
    parser = argparse.ArgumentParser(prog="tests.benchmarks accuracy", description=__doc__)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=tuple(TASKS))
    parser.add_argument("--seeds", type=int, default=1, help="fits of each, of the kinds in which chance is at work")
    parser.add_argument("--front-ends", nargs="+", help="by their names; all by default")
    options = parser.parse_args(sys.argv[2:])
    folder = Path(os.environ.get("NEUROLOOP_DATA", ""))
    if not (folder / MUSE).is_file():
        raise SystemExit("NEUROLOOP_DATA names no folder of recordings")
    for name in options.tasks:
        task = TASKS[name]
        asked = options.front_ends or tuple(task.front_ends)
        front_ends = {key: front_end for key, front_end in task.front_ends.items() if key in asked}
        print(f"\n| {name} | {' | '.join(front_ends)} |\n|---|{'---:|' * len(front_ends)}")
        for kind in options.kinds:
            cells = []
            for front_end in front_ends.values():
                try:
                    found = [accuracy(task, front_end, kind, folder, seed) for seed in range(options.seeds)]
                    cells.append(_cell([one for one in found if one is not None]))
                except ModelError as error:
                    cells.append(str(error).partition(":")[0])
            print(f"| {kind} | {' | '.join(cells)} |", flush=True)
