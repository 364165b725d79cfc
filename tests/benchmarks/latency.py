"""From the push of a bin's last sample into LSL to its prediction in a WebSocket client, on one clock.

Source, session, API and client are four processes. The floor, by operations: the samples of a block are copied by the
kernel and liblsl twice, filtered (4 sections, 5 multiply-adds), rereferenced (32 multiply-adds) and compared once; at
96 channels and a block of 60 samples that is 0.3 million multiply-adds, 0.02 ms with warm caches. The rest is wake-ups:
LSL (0.2 ms, the column stream_p50), the loop, ZeroMQ, the API's event loop, the client's socket.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml

SETTLED = 100  # bins that are left out at the start: calibration, first labels
BROADBAND = {"kind": "broadband", "band": [300, 6000]}
HEADSET = {"kind": "bandpower", "bands": {"alpha": [8, 13], "beta": [14, 30]}}


@dataclass(frozen=True)
class Case:
    """channels at rate Hz, in chunks of so many samples, for so many seconds."""

    channels: int
    rate: float
    chunk: int
    seconds: float
    blocking: bool = False

    @property
    def name(self) -> str:
        return f"{self.channels} ch, {self.rate:g} Hz"


CASES = (
    Case(96, 30_000, 30, 60),
    Case(256, 30_000, 30, 120),
    Case(1024, 30_000, 30, 60, blocking=True),
    Case(8, 250, 1, 60),
)


def configuration(case: Case, name: str) -> dict[str, Any]:
    """Of a server with one session."""
    session = {
        "name": "bench",
        "stream": {"source_id": name},
        "front_end": BROADBAND if case.rate > 1000 else HEADSET,
        "rereference": {"clusters": 32},
        "bin_ms": 20,
        "window": 25,
        "classes": ["a", "b"],
        "decoders": [{"name": "maxrate", "kind": "maxrate"}],
    }
    return {"port": 0, "sessions": [session]}


@contextmanager
def processes() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Gives what starts a module as a process; ends them all, the last one first."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: str, python: str = sys.executable) -> subprocess.Popen[str]:
        running.append(subprocess.Popen([python, "-m", *arguments], stdout=subprocess.PIPE, text=True))
        return running[-1]

    try:
        yield start
    finally:
        for process in reversed(running):
            process.terminate()
            process.wait(20)


def first_line(process: subprocess.Popen[str]) -> str:
    line = process.stdout.readline() if process.stdout is not None else ""
    if not line:
        raise SystemExit(f"{process.args}: ended before it was ready")
    return line


def source(case: Case, name: str, pushed: str) -> list[str]:
    """The arguments that start the source of a case."""
    shape = ["--channels", str(case.channels), "--rate", str(case.rate), "--chunk", str(case.chunk)]
    until = ["--seconds", str(case.seconds), "--pushed", pushed]
    flags = ["--blocking"] if case.blocking else []
    return ["tests.benchmarks.source", "--name", name, *shape, *until, *flags]


def children_cpu() -> float:
    """Seconds that processes of ours used, all those that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def measure(case: Case, settled: int = SETTLED) -> dict[str, Any]:
    """Run one case; returns its row of the table, without the first `settled` bins."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    before = children_cpu()
    with tempfile.TemporaryDirectory() as folder:
        config, pushed, received = (str(Path(folder) / part) for part in ("c.yaml", "pushed.npz", "received.npz"))
        Path(config).write_text(yaml.safe_dump(configuration(case, name)))
        with processes() as start:
            url = first_line(start("neuroloop", "serve", config)).split()[-1]
            client = start("tests.benchmarks.client", "--url", url, "--session", "bench", "--received", received)
            first_line(client)
            start(*source(case, name, pushed)).wait(case.seconds + 120)
            client.wait(120)
        return row(case, np.load(pushed), np.load(received), children_cpu() - before, settled)


def delays_ms(pushed: Any, received: Any) -> Any:
    """From the push of every bin's last sample to the bin's arrival; which push that was follows from the bin's end.

    Bins end where chunks do. LSL estimates the clock offset, which moves times by up to a sample: hence the rounding.
    """
    at = np.rint((received["times"] - pushed["start"]) * pushed["rate"] / pushed["chunk"]).astype(int) - 1
    known = (at >= 0) & (at < len(pushed["pushed"]))
    return 1000 * (received["arrivals"][known] - pushed["pushed"][at[known]])


def row(case: Case, pushed: Any, received: Any, cpu: float, settled: int) -> dict[str, Any]:
    """One row of the table."""
    if not len(received["numbers"]):
        raise SystemExit(
            f"{case.name}: no prediction came in {case.seconds:g} s (kernels that compile for the first time can take "
            f"longer: run it again); the session said: {received['events']}"
        )
    delays = delays_ms(pushed, received)[settled:]
    status = json.loads(str(received["status"]))
    numbers = received["numbers"]
    events = [event["event"] for event in json.loads(str(received["events"]))]
    return {
        "case": case.name,
        "bins": len(numbers),
        "seq_skipped": int(numbers[-1] - numbers[0] + 1 - len(numbers)),
        "missed_bins": status["missed_bins"],
        "late_bins": status["late_bins"],
        "gaps": status["gaps"],
        "p50": round(float(np.percentile(delays, 50)), 3),
        "p99": round(float(np.percentile(delays, 99)), 3),
        "p99.9": round(float(np.percentile(delays, 99.9)), 3),
        "max": round(float(delays.max()), 3),
        "process_p50": round(float(np.median(received["process"][settled:])), 3),
        "stream_p50": round(float(np.median(received["stream"][settled:])), 3),
        "cpu_cores": round(cpu / case.seconds, 2),
        "overload_events": events.count("overload"),
        "overrun_events": events.count("overrun"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks latency", description=__doc__)
    parser.add_argument("--seconds", type=float, help="of each case")
    parser.add_argument("--channels", type=int, action="append", help="only the cases with so many channels")
    options = parser.parse_args(sys.argv[2:])
    for case in CASES:
        if options.channels and case.channels not in options.channels:
            continue
        if options.seconds:
            case = Case(case.channels, case.rate, case.chunk, options.seconds, case.blocking)
        print("   ".join(f"{key} {value}" for key, value in measure(case).items()), flush=True)
