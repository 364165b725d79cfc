"""A session of 96 channels at 30 kHz after its start, a swap, and `kill -9`: its first 100 bins, and the time to them.

Source, session and this program, which is server and subscriber in one, are three processes; a spare waits beside them.
A bin's latency is the time from the arrival of its last sample to its answer (`latency_ms.process`). The figure
`next_prediction_s` is the time from the kill to the first message of a bin that is there again, `next_answer_s` to the
first that was not answered as a gap.
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
from neuroloop.session.launching import LocalLauncher, LocalSession
from neuroloop.session.spare import SpareLauncher
from neuroloop.session.supervisor import Restart, SessionProcess

FIRST = 100
STEADY = 500


class Run:
    """One session and its bins, as (seq, latency, whether it was missed, when the message came)."""

    def __init__(self, name: str, folder: RunFolder, launcher: SpareLauncher | LocalLauncher, restarts: int) -> None:
        self.bins: list[tuple[int, float, bool, float]] = []
        self.ages: list[float | None] = []
        settings = SupervisionSettings(restarts=restarts, backoff_s=0)
        self.process = SessionProcess(
            parse_session(session(name)),
            LslSettings(),
            self._take,
            self._fail,
            launcher,
            folder,
            supervision=settings,
            on_restart=self._restart,
        )

    def _take(self, topic: str, packed: bytes) -> None:
        if topic == "predictions":
            bin = msgpack.unpackb(packed)
            self.bins.append((bin["seq"], bin["latency_ms"]["process"], bin["gap"], time.monotonic()))

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


async def measure(kills: int, with_spare: bool) -> dict[str, Any]:
    name = f"bench-{uuid.uuid4().hex[:8]}"
    simulate = ["neuroloop_sources", "simulate", "--name", name, "--source-id", name, "--channel-count", str(CHANNELS)]
    local = LocalLauncher()
    launcher = SpareLauncher(local) if with_spare else local
    with tempfile.TemporaryDirectory() as folder:
        run = Run(name, RunFolder(Path(folder)), launcher, kills)
        source = subprocess.Popen([sys.executable, "-m", *simulate], stdout=subprocess.DEVNULL)
        first: dict[str, list[float]] = {"start": [], "swap": [], "restart": []}
        steady: list[float] = []
        times: list[tuple[float, float]] = []
        try:
            await run.process.start()
            await run.process.ready.wait()
            first["start"] += await run.more(FIRST)
            steady += await run.more(STEADY)
            for number in range(kills):
                await run.process.command("decoder_load", timeout=60, **files()[number % 2])
                first["swap"] += await run.more(FIRST)
                steady += await run.more(STEADY)
                while isinstance(launcher, SpareLauncher) and not launcher.is_ready:
                    await asyncio.sleep(0.1)
                start = len(run.bins)
                times.append(await run.kill())
                await run.more(FIRST)
                first["restart"] += [ms for _, ms, gap, _ in run.bins[start:] if not gap and ms is not None][-FIRST:]
                steady += await run.more(STEADY)
        finally:
            source.terminate()
            source.wait(20)
            await run.process.stop()
            if isinstance(launcher, SpareLauncher):
                await launcher.close()
    return row(run, first, steady, times)


def row(
    run: Run, first: dict[str, list[float]], steady: list[float], times: list[tuple[float, float]]
) -> dict[str, Any]:
    """What is printed; latencies in milliseconds."""
    seqs = [seq for seq, *_ in run.bins]
    calm = float(np.percentile(steady, 99))
    told: dict[str, Any] = {"bins": len(seqs), "seq_skipped_or_repeated": int(np.sum(np.diff(seqs) != 1))}
    told |= {"steady_p50": round(float(np.median(steady)), 3), "steady_p99": round(calm, 3)}
    for name, part in first.items():
        p99 = float(np.percentile(part, 99))
        told |= {f"{name}_p50": round(float(np.median(part)), 3), f"{name}_p99": round(p99, 3)}
        told[f"{name}_p99_ratio"] = round(p99 / calm, 2)
    return told | {
        "checkpoint_age_s": run.ages,
        "next_prediction_s": [round(one, 3) for one, _ in times],
        "next_answer_s": [round(other, 3) for _, other in times],
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks restarts", description=__doc__)
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--without-spare", action="store_true", help="start every process when it is needed")
    options = parser.parse_args(sys.argv[2:])
    print(json.dumps(asyncio.run(measure(options.kills, not options.without_spare)), indent=1))
