"""What LRR weights from many recordings cost, as a map and a sum, and training that nodes share (`ray_training`):
without Ray, and on clusters of 1 and 2 nodes.

Recordings are samples of noise with a common mode. Each time is that of a whole fit through its executor, with the
start of every process, the way of the data to the nodes and back, and the solving. The model under the table is fitted
to the measured times by least squares, seconds = fixed + each * ceil(recordings / nodes); on paper, with more of both.
The nodes share this machine: with more nodes than cores, its cores are what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tests.benchmarks import ray_training
from tests.integration.ray_cluster import cluster_of

from neuroloop.server_config import RayFitSettings
from neuroloop.training.executor import Executor, LocalExecutor
from neuroloop.training.job import link_name

STORE = 1 << 30  # bytes a node
ENGINES = (0, 1, 2)  # nodes; 0 is `engine: local`
BEYOND = ((10, 1), (10, 4), (100, 1), (100, 10), (100, 50))  # recordings and nodes


def write_recording(path: Path, channels: int, samples: int) -> None:
    generator = np.random.default_rng(1)
    data = generator.standard_normal((channels, samples), np.float32) + 5 * generator.standard_normal(
        samples, np.float32
    )
    one: dict[str, Any] = {"run_start_sample": [0], "event_sample": [0], "event_label": [0], "label_names": ["start"]}
    described = {"fs": 1000.0, "ch_names": [f"c{c}" for c in range(channels)], "timestamps": np.arange(samples) / 1e3}
    np.savez(path, data=data, **{key: np.array(value) for key, value in (described | one).items()})


def seconds(executor: Executor, recording: Path, count: int) -> float:
    """Of a fit from so many recordings, each of which is this one."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = {"recordings": [{"name": "day.npz"}] * count}
        asked = {"name": "weights", "kind": "lrr", "source": source}
        (folder / "job.json").write_text(json.dumps({"id": "benchmark", "request": asked}))
        for index in range(count):
            (folder / link_name(index, ".npz")).symlink_to(recording)
        began = time.perf_counter()
        asyncio.run(executor.run(folder, lambda *_: None, lambda _: None))
        return time.perf_counter() - began


@contextmanager
def engine(nodes: int) -> Iterator[Executor]:
    if nodes == 0:
        yield LocalExecutor()
        return
    with cluster_of(nodes, STORE):
        from neuroloop.training.ray_executor import RayExecutor

        yield RayExecutor(RayFitSettings())


def model(times: dict[tuple[int, int], float]) -> tuple[float, float]:
    """Fixed seconds, and those of each turn of a node, of a cluster; times: by recordings and nodes."""
    turns = [[1.0, math.ceil(count / nodes)] for count, nodes in times if nodes]
    measured = [taken for (_, nodes), taken in times.items() if nodes]
    (fixed, each), *_ = np.linalg.lstsq(np.array(turns), np.array(measured), rcond=None)
    return float(fixed), float(each)


def table(counts: Sequence[int], times: dict[tuple[int, int], float]) -> str:
    names = {0: "local", 1: "1 node", 2: "2 nodes"}
    lines = ["recordings" + "".join(f"{names[nodes] + ' s':>12}" for nodes in ENGINES) + "   1 / 2 nodes"]
    for count in counts:
        taken = "".join(f"{times[count, nodes]:12.1f}" for nodes in ENGINES)
        lines.append(f"{count:10}{taken}{times[count, 1] / times[count, 2]:14.2f}")
    return "\n".join(lines)


def measure_recordings(channels: int, samples: int, counts: Sequence[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        recording = Path(folder) / "day.npz"
        write_recording(recording, channels, samples)
        megabytes = recording.stat().st_size / 1e6
        times = {}
        for nodes in ENGINES:
            with engine(nodes) as executor:
                seconds(executor, recording, 1)  # nothing is imported or compiled for the first time after this
                for count in counts:
                    times[count, nodes] = seconds(executor, recording, count)
    print(f"{channels} channels, {samples} samples, {megabytes:.0f} MB a recording")
    print(table(counts, times))
    fixed, each = model(times)
    print(f"seconds = {fixed:.1f} + {each:.1f} * ceil(recordings / nodes)")
    for count, nodes in BEYOND:
        print(f"{count:4} recordings on {nodes:2} nodes: {fixed + each * math.ceil(count / nodes):6.0f} s on paper")


def measure_training(amounts: dict[str, Sequence[int]]) -> None:
    asked = [(kind, amount) for kind, of_kind in amounts.items() for amount in of_kind]
    times = {}
    for nodes in ENGINES:
        with engine(nodes) as executor:
            for kind, amount in asked:
                taken = ray_training.epochs(executor, kind, amount, max(1, nodes))
                times[kind, amount, nodes] = taken
                name = f"{nodes} nodes" if nodes else "local"
                print(f"{kind} on {amount}, {name}: {taken.seconds:.2f} s an epoch", flush=True)
    for kind, of_kind in amounts.items():
        if of_kind:
            print(ray_training.report(kind, of_kind, times))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks ray", description=__doc__)
    parser.add_argument("--channels", type=int, default=96)
    parser.add_argument("--samples", type=int, default=300_000)
    parser.add_argument("--recordings", type=int, nargs="*", default=[2, 8])
    parser.add_argument("--bins", type=int, nargs="*", default=[20_000, 40_000], help="of shared training of lfr")
    parser.add_argument("--trials", type=int, nargs="*", default=[4_000, 8_000], help="of shared training of gsnn")
    options = parser.parse_args(sys.argv[2:])
    began = time.perf_counter()
    if options.recordings:
        measure_recordings(options.channels, options.samples, options.recordings)
    if options.bins or options.trials:
        measure_training({"lfr": options.bins, "gsnn": options.trials})
    print(f"{time.perf_counter() - began:.0f} s in all")


if __name__ == "__main__":
    main()
