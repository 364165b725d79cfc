"""What an epoch of training costs that nodes share: pretraining of `lfr`, and `gsnn`, by amount of data and by nodes.

The time is that from epoch to epoch, without the start of the processes (seconds, the same for any length). On n nodes
an epoch takes, on paper, alone / n + steps * exchange: each node computes its part of every batch, then gradients and
targets are added up. `exchange` is what two nodes here took beyond half of one, the two sharing this machine's memory
and cores; over a network, each step sends twice the gradients, whose size is printed for the backbone of `lfr`, and
waits 2 (n - 1) times for its latency. The nodes share this machine: with more nodes than free cores, its cores are
what is measured.
"""

from __future__ import annotations

import asyncio
import json
import math
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from neuroloop.models.backbones_torch import make_backbone
from neuroloop.models.lfr_settings import LFRSettings
from neuroloop.training.executor import Executor
from neuroloop.training.messages import Message, Progress

KINDS = ("lfr", "gsnn")
UNITS, BATCH, STRIDE, EPOCHS = 96, 512, 5, 3
BACKBONE: dict[str, Any] = {"bins": 25, "width": 128}
CLUSTERS = {"kind": "clusters", "clusters": [list(range(first, first + 8)) for first in range(0, UNITS, 8)]}
BEYOND = (2, 4, 8, 16)  # nodes


class Epochs(NamedTuple):
    """seconds: of one epoch, the mean of those after the first. start: until the first one has ended."""

    seconds: float
    start: float


def write_job(folder: Path, kind: str, amount: int, workers: int) -> None:
    """amount: of bins for lfr, of samples for gsnn."""
    rates = np.random.default_rng(1).poisson(5.0, (amount, UNITS)).astype(np.float32)
    if kind == "lfr":
        labels = np.full(amount, -1)  # but for 40 trials, up to the end: the head is not what is measured
        for trial in range(40):
            labels[(trial + 1) * amount // 40 - 50 : (trial + 1) * amount // 40] = trial % 2
        training = {"pretrain_epochs": EPOCHS, "batch": BATCH, "stride": STRIDE, "head_epochs": 1, "workers": workers}
        arrays, settings = {"rates": rates, "labels": labels}, BACKBONE | {"training": training}
    else:
        training = {"epochs": EPOCHS, "batch": BATCH, "validation": 0.0, "workers": workers}
        arrays = {"trials": rates, "labels": np.arange(amount) % 4}
        settings = {"graph": CLUSTERS, "training": training}
    np.savez(folder / "input.npz", **arrays)
    asked = {"name": "shared", "kind": kind, "source": {"arrays": "a.npz"}, "settings": settings, "held_out": 0.01}
    (folder / "job.json").write_text(json.dumps({"id": "benchmark", "request": asked}))


def epochs(executor: Executor, kind: str, amount: int, workers: int) -> Epochs:
    """Of a fit to so much by so many processes."""
    ended: list[float] = []

    def heard(message: Message) -> None:
        if isinstance(message, Progress):
            ended.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as name:
        write_job(Path(name), kind, amount, workers)
        began = time.perf_counter()
        asyncio.run(executor.run(Path(name), lambda *_: None, heard))
    return Epochs((ended[EPOCHS - 1] - ended[0]) / (EPOCHS - 1), ended[0] - began)


def steps(kind: str, amount: int) -> int:
    """Of an epoch, about."""
    return math.ceil(amount / (STRIDE if kind == "lfr" else 1) / BATCH)


def report(kind: str, amounts: Sequence[int], times: dict[tuple[str, int, int], Epochs]) -> str:
    """times: by kind, amount and nodes; 0 nodes is `engine: local`."""
    lines = [f"{kind:10} steps     local s    1 node s   2 nodes s   1 / 2 nodes   first epoch s"]
    for amount in amounts:
        one = "".join(f"{times[kind, amount, nodes].seconds:12.2f}" for nodes in (0, 1, 2))
        gain = times[kind, amount, 1].seconds / times[kind, amount, 2].seconds
        lines.append(f"{amount:<10} {steps(kind, amount):5}{one}{gain:14.2f}{times[kind, amount, 2].start:16.1f}")
    most = max(amounts)
    alone, shared = times[kind, most, 1].seconds, times[kind, most, 2].seconds
    exchange = max(0.0, (shared - alone / 2) / steps(kind, most))
    lines.append(f"exchange {1e3 * exchange:.1f} ms a step")
    if kind == "lfr":
        backbone = make_backbone(LFRSettings.model_validate(BACKBONE), UNITS, 0)
        megabytes = sum(4 * one.numel() for one in backbone.parameters()) / 1e6
        lines.append(f"gradients of the backbone {megabytes:.2f} MB")
    for nodes in BEYOND:
        seconds = alone / nodes + steps(kind, most) * exchange
        lines.append(f"{most} on {nodes:2} nodes: {seconds:6.2f} s an epoch on paper, {alone / seconds:4.1f} times")
    return "\n".join(lines)
