"""A session at 30 kHz after its start, a swap, and `kill -9`: its first 100 bins, and the time to them.

Source, session and this program, which is server and subscriber in one, are three processes. A bin's latency is the
time from the arrival of its last sample to its answer (`latency_ms.process`); bins that were missed have none. The
figure `next_prediction_s` is the time from the kill to the first message of the new process, `next_answer` to the first
of a bin that is no gap; `snapshot` is what a checkpoint, one a second, takes of the loop's time.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from tests.benchmarks.swaps import CHANNELS, files, session

from neuroloop.config import LslSettings, parse_session
from neuroloop.server_config import SupervisionSettings
from neuroloop.session.adoption import RunFolder
from neuroloop.session.launching import LocalSession
from neuroloop.session.supervisor import Restart, SessionProcess

FIRST = 100
STEADY = 200


class Run:
    """One session and its bins, as (seq, latency, whether it was missed, when the message came)."""

    def __init__(self, name: str, channels: int, folder: RunFolder, restarts: int) -> None:
        self.bins: list[tuple[int, float, bool, float]] = []
        self.ages: list[float | None] = []
        self.snapshots_ms: list[float] = []
        settings = SupervisionSettings(restarts=restarts, backoff_s=0)
        self.process = SessionProcess(
            parse_session(session(name, channels)),
            LslSettings(),
            self._take,
            self._fail,
            run_folder=folder,
            supervision=settings,
            on_restart=self._restart,
        )

    def _take(self, topic: str, packed: bytes) -> None:
        if topic == "predictions":
            bin = msgpack.unpackb(packed)
            self.bins.append((bin["seq"], bin["latency_ms"]["process"], bin["gap"], time.monotonic()))
        elif topic == "status" and (checkpoint := msgpack.unpackb(packed)["checkpoint"]):
            self.snapshots_ms.append(checkpoint["taken_ms"])

    def _fail(self, failure: Any) -> None:
        raise SystemExit(failure.detail)

    def _restart(self, restart: Restart) -> int:
        self.ages.append(restart.checkpoint_age_s)
        return self.bins[-1][0] + 1

    async def more(self, count: int) -> list[float]:
        """The latencies of the next bins that were not missed."""
        start = len(self.bins)
        while len(found := [ms for _, ms, gap, _ in self.bins[start:] if not gap]) < count:
            await asyncio.sleep(0.02)
        return found[:count]

    async def kill(self) -> tuple[float, float]:
        """Seconds from the kill to the next message, and to the next bin that was not missed."""
        launched = self.process._launched
        assert isinstance(launched, LocalSession)
        os.kill(launched.pid, signal.SIGKILL)
        killed = time.monotonic()
        while self.process.state == "ready":  # what it said before is read until then
            await asyncio.sleep(0.001)
        start = len(self.bins)
        while not any(not gap for _, _, gap, _ in self.bins[start:]):
            await asyncio.sleep(0.001)
        there = next(at for _, _, gap, at in self.bins[start:] if not gap)
        return self.bins[start][3] - killed, there - killed


async def measure(channels: int, starts: int, kills: int) -> dict[str, Any]:
    name = f"bench-{uuid.uuid4().hex[:8]}"
    simulate = ["neuroloop_sources", "simulate", "--name", name, "--source-id", name, "--channel-count", str(channels)]
    source = subprocess.Popen([sys.executable, "-m", *simulate], stdout=subprocess.DEVNULL)
    run: Run | None = None
    first: dict[str, list[float]] = {"start": [], "swap": [], "restart": []}
    steady: list[float] = []
    times: list[tuple[float, float]] = []
    with tempfile.TemporaryDirectory() as folder:
        try:
            for number in range(starts):
                if run is not None:
                    await run.process.stop()
                run = Run(name, channels, RunFolder(Path(folder) / str(number)), kills)
                await run.process.start()
                first["start"] += await run.more(FIRST)
            assert run is not None
            steady += await run.more(STEADY)
            for number in range(kills):
                await run.process.command("decoder_load", timeout=60, **files(channels)[number % 2])
                first["swap"] += await run.more(FIRST)
                steady += await run.more(STEADY)
                times.append(await run.kill())
                first["restart"] += await run.more(FIRST)
                steady += await run.more(STEADY)
        finally:
            source.terminate()
            source.wait(20)
            if run is not None:
                await run.process.stop()
    return {"channels": channels} | row(run, first, steady, times)


def row(
    run: Run, first: dict[str, list[float]], steady: list[float], times: list[tuple[float, float]]
) -> dict[str, Any]:
    """What is printed; latencies in milliseconds."""
    seqs = [seq for seq, *_ in run.bins]
    calm = percentile(steady, 99)
    told: dict[str, Any] = {"bins": len(seqs), "seq_skipped_or_repeated": int(np.sum(np.diff(seqs) != 1))}
    told |= {"steady_p50": percentile(steady, 50), "steady_p99": calm}
    for name, part in first.items():
        p99 = percentile(part, 99)
        told |= {f"{name}_p50": percentile(part, 50), f"{name}_p99": p99, f"{name}_p99_ratio": round(p99 / calm, 2)}
    return told | {
        "checkpoint_age_s": run.ages,
        "next_prediction_s": [round(one, 3) for one, _ in times],
        "next_prediction_median_s": percentile([one for one, _ in times], 50),
        "next_answer_median_s": percentile([other for _, other in times], 50),
        "snapshots": len(run.snapshots_ms),
        **{f"snapshot_p{part}_ms": percentile(run.snapshots_ms, part) for part in (50, 99, 100)},
    }


def percentile(values: list[float], part: float) -> float:
    return round(float(np.percentile(values, part)), 3)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks restarts", description=__doc__)
    parser.add_argument("--channels", type=int, default=CHANNELS)
    parser.add_argument("--starts", type=int, default=5)
    parser.add_argument("--kills", type=int, default=5)
    options = parser.parse_args(sys.argv[2:])
    print(json.dumps(asyncio.run(measure(options.channels, options.starts, options.kills)), indent=1))
