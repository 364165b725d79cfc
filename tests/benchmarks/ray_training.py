"""What an epoch of training costs that several nodes share: `lfr` pretraining, by bins and by nodes.

The time is that from epoch to epoch, without the start of the processes (seconds, the same for any length). On n nodes
an epoch takes, on paper, alone / n + steps * exchange: each node computes its part of every batch, then gradients and
targets are added up. `exchange` is what two nodes here took beyond half of one, the two sharing this machine's memory
and cores; over a network, each step sends twice the gradients, whose size is printed, and waits 2 (n - 1) times for its
latency. The nodes share this machine: with more nodes than free cores, its cores are what is measured.
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

UNITS, BATCH, STRIDE, EPOCHS = 96, 512, 5, 3
BACKBONE: dict[str, Any] = {"bins": 25, "width": 128}
BEYOND = (2, 4, 8, 16)  # nodes


class Epochs(NamedTuple):
    """seconds: of one epoch, the mean of those after the first. start: until the first one has ended."""

    seconds: float
    start: float


def write_job(folder: Path, bins: int, workers: int) -> None:
    labels = np.full(bins, -1)  # but for 40 trials, up to the end: the head is not what is measured
    for trial in range(40):
        labels[(trial + 1) * bins // 40 - 50 : (trial + 1) * bins // 40] = trial % 2
    np.savez(
        folder / "input.npz",
        rates=np.random.default_rng(1).poisson(5.0, (bins, UNITS)).astype(np.float32),
        labels=labels,
    )
    training = {"pretrain_epochs": EPOCHS, "batch": BATCH, "stride": STRIDE, "head_epochs": 1, "workers": workers}
    settings = BACKBONE | {"training": training}
    asked = {"name": "backbone", "kind": "lfr", "source": {"arrays": "a.npz"}, "settings": settings, "held_out": 0.01}
    (folder / "job.json").write_text(json.dumps({"id": "benchmark", "request": asked}))


def epochs(executor: Executor, bins: int, workers: int) -> Epochs:
    """Of a fit to so many bins by so many processes."""
    ended: list[float] = []

    def heard(message: Message) -> None:
        if isinstance(message, Progress):
            ended.append(time.perf_counter())

    with tempfile.TemporaryDirectory() as name:
        write_job(Path(name), bins, workers)
        began = time.perf_counter()
        asyncio.run(executor.run(Path(name), lambda *_: None, heard))
    return Epochs((ended[EPOCHS - 1] - ended[0]) / (EPOCHS - 1), ended[0] - began)


def steps(bins: int) -> int:
    """Of an epoch, about."""
    return math.ceil(bins / STRIDE / BATCH)


def report(bins: Sequence[int], times: dict[tuple[int, int], Epochs]) -> str:
    """times: by bins and nodes; 0 nodes is `engine: local`."""
    lines = ["bins       steps     local s    1 node s   2 nodes s   first epoch s"]
    for count in bins:
        one = "".join(f"{times[count, nodes].seconds:12.2f}" for nodes in (0, 1, 2))
        lines.append(f"{count:<10} {steps(count):5}{one}{times[count, 2].start:15.1f}")
    most = max(bins)
    alone, shared = times[most, 0].seconds, times[most, 2].seconds
    exchange = max(0.0, (shared - alone / 2) / steps(most))
    backbone = make_backbone(LFRSettings.model_validate(BACKBONE), UNITS, 0)
    megabytes = sum(4 * one.numel() for one in backbone.parameters()) / 1e6
    lines.append(f"exchange {1e3 * exchange:.1f} ms a step; gradients of the backbone {megabytes:.2f} MB")
    for nodes in BEYOND:
        seconds = alone / nodes + steps(most) * exchange
        lines.append(
            f"{most} bins on {nodes:2} nodes: {seconds:6.2f} s an epoch on paper, {alone / seconds:4.1f} times"
        )
    return "\n".join(lines)
