"""How old predictions are when they reach hundreds of WebSocket subscribers, and what that costs the server.

Source (96 channels at 30 kHz), session, API and all subscribers (one process, `crowd.py`) share the machine. Age is LSL
time at the subscriber minus the end of the bin. The floor of a bin: one `write` system call per subscriber, about 5
microseconds each on a loopback address, so 2.5 ms for 500.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

import httpx
import yaml
from tests.benchmarks.latency import Case, configuration, first_line, processes, source

SUBSCRIBERS = ((1, 0), (500, 0), (500, 20))  # readers, and those that never read
TICKS = os.sysconf("SC_CLK_TCK")
PAGE = os.sysconf("SC_PAGE_SIZE")


def cpu_s(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def resident_mib(process: int) -> float:
    return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * PAGE / 2**20


def wait_for_bins(url: str, seconds: float = 120.0) -> None:
    end = time.monotonic() + seconds
    while not httpx.get(f"{url}/v1/sessions/bench/predictions/latest").is_success:
        if time.monotonic() > end:
            raise SystemExit(f"no prediction came within {seconds:g} s")
        time.sleep(0.2)


def measure(readers: int, silent: int, seconds: float) -> dict[str, Any]:
    """One row of the table."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    case = Case(96, 30_000, 30, seconds + 120)
    with tempfile.TemporaryDirectory() as folder, processes() as start:
        config = Path(folder) / "server.yaml"
        config.write_text(yaml.safe_dump(configuration(case, name) | {"folder": folder}))
        api = start("neuroloop", "serve", str(config))
        url = first_line(api).split()[-1]
        start(*source(case, name, str(Path(folder) / "pushed.npz")))
        wait_for_bins(url)
        crowd = start(
            *("tests.benchmarks.crowd", "--url", url, "--seconds", str(seconds)),
            *("--readers", str(readers), "--silent", str(silent)),
        )
        first_line(crowd)
        before, began, resident = cpu_s(api.pid), time.monotonic(), resident_mib(api.pid)
        told = json.loads(first_line(crowd))
        cores = (cpu_s(api.pid) - before) / (time.monotonic() - began)
        status = httpx.get(f"{url}/v1/sessions/bench/status").json()
        loop = status["latency_ms"]["process"]
        return {
            "subscribers": f"{readers} + {silent} silent",
            **told,
            "loop_p50": loop["p50"],
            "loop_p99": loop["p99"],
            "late_bins": status["late_bins"],
            "missed_bins": status["missed_bins"],
            "api_cores": round(cores, 2),
            "api_mib": round(resident, 1),
            "api_mib_grown": round(resident_mib(api.pid) - resident, 1),
        }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks subscribers", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each row")
    parser.add_argument("--readers", type=int, help="only a row with so many, and none that never reads")
    options = parser.parse_args(sys.argv[2:])
    for readers, silent in SUBSCRIBERS if options.readers is None else ((options.readers, 0),):
        row = measure(readers, silent, options.seconds)
        print("   ".join(f"{key} {value}" for key, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
