"""neuroloop beside ezmsg on the same LSL stream: from the push of a 20 ms bin's last sample to the bin's result.

Runs are interleaved; medians over them are printed, and the lowest p50, for a machine that has other work too. The
figures don't end at the same place. Ours ends in a WebSocket client, in a process of its own behind session and API,
with a decoder's prediction. The peer's ends in a unit of its graph, in the process that acquired the samples, with
rates and without a decoder: what is left out favours the peer.
`peer_ezmsg_graph` says what the graph is; it runs in the environment that `environment` makes for ezmsg.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from tests.benchmarks.environment import EZMSG, Environment, ensure
from tests.benchmarks.latency import Case, children_cpu, delays_ms, first_line, measure, processes, source

PEER = "tests.benchmarks.peer_ezmsg_graph"
SETTLED = 250  # bins that are left out at the start, of every system: imports, calibration, the first fit
BIN_S = 0.02
FIGURES = ("p50", "p99", "bins", "cpu_cores")
ENDS = {
    "neuroloop, LRR learning": "WebSocket client in another process, a decoder's prediction",
    "ezmsg, units, LRR learning": "sink inside the graph's process, rates",
    "ezmsg, one unit, LRR fixed": "sink inside the graph's process, rates",
}


def peer_versions(python: str) -> dict[str, str] | str:
    """Of the peer's packages; where it cannot run, what is missing."""
    try:
        told = subprocess.run([python, "-m", PEER, "--versions"], capture_output=True, text=True, timeout=120)
    except OSError as error:
        return str(error)
    if told.returncode:
        return told.stderr.strip().rpartition("\n")[2]
    return dict(json.loads(told.stdout))


def measure_peer(python: str, flags: list[str], case: Case) -> dict[str, float]:
    """One run of the peer's graph; CPU includes the source, as it does in ours."""
    name = f"bench-{uuid.uuid4().hex[:8]}"
    before = children_cpu()
    with tempfile.TemporaryDirectory() as folder:
        pushed, received = str(Path(folder) / "pushed.npz"), str(Path(folder) / "received.npz")
        with processes() as start:
            peer = start(PEER, "--name", name, "--received", received, *flags, python=python)
            first_line(peer)
            start(*source(case, name, pushed)).wait(case.seconds + 120)
            peer.wait(120)
        delays = delays_ms(np.load(pushed), np.load(received))
    p50, p99 = np.percentile(delays[SETTLED:], (50, 99))
    cpu = (children_cpu() - before) / case.seconds
    return {"p50": float(p50), "p99": float(p99), "bins": len(delays), "cpu_cores": cpu}


def systems(python: str) -> dict[str, Callable[[Case], dict[str, Any]]]:
    """What is measured, in the order of a round."""
    runs = (partial(measure, settled=SETTLED), *(partial(measure_peer, python, flags) for flags in (["--learn"], [])))
    return dict(zip(ENDS, runs, strict=True))


def compare(case: Case, rounds: int, python: str) -> None:
    """Print every run, then the medians."""
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in ENDS}
    for number in range(rounds):
        for name, run in systems(python).items():
            rows[name].append(run(case))
            told = "  ".join(f"{key} {rows[name][-1][key]:.5g}" for key in FIGURES)
            print(f"{case.name}  round {number + 1}  {name:26} {told}", flush=True)
    medians = {name: {key: float(np.median([row[key] for row in rows[name]])) for key in FIGURES} for name in rows}
    ours = next(iter(medians.values()))
    print(f"\n{case.name}, medians of {rounds} runs of {case.seconds:g} s, {case.seconds / BIN_S:g} bins each")
    columns = f"{'p50 ms':>9} {'ratio':>7} {'p99 ms':>9} {'ratio':>7} {'bins':>6} {'cores':>6} {'best p50':>9}"
    print(f"{'':26} {columns}  ends at")
    for name, row in medians.items():
        figures = f"{row['p50']:9.3f} {row['p50'] / ours['p50']:7.2f} {row['p99']:9.3f} {row['p99'] / ours['p99']:7.2f}"
        best = min(run["p50"] for run in rows[name])
        print(f"{name:26} {figures} {row['bins']:6.0f} {row['cpu_cores']:6.2f} {best:9.3f}  {ENDS[name]}")
    print(flush=True)


def main() -> None:
    shown = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks peers", description=__doc__, formatter_class=shown
    )
    parser.add_argument("--peer-python", help="another interpreter that has the peer's packages")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each run")
    parser.add_argument("--rounds", type=int, default=3, help="runs of each system")
    parser.add_argument("--channels", type=int, action="append", help="by default 96, then 256")
    options = parser.parse_args(sys.argv[2:])
    found = Environment(options.peer_python) if options.peer_python else ensure(EZMSG)
    versions = found.why if found.python is None else peer_versions(found.python)
    if isinstance(versions, str):
        print(f"peers: ezmsg missing: {versions}; `latency` measures neuroloop alone")
        return
    print("peer: " + ", ".join(f"{package} {version}" for package, version in versions.items()), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        lsl = Path(folder) / "lsl_api.cfg"
        lsl.write_text(f"[lab]\nSessionID = neuroloop-peers-{uuid.uuid4().hex}\n[log]\nlevel = -2\n")
        os.environ["LSLAPICFG"] = str(lsl)  # the processes that are started inherit it
        for channels in options.channels or (96, 256):
            compare(Case(channels, 30_000, 30, options.seconds), options.rounds, found.python)
