"""Where on its track a rat is and which way it runs, from 31 hippocampal units: every decoder, and few labels or many.

    hc_linear_track.npz, half seconds of running, 4 places x 2 directions, in bins of 0.1 s

Ten contiguous folds, in time: each is scored by decoders fitted on the others, with the server's own fits, at their
defaults but for what `rows` says. Nothing is shuffled; a window lies within one half second, and none straddles the
seam where a fold was taken out. A share of the labels is a run of neighbouring windows of the training that begins
anywhere, by the seed; what is not among them stays in the data without a label, for learning from randomness. Mean and
standard deviation over seeds; a kind that takes no chances has one figure with all labels. By guessing: 0.125.

    poisson, logistic, lda  the mean of a window's 5 bins
    gsnn                    the same; a hub for each tetrode, which is a pathway where pathways are regularised: of six,
                            two have a single unit, which has nothing to go together with
    lfr                     the window's 5 bins one by one; pretrained on every bin of the training folds, or not at all
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
import time
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.training import recordings
from neuroloop.training.process import fit
from neuroloop.training.request import FitRequest

FILE = "hc_linear_track.npz"
BIN_MS, WINDOW = 100.0, 5
SEAM_S = 10.0  # between parts that are put together; any hole will do
SHARES = (0.1, 0.25, 1.0)

Arrays = dict[str, NDArray[Any]]


@dataclass(frozen=True)
class Row:
    """A decoder and how it is fitted. by_chance: whether the seed matters when all labels are there."""

    name: str
    kind: str
    settings: Mapping[str, Any]
    by_chance: bool = True


def rows(tetrodes: NDArray[Any]) -> list[Row]:
    """tetrodes: that each unit was recorded with, (units,)."""
    clusters = [np.flatnonzero(tetrodes == one).tolist() for one in np.unique(tetrodes)]
    graph = {"kind": "clusters", "clusters": clusters}
    backbone = {"bins": WINDOW, "kernel": 2, "depth": 2}
    return [
        Row("poisson", "poisson", {}, by_chance=False),
        Row("logistic", "logistic", {}, by_chance=False),
        Row("lda", "lda", {}, by_chance=False),
        Row("gsnn", "gsnn", {"graph": graph, "training": {"lambda_sim": 0.0}}),
        Row("gsnn, pathways regularised", "gsnn", {"graph": graph, "training": {"lambda_sim": 0.1}}),
        Row("lfr, pretrained, then the head", "lfr", backbone | {"training": {"pretrain_epochs": 10}}),
        Row(
            "lfr, pretrained, then both",
            "lfr",
            backbone | {"training": {"pretrain_epochs": 10, "tune_epochs": 40}},
        ),
        Row("lfr, from scratch", "lfr", backbone | {"training": {"pretrain_epochs": 0, "tune_epochs": 40}}),
    ]


def asked(kind: str, source: Mapping[str, Any], **more: Any) -> FitRequest:
    return FitRequest.model_validate({"name": "position", "kind": kind, "source": source} | more)


def read(path: Path) -> Arrays:
    """Bins of the whole recording; each labelled half second is a trial."""
    source = {"name": path.name, "rate": 1000 / BIN_MS, "bin_ms": BIN_MS, "interval": (0.0, WINDOW * BIN_MS / 1000)}
    return recordings.read(path, asked("poisson", {"recording": source}))


def folds(arrays: Arrays, count: int) -> list[tuple[int, int]]:
    """First bin of each contiguous fold, and the bin after its last: parts of as many trials each."""
    begins = np.flatnonzero(np.diff(np.where(arrays["labels"] < 0, -1, arrays["trial_numbers"]), prepend=-1))
    begins = begins[arrays["labels"][begins] >= 0]
    firsts = [int(part[0]) for part in np.array_split(begins, count)]
    return list(zip(firsts, [*firsts[1:], len(arrays["labels"])], strict=True))


def split(arrays: Arrays, fold: tuple[int, int], share: float, seed: int) -> tuple[Arrays, float]:
    """Arrays whose last trials are those of the fold, and the share of these; of the others a share has labels."""
    first, last = fold
    parts = [part for part in (slice(0, first), slice(last, None), slice(first, last)) if len(arrays["labels"][part])]
    per_bin = ("rates", "labels", "usable", "trial_numbers")
    joined = arrays | {name: np.concatenate([arrays[name][part] for part in parts]) for name in per_bin}
    seams = np.repeat(SEAM_S * np.arange(len(parts)), [len(arrays["labels"][part]) for part in parts])
    labels = joined["labels"].copy()
    joined |= {"times": np.arange(len(labels)) * BIN_MS / 1000 + seams, "labels": labels}
    learned = labels[: len(labels) - (last - first)]  # a view
    trials = joined["trial_numbers"][: len(learned)]
    known = list(dict.fromkeys(trials[learned >= 0].tolist()))
    count = round(share * len(known))
    begin = int(np.random.default_rng(seed).integers(len(known) - count + 1))
    learned[~np.isin(trials, known[begin : begin + count])] = -1
    scored = len(np.unique(joined["trial_numbers"][len(learned) :][labels[len(learned) :] >= 0]))
    return joined, scored / (scored + count)


def accuracy(arrays: Arrays, row: Row, parts: Sequence[tuple[int, int]], share: float, seed: int) -> float:
    """Over all trials of all folds."""
    right = scored = 0.0
    for part in parts:
        joined, held_out = split(arrays, part, share, seed)
        request = asked(row.kind, {"arrays": FILE}, settings=dict(row.settings), held_out=held_out, seed=seed)
        fitted = fit(request, joined, lambda progress, loss: None)
        right += fitted.metrics["accuracy"] * fitted.amounts["held_out_samples"]
        scored += fitted.amounts["held_out_samples"]
    return right / scored


def main() -> None:
    shown = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks position", description=__doc__, formatter_class=shown
    )
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--folds", type=int, default=10)
    parser.add_argument("--shares", type=float, nargs="+", default=SHARES, help="of the labels of the training folds")
    parser.add_argument("--only", nargs="+", help="rows whose names begin with one of these")
    options = parser.parse_args(sys.argv[2:])
    path = Path(os.environ.get("NEUROLOOP_DATA", "")) / FILE
    if not path.is_file():
        raise SystemExit(f"NEUROLOOP_DATA names no folder with {FILE}")
    logging.getLogger("neuroloop").setLevel(logging.ERROR)  # each fit would say which tetrodes have a single unit
    warnings.filterwarnings("ignore", "Only one sample available")  # of a class, among few labels
    arrays = read(path)
    parts = folds(arrays, options.folds)
    with np.load(path, allow_pickle=False) as archive:
        chosen = rows(archive["tetrode"])
    windows = len(np.unique(arrays["trial_numbers"][arrays["labels"] >= 0]))
    print(f"{windows} windows of {WINDOW * BIN_MS / 1000:g} s, {options.folds} folds, {options.seeds} seeds\n")
    heads = [f"{share:.0%} of the labels" if share < 1 else "all labels" for share in options.shares]
    print(f"| decoder | {' | '.join(heads)} | s per fit |\n|---|{'---:|' * (len(heads) + 1)}", flush=True)
    for row in chosen:
        if options.only and not row.name.startswith(tuple(options.only)):
            continue
        cells, begun, fits = [], time.perf_counter(), 0
        for share in options.shares:
            seeds = range(options.seeds if row.by_chance or share < 1 else 1)
            found = [accuracy(arrays, row, parts, share, seed) for seed in seeds]
            fits += len(found) * len(parts)
            cells.append(f"{np.mean(found):.3f}" + (f" ± {np.std(found, ddof=1):.3f}" if len(found) > 1 else ""))
        print(f"| {row.name} | {' | '.join(cells)} | {(time.perf_counter() - begun) / fits:.2f} |", flush=True)
