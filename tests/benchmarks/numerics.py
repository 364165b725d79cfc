"""The numerics beside the peers': work, ours, peer, ratio, floor, distance to the floor, in one table.

Both sides get the same float32 data, one thread each, in a process of their own; they take turns, a round each, and
the table has medians over the rounds' medians. Results of both are compared once. What a peer's figure includes is
at the head of its module, `peer_ezmsg` and the others; how a floor is computed, in `floors`.

The peers' environments are made under `build/peers` first, some minutes and 4 GB; a peer that will not install is
reported as missing. The rows go to `build/bench.json` as well.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from tests.benchmarks import environment, machine
from tests.benchmarks.environment import EZMSG, GSNN, INFERNO, MINERVA, OPENRETINA
from tests.benchmarks.floors import COSTS
from tests.benchmarks.table import Row, as_markdown, as_text, missing, told_ms, write_json, write_section
from tests.benchmarks.workers import ROOT, Worker, WorkerError

SIGPROC, LEARN, EVENT = "ezmsg-sigproc", "ezmsg-learn", "ezmsg-event"
# Which environment has the peer of a work, and its packages.
PEERS: dict[str, tuple[str, tuple[str, ...]]] = {
    **{f"chain_{channels}": (EZMSG, (SIGPROC, LEARN, EVENT)) for channels in (96, 256, 1024, 4096)},
    "lrr_apply_1024_clustered": (EZMSG, (LEARN,)),
    "lrr_apply_1024_dense": (EZMSG, (LEARN,)),
    "lrr_solve_1024_dense": (EZMSG, (LEARN,)),
    "maxrate_step_1024x10": (INFERNO, ("inferno-ai",)),
    "lnp_frame_100x3x30x15x15": (OPENRETINA, ("openretina",)),
    "gsnn_decision_200x1000x4": (GSNN, ("torch",)),
    "lfr_epoch": (MINERVA, ("minerva",)),
    "lnp_fit_100_cells": (OPENRETINA, ("openretina",)),
}
# What the peer is, where its packages do not say it.
SAID = {
    "gsnn_decision_200x1000x4": "the published sparse form, written from its formula",
    "lnp_fit_100_cells": "one cell, times 100",
}
# Largest difference over the standard deviation; spikes: of their number, since both estimate sigma in their own way.
TOLERANCES = {"filtered": 1e-4, "rereferenced": 1e-3, "weights": 1e-6, "classes": 0.01, "rates": 1e-4, "spikes": 0.25}
TOLERANCES |= {"logits": 1e-4, "losses": 1e-3}


def differences(ours: Mapping[str, np.ndarray], peer: Mapping[str, np.ndarray]) -> dict[str, float]:
    """By the name of the result."""
    told = {}
    for name, value in ours.items():
        other = peer[name]
        if name == "classes":
            told[name] = float(np.mean(value != other))
        elif name == "spikes":
            told[name] = float(abs(other.sum() / value.sum() - 1))
        else:
            told[name] = float(np.abs(value - other).max() / other.std())
    return told


class Side:
    """Ours or a peer, from its start: a worker, or why there is none."""

    def __init__(self, module: str, found: environment.Environment) -> None:
        self.worker: Worker | None = None
        self.why = found.why
        if found.python is not None:
            try:
                self.worker = Worker(f"tests.benchmarks.{module}", found.python)
            except WorkerError as error:
                self.why = str(error)

    def prepare(self, name: str, file: Path) -> None:
        """Raises WorkerError with the reason where it cannot."""
        if self.worker is None:
            raise WorkerError(self.why)
        self.worker.ask(do="prepare", name=name, file=str(file))

    def time(self, name: str, seconds: float) -> float:
        assert self.worker is not None
        return statistics.median(self.worker.ask(do="time", name=name, seconds=seconds)["ms"])

    def parts(self, name: str) -> str:
        assert self.worker is not None
        parts = self.worker.ask(do="parts", name=name)["parts"]
        return ", ".join(f"{part} {told_ms(value)}" for part, value in parts.items())

    def close(self) -> None:
        if self.worker is not None:
            self.worker.close()


def measure(name: str, ours: Side, peer: Side, rounds: int, seconds: float, peaks: machine.Peaks) -> Row:
    """Prepare both sides, compare their results, let them take turns."""
    packages = PEERS[name][1]
    sides: dict[str, Side] = {}
    notes, told = [], missing(packages[0], peer.why)
    with tempfile.TemporaryDirectory() as folder:
        for label, side in (("ours", ours), ("peer", peer)):
            try:
                side.prepare(name, Path(folder) / f"{label}.npz")
                sides[label] = side
            except WorkerError as error:
                told = missing(packages[0], str(error)) if label == "peer" else told
                notes.append(f"{label}: {error}")
        if "peer" in sides:
            told = ", ".join(f"{package} {peer.worker.packages[package]}" for package in packages)
            told += f"; {SAID[name]}" if name in SAID else ""
        if len(sides) == 2:
            both = [dict(np.load(Path(folder) / f"{label}.npz")) for label in sides]
            notes += agreement(differences(*both))
    taken: dict[str, list[float]] = {label: [] for label in sides}
    for number in range(rounds):
        for label in list(sides)[:: 1 if number % 2 else -1]:
            taken[label].append(sides[label].time(name, seconds))
    medians = {label: statistics.median(times) for label, times in taken.items()}
    for label, side in sides.items():
        if parts := side.parts(name):
            notes.append(f"{label}: {parts}")
        side.worker.ask(do="drop")
    return Row(name, medians.get("ours"), told, medians.get("peer"), COSTS[name].floor_ms(peaks), notes)


def agreement(found: Mapping[str, float]) -> list[str]:
    return [
        f"{result} differ by {value:.1g}" + ("" if value <= TOLERANCES[result] else f", MORE THAN {TOLERANCES[result]}")
        for result, value in found.items()
    ]


def facts(sides: Sequence[Side], peaks: machine.Peaks, rounds: int, seconds: float) -> dict[str, str]:
    """What the figures depend on."""
    packages: dict[str, str] = {}
    for side in sides:
        packages |= side.worker.packages if side.worker is not None else {}
    rates = ", ".join(f"{dtype} {value / 1e9:.0f} G/s" for dtype, value in peaks.multiply_adds.items())
    widths = ", ".join(f"{size / 2**20:g} MiB {value / 1e9:.0f} GB/s" for size, value in peaks.bandwidth.items())
    return machine.describe() | {
        "measured peaks of one core": f"multiply-adds {rates}; bytes {widths}",
        "packages": ", ".join(f"{package} {version}" for package, version in packages.items()),
        "medians": f"of {rounds} rounds in turn, {seconds:g} s each; one thread",
    }


def main() -> None:
    shown = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m tests.benchmarks numerics", description=__doc__, formatter_class=shown
    )
    parser.add_argument("--only", nargs="+", choices=PEERS, default=list(PEERS), help="these works")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.4, help="of each side in a round")
    parser.add_argument("--json", type=Path, default=ROOT / "build" / "bench.json", help="file for the rows")
    parser.add_argument("--results", type=Path, help="a Markdown file to write the table and the machine into")
    parser.add_argument("--section", default="numerics", help="of that file, which is written anew")
    options = parser.parse_args(sys.argv[2:])
    wanted = [name for name in PEERS if name in options.only]
    families = list(dict.fromkeys(PEERS[name][0] for name in wanted))
    found = {family: environment.ensure(family) for family in families}
    print("measuring what one core can do at most", flush=True)
    peaks = machine.measure_peaks()
    ours = Side("ours", environment.Environment(sys.executable))
    peers = {family: Side(f"peer_{family}", found[family]) for family in families}
    rows = []
    for name in wanted:
        print(f"{name} ...", end=" ", flush=True)
        rows.append(measure(name, ours, peers[PEERS[name][0]], options.rounds, options.seconds, peaks))
        print("; ".join(rows[-1].notes), flush=True)
    about = facts([ours, *peers.values()], peaks, options.rounds, options.seconds)
    for side in (ours, *peers.values()):
        side.close()
    write_json(rows, options.json)
    print("\n" + "\n".join(f"{name}: {value}" for name, value in about.items()) + f"\n\n{as_text(rows)}")
    if options.results:
        write_section(options.results, options.section, as_markdown(rows, about))
    if any(row.ours_ms is None or "MORE THAN" in "; ".join(row.notes) for row in rows):
        raise SystemExit("\nours failed, or both sides' results differ by more than they should; see the lines above")
