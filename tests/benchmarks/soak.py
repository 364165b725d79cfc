"""An hour of one session, 96 channels at 30 kHz with a client, labels and swaps: does anything grow, or become slower?

Every few seconds: resident memory, file descriptors and threads of the API and of the session process. Printed: how
they grow an hour, by the line of least squares through the second half, when the last minute's messages are kept;
latencies (`latency_ms.process`) in the first and the last sixth of the time, without the first ten seconds.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from numpy.typing import NDArray
from tests.benchmarks.latency import Case, configuration, first_line, processes, source
from tests.benchmarks.subscribers import resident_mib, wait_for_bins
from tests.benchmarks.swaps import files, session_pid
from tests.processes import wait_until

from neuroloop_client import Client

WARM_BINS = 500
PERCENTILES = (50.0, 99.0, 99.9)
F64 = NDArray[np.float64]


def held(process: int) -> tuple[float, int, int]:
    """Resident memory in MiB, file descriptors, threads."""
    folder = Path(f"/proc/{process}")
    return resident_mib(process), len(list((folder / "fd").iterdir())), len(list((folder / "task").iterdir()))


def per_hour(times: list[float], values: list[float]) -> float:
    """Growth in the second half; times: seconds."""
    half = len(times) // 2
    return round(3600 * float(np.polyfit(times[half:], values[half:], 1)[0]), 3)


def percentiles(latencies: F64) -> dict[str, float]:
    return {f"p{percent:g}": round(float(np.percentile(latencies, percent)), 3) for percent in PERCENTILES}


class Watched:
    """Every prediction of the session, in a thread; `seqs` and milliseconds."""

    def __init__(self, client: Client) -> None:
        self.seqs: list[int] = []
        self.latencies: list[float] = []
        self._live = client.live("bench")
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._receive, name="subscriber")
        self._thread.start()

    def _receive(self) -> None:
        while not self._ended.is_set():
            try:
                message = self._live.receive(0.5)
            except TimeoutError:
                continue
            if message is not None and message["type"] == "prediction" and message["latency_ms"]["process"] is not None:
                self.seqs.append(message["seq"])
                self.latencies.append(message["latency_ms"]["process"])

    def end(self) -> None:
        self._ended.set()
        self._thread.join()
        self._live.close()


def measure(minutes: float, every_s: float, warm_bins: int = WARM_BINS) -> dict[str, Any]:
    """One row of figures."""
    name, case = f"bench-{uuid.uuid4().hex[:8]}", Case(96, 30_000, 30, 60 * minutes + 600)
    times: list[float] = []
    seen: dict[str, list[tuple[float, int, int]]] = {"api": [], "session": []}
    with tempfile.TemporaryDirectory() as folder, processes() as start:
        config = Path(folder) / "server.yaml"
        config.write_text(yaml.safe_dump(configuration(case, name) | {"folder": folder}))
        api = start("neuroloop", "serve", str(config))
        url = first_line(api).split()[-1]
        start(*source(case, name, str(Path(folder) / "pushed.npz")))
        wait_for_bins(url)
        with Client(url) as client:
            for load in files():
                client.upload_model("bench", load["weights"])
            watched, process = Watched(client), session_pid(api.pid)
            try:
                wait_until(lambda: len(watched.seqs) > warm_bins, "bins that can be labelled")
                began = time.monotonic()
                while (now := time.monotonic() - began) < 60 * minutes:
                    times.append(now)
                    seen["api"].append(held(api.pid))
                    seen["session"].append(held(process))
                    client.label("bench", "ab"[len(times) % 2])
                    if len(times) % 6 == 0:
                        client.put_decoder("bench", "bench", version=1 + len(times) // 6 % 2)
                    time.sleep(max(0.0, every_s * len(times) - (time.monotonic() - began)))
                status = client.status("bench")
            finally:
                watched.end()
    return row(times, seen, watched, status, warm_bins)


def row(
    times: list[float],
    seen: dict[str, list[tuple[float, int, int]]],
    watched: Watched,
    status: dict[str, Any],
    warm_bins: int,
) -> dict[str, Any]:
    latencies = np.array(watched.latencies[warm_bins:])
    sixth = len(latencies) // 6
    told: dict[str, Any] = {
        "bins": len(watched.seqs),
        "seq_skipped": watched.seqs[-1] - watched.seqs[0] + 1 - len(watched.seqs),
        "missed_bins": status["missed_bins"],
        "late_bins": status["late_bins"],
        "gaps": status["gaps"],
        "swaps": status["swaps"],
        "first_sixth_ms": percentiles(latencies[:sixth]),
        "last_sixth_ms": percentiles(latencies[-sixth:]),
    }
    for who, rows in seen.items():
        for column, what in enumerate(("mib", "descriptors", "threads")):
            values = [float(row[column]) for row in rows]
            told[f"{who}_{what}"] = {"first": values[0], "last": values[-1], "per_hour": per_hour(times, values)}
    return told


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--every", type=float, default=10.0, help="seconds between two looks")
    options = parser.parse_args(sys.argv[2:])
    print(json.dumps(measure(options.minutes, options.every), indent=1))


if __name__ == "__main__":
    main()
