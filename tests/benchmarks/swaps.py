"""Swaps of the active decoder in a live session of 96 channels at 30 kHz, with a subscriber: what they cost the bins.

Source, session and this program, which is API and subscriber in one, are three processes. Stretches of swaps, one after
the other between two decoders that differ, alternate with steady stretches as long, so that other work on the machine
meets both alike. A bin's latency is the time from the arrival of its last sample to its answer (`latency_ms.process`).
The session keeps checkpoints, as under a server. The floor of a swap in the loop is the exchange of a reference and,
with state `carry`, the lessons that came while it was loaded; everything else is done beside the loop and costs it the
interpreter's lock.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import uuid
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
from numpy.typing import NDArray

from neuroloop.config import LslSettings, parse_session
from neuroloop.models.decoder_files import of, write
from neuroloop.models.maxrate import MaxRate
from neuroloop.session.adoption import RunFolder
from neuroloop.session.supervisor import SessionProcess

CHANNELS = 96
CLASSES = ["a", "b"]
WARM_BINS = 250  # at the start: calibration, first weights
FLAT_AFTER = 100  # swaps
STRETCH = 50
F64 = NDArray[np.float64]
STATES = ("cold", "carry", "reprime")


def session(name: str, channels: int = CHANNELS) -> dict[str, Any]:
    stream, outlets = {"source_id": name, "channel_count": channels}, {"enabled": False}
    rereference = {"clusters": 32, "mode": "frozen"}  # past weights, 64 MiB of them, are no matter of swaps
    return {"name": name, "stream": stream, "classes": CLASSES, "rereference": rereference, "outlets": outlets}


def files(channels: int = CHANNELS) -> list[dict[str, Any]]:
    """Two decoders for so many channels, as `decoder_load` takes them."""
    random, loads = np.random.default_rng(0), []
    for version in (1, 2):
        decoder = MaxRate(CLASSES, channels)
        for label in range(40):
            decoder.learn(random.gamma(2.0, 5.0, channels).astype(np.float32), label % 2)
        weights = write(of(decoder, channels))
        digest = f"sha256:{hashlib.sha256(weights).hexdigest()}"
        loads.append({"model": {"name": "bench", "version": version, "digest": digest}, "weights": weights})
    return loads


def growth_kb(resident: list[float]) -> float:
    """KB from one swap to the next; resident: MB after each."""
    if len(resident) < 2:
        return float("nan")
    return round(1024 * float(np.polyfit(np.arange(len(resident)), resident, 1)[0]), 3)


def resident_mb(pid: int) -> float:
    """Of a process, by Linux."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    raise SystemExit(f"process {pid} has ended")


def session_pid(parent: int) -> int:
    """Of the only session process among the children of another."""
    for child in Path(f"/proc/{parent}/task/{parent}/children").read_text().split():
        if b"neuroloop.session" in Path(f"/proc/{child}/cmdline").read_bytes():
            return int(child)
    raise SystemExit("the session process has ended")


class Run:
    """One session, its predictions, and the swaps asked of it."""

    def __init__(self, name: str, folder: Path) -> None:
        """folder: for checkpoints, as a server has one."""
        self.bins: list[tuple[int, float]] = []
        self.receipts: list[dict[str, Any]] = []
        self.resident: list[float] = []
        self._loads = files()
        self.process = SessionProcess(
            parse_session(session(name)), LslSettings(), self._take, self._fail, run_folder=RunFolder(folder)
        )

    def _take(self, topic: str, packed: bytes) -> None:
        if topic == "predictions":
            prediction = msgpack.unpackb(packed)
            self.bins.append((prediction["seq"], prediction["latency_ms"]["process"]))

    def _fail(self, failure: Any) -> None:
        raise SystemExit(failure.detail)

    async def bins_more(self, count: int) -> None:
        end = len(self.bins) + count
        while len(self.bins) < end:
            await asyncio.sleep(0.1)

    async def swap(self, count: int) -> None:
        pid = session_pid(os.getpid())
        for number in range(len(self.receipts), len(self.receipts) + count):
            asked = self._loads[number % 2] | {"state": STATES[number % len(STATES)]}
            self.receipts.append(await self.process.command("decoder_load", timeout=60, **asked))
            self.resident.append(resident_mb(pid))


async def measure(name: str, swaps: int, folder: Path) -> dict[str, Any]:
    run = Run(name, folder)
    await run.process.start()
    await run.process.ready.wait()
    simulate = ["neuroloop_sources", "simulate", "--name", name, "--source-id", name, "--channel-count", str(CHANNELS)]
    source = subprocess.Popen([sys.executable, "-m", *simulate], stdout=subprocess.DEVNULL)
    steady: list[float] = []
    swapping: list[float] = []
    try:
        await run.bins_more(WARM_BINS)
        while len(run.receipts) < swaps:
            begin = len(run.bins)
            await run.swap(min(STRETCH, swaps - len(run.receipts)))
            end = len(run.bins)
            await run.bins_more(end - begin)
            swapping += [ms for _, ms in run.bins[begin:end]]
            steady += [ms for _, ms in run.bins[end:]]
        status = await run.process.command("status")
    finally:
        source.terminate()
        source.wait(20)
        await run.process.stop()
    return row(run, np.array(steady), np.array(swapping), status)


def row(run: Run, steady: F64, swapping: F64, status: dict[str, Any]) -> dict[str, Any]:
    """What is printed; latencies in milliseconds."""
    seqs = [seq for seq, _ in run.bins]
    half = run.resident[len(run.resident) // 2 :]  # the last messages, which are kept, are all there by then
    told: dict[str, Any] = {
        "swaps": len(run.receipts),
        "bins": len(seqs),
        "seq_skipped": seqs[-1] - seqs[0] + 1 - len(seqs),
        "missed_bins": status["missed_bins"] + sum(receipt["missed_bins"] for receipt in run.receipts),
        "late_bins": status["late_bins"],
    }
    for percent in (50, 90, 99):
        calm, busy = (float(np.percentile(part, percent)) for part in (steady, swapping))
        told |= {f"steady_p{percent}": round(calm, 3), f"swaps_p{percent}": round(busy, 3)}
        told |= {f"ratio_p{percent}": round(busy / calm, 2)}
    return told | {
        "slowest": round(max(receipt["slowest_bin_ms"] for receipt in run.receipts), 3),
        "resident_mb": round(run.resident[-1], 1),
        "resident_kb_per_swap": growth_kb(run.resident[FLAT_AFTER:]),
        "resident_kb_per_swap_second_half": growth_kb(half),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks swaps", description=__doc__)
    parser.add_argument("--swaps", type=int, default=1000)
    options = parser.parse_args(sys.argv[2:])
    with tempfile.TemporaryDirectory() as folder:
        row = asyncio.run(measure(f"bench-{uuid.uuid4().hex[:8]}", options.swaps, Path(folder)))
    print(json.dumps(row, indent=1))
