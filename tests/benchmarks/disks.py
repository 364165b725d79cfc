"""What a disk does to the loop while a session records: the latency with none, a good, slow, full and deleted file.

Each row is a session of its own, on the same noise. Rounds are taken in turn, and the median of their figures is told.
The slow disk takes a share of what comes (`tests/disks.py` throttles the writes of the recorder), so the recorder is
behind all the time and loses samples; the full one is a small file system in memory; the deleted file goes half-way.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table
from tests.benchmarks.recording import Recorded, record
from tests.disks import Throttle, small_disk

from neuroloop.logs import configure_log

DISKS = ("none", "good", "slow", "full", "deleted")
SLOW_SHARE = 0.25  # of the stream's bytes that the slow disk takes
FULL_S = 3.0  # of the stream that the full disk takes
FIGURES = ("process_p50_ms", "process_p99_ms", "missed_bins", "missing_samples", "lost_samples")


@contextmanager
def environment(variables: dict[str, str]) -> Iterator[None]:
    """Of processes that are started within the block."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


async def measure(disk: str, channels: int, rate: float, seconds: float) -> dict[str, Any]:
    """What was seen of one session."""
    bytes_a_second = channels * rate * 4
    settings = {"recording": {"automatic": disk != "none", "least_free_mb": 0}}
    meanwhile: Callable[[Recorded], Awaitable[None]] | None = None
    with tempfile.TemporaryDirectory() as folder:
        files = Path(folder) / "recordings"
        throttle = Throttle(Path(folder))
        if disk == "slow":
            throttle.set(str(bytes_a_second * SLOW_SHARE))

        async def delete(session: Recorded) -> None:
            await session.until(int(seconds * 25))
            next(files.glob("*.xdf")).unlink()

        if disk == "deleted":
            meanwhile = delete
        size = int(bytes_a_second * FULL_S) if disk == "full" else int(bytes_a_second * seconds * 2)
        with small_disk(files, f"{size // 1024}k") as is_mounted, environment(throttle.environment):
            if disk == "full" and not is_mounted:
                return {"events": ["no file system can be mounted here"]}
            _, seen = await record(
                files, channels, rate, seconds, pattern="noise", settings=settings, meanwhile=meanwhile
            )
    return seen


def table(rows: dict[str, list[dict[str, Any]]], title: str) -> Table:
    told = Table("recording", *FIGURES, "events", title=title)
    for disk, seen in rows.items():
        figures = [
            f"{float(np.median([one[key] for one in seen])):g}" if all(key in one for one in seen) else "-"
            for key in FIGURES
        ]
        told.add_row(disk, *figures, ", ".join(sorted({event for one in seen for event in one["events"]})))
    return told


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks disks", description=__doc__)
    parser.add_argument("--channels", type=int, default=96)
    parser.add_argument("--rate", type=float, default=30_000)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=DISKS, default=DISKS)
    options = parser.parse_args(sys.argv[2:])
    configure_log("error")
    rows: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for _ in range(options.rounds):
        for disk in options.only:
            rows[disk].append(asyncio.run(measure(disk, options.channels, options.rate, options.seconds)))
            print(disk, rows[disk][-1], file=sys.stderr, flush=True)
    load = os.getloadavg()[0]
    title = f"{options.channels} channels at {options.rate:g} Hz, {options.seconds:g} s, load at the end {load:.1f}"
    Console(width=160).print(table(rows, title))
