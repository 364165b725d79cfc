"""A session records a wide stream for minutes: bins that were missed, samples that are not in the file, what it cost.

The sender's samples say which sample and channel they are, and the file is compared with them one by one. Source and
session are processes of their own. The floor of the recorder is one copy and one write of every byte, and the disk.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from tests.benchmarks.source import counting

from neuroloop.config import LslSettings, parse_session
from neuroloop.recording.reader import open_xdf
from neuroloop.session.launching import Launcher
from neuroloop.session.supervisor import SessionProcess

CHUNK = 30
PIECE = 30_000  # samples compared at once
NOTHING = {"name": "", "state": "", "bytes": 0, "lost_samples": 0, "lost_messages": 0}  # where nothing is recorded
CALIBRATED = 100  # bins that are left out at the start


class Recorded:
    """A session that records, and what it publishes meanwhile."""

    def __init__(self, name: str, folder: Path, settings: dict[str, Any], launcher: Launcher | None = None) -> None:
        self.predictions: list[dict[str, Any]] = []
        self.events: list[dict[str, Any]] = []
        common = {"name": name, "stream": {"source_id": name}, "recording": {"automatic": True, "least_free_mb": 100}}
        session = parse_session(common | {"classes": ["a", "b"], "rereference": {"clusters": 32}} | settings)
        self.process = SessionProcess(session, LslSettings(), self._take, self._fail, launcher, recordings=folder)

    def _take(self, topic: str, packed: bytes) -> None:
        if topic == "predictions":
            prediction = msgpack.unpackb(packed)
            if prediction["role"] == "active":
                self.predictions.append(prediction)
        elif topic == "events":
            self.events.append(msgpack.unpackb(packed))

    def _fail(self, failure: Any) -> None:
        raise SystemExit(failure.detail)

    async def until(self, bins: int) -> None:
        while len(self.predictions) < bins:
            await asyncio.sleep(0.05)


async def record(
    folder: Path,
    channels: int,
    rate: float,
    seconds: float,
    *,
    pattern: str,
    settings: dict[str, Any] | None = None,
    meanwhile: Callable[[Recorded], Awaitable[None]] | None = None,
) -> tuple[Path, dict[str, Any]]:
    """The recording of so many seconds, and what was seen of the session. meanwhile: what is asked of it."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    session = Recorded(name, folder, settings or {})
    await session.process.start()
    await session.process.ready.wait()
    sizes = ("--channels", str(channels), "--rate", str(rate), "--chunk", str(CHUNK), "--seconds", str(seconds))
    more = ("--pattern", pattern, "--pushed", str(folder / "pushed.npz"))
    source = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.source", "--name", name, *sizes, *more],
        stdout=subprocess.DEVNULL,
    )
    try:
        if meanwhile is not None:
            await meanwhile(session)
        await session.until(int(seconds * 50))
        status = await session.process.command("status")
        stopped = status["recording"] or NOTHING
        if stopped["state"] == "recording":
            stopped = await session.process.command("recording_stop", timeout=60)
    finally:
        source.terminate()
        source.wait(20)
        await session.process.stop()
    times = np.array([p["latency_ms"]["process"] for p in session.predictions[CALIBRATED:] if not p["gap"]])
    seen = {
        "bins": len(session.predictions),
        "missed_bins": status["missed_bins"],
        "late_bins": status["late_bins"],
        "missing_samples": status["missing_samples"],
        "process_p50_ms": round(float(np.percentile(times, 50)), 3),
        "process_p99_ms": round(float(np.percentile(times, 99)), 3),
        "lost_samples": stopped["lost_samples"],
        "lost_messages": stopped["lost_messages"],
        "mb": round(stopped["bytes"] / 1e6, 1),
        "events": sorted({event["event"] for event in session.events if event["event"].startswith("recording")}),
        "state_ms": [event["taken_ms"] for event in session.events if event["event"] == "recording_replayable"],
    }
    return folder / f"{stopped['name']}.xdf", seen


def compare(path: Path, channels: int, rate: float) -> dict[str, int]:
    """The file's samples with those of the sender, one by one."""
    ring = counting(channels, rate, CHUNK)
    differing = samples = jumps = 0
    with open_xdf(path) as file:
        stream = next(stream for stream in file.streams if stream.info.type == "Ephys")
        before = None
        for start in range(0, stream.sample_count, PIECE):
            times, values = stream.read(start, start + PIECE)
            rows = (np.arange(start, start + len(times))) % len(ring)
            differing += int((np.asarray(values) != ring[rows]).any(axis=1).sum())
            joined = times if before is None else np.concatenate([[before], times])
            jumps += int((np.abs(np.diff(joined) * rate - 1) > 0.02).sum())
            before, samples = times[-1], samples + len(times)
        return {"samples": samples, "differing_samples": differing, "jumps_of_timestamps": jumps}


async def measure(folder: Path, channels: int, rate: float, seconds: float) -> dict[str, Any]:
    path, seen = await record(folder, channels, rate, seconds, pattern="counting")
    return {"channels": channels, "rate": rate, "seconds": seconds} | seen | compare(path, channels, rate)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks recording", description=__doc__)
    parser.add_argument("--channels", type=int, default=256)
    parser.add_argument("--rate", type=float, default=30_000)
    parser.add_argument("--seconds", type=float, default=120)
    parser.add_argument("--folder", type=Path, help="on the disk to be measured; by default a temporary one")
    options = parser.parse_args(sys.argv[2:])
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        told = asyncio.run(measure(Path(folder), options.channels, options.rate, options.seconds))
    print(json.dumps(told, indent=1))
