"""The broadband chain on a GPU: a block from the host's memory to its counts on the host, transfers included.

    python -m tests.benchmarks gpu                  # on the GPU; without one it says so and runs nothing
    python -m tests.benchmarks gpu --device cpu     # the same program on the CPU, to see that it works

30 kHz, blocks of 10 ms, filter, rereference, covariance, crossings. `answer` is from the call to the counts; `block` is
the time per block when blocks follow each other without a pause, the covariance included. Ours and the stages on one
CPU core take turns, a round of blocks each; medians over all blocks of all rounds.

The floor is what cannot be saved: the block's bytes in one copy from pinned memory, and the chain's multiplications and
additions at the rate of a large float32 product, both measured in the same run.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from neuroloop.gpu.chain import TorchSpikeChain
from neuroloop.signal.covariance import Covariance
from neuroloop.signal.filter_design import design_bandpass
from neuroloop.signal.filters import SosFilter
from neuroloop.signal.rereference import Rereference, car_weights
from neuroloop.signal.spikes import ThresholdCrossings

SRATE = 30_000.0
BLOCK = 300
SOS = design_bandpass((300.0, 6000.0), 4, SRATE)
CALIBRATION_S = 0.2
WARM_UP = 30  # blocks; the calibration is over by then


@dataclass(frozen=True)
class Case:
    name: str
    channels: int
    cluster: int
    goal_ms: float | None = None

    @property
    def clusters(self) -> list[list[int]]:
        return [list(range(first, first + self.cluster)) for first in range(0, self.channels, self.cluster)]

    @property
    def flops(self) -> float:
        """Filter as one product, rereference, covariance."""
        state = BLOCK + 2 * len(SOS)
        return 2.0 * self.channels * state**2 + 4.0 * BLOCK * self.channels * self.cluster

    @property
    def bytes(self) -> int:
        return 4 * BLOCK * self.channels


CASES = (
    Case("gpu_chain_96_dense", 96, 96),
    Case("gpu_chain_256_dense", 256, 256),
    Case("gpu_chain_1024_clustered", 1024, 32),
    Case("gpu_chain_1024_dense", 1024, 1024, goal_ms=0.5),
    Case("gpu_chain_4096_clustered", 4096, 32, goal_ms=1.0),
)


class Stages:
    """The chain on one CPU core."""

    def __init__(self, case: Case) -> None:
        self.filter = SosFilter(SOS, case.channels)
        self.rereference = Rereference(case.clusters, case.channels)
        self.rereference.set_weights(weights(case))
        self.covariance = Covariance(case.clusters, case.channels)
        self.crossings = ThresholdCrossings(case.channels, SRATE, calibration_s=CALIBRATION_S)

    def __call__(self, block: np.ndarray) -> np.ndarray:
        filtered = self.filter(block)
        counts = self.crossings(self.rereference(filtered))
        self.covariance.add(filtered)
        return counts


def weights(case: Case):
    return car_weights([str(channel) for channel in range(case.channels)], case.clusters)


def blocks(case: Case) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    shape = (4, BLOCK, case.channels)
    return list((8 * (rng.standard_normal(shape) + rng.standard_normal((4, BLOCK, 1)))).astype(np.float32))


def times_ms(work: Callable[[], object], count: int) -> list[float]:
    taken = []
    for _ in range(count):
        start = time.perf_counter()
        work()
        taken.append(1000 * (time.perf_counter() - start))
    return taken


def wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def floor_ms(case: Case, device: str) -> tuple[float, float]:
    """The copy of a block's bytes, and its arithmetic at the rate of a large product."""
    pinned = torch.zeros(case.bytes // 4, pin_memory=device == "cuda")
    target = torch.zeros(case.bytes // 4, device=device)
    size = 4096 if device == "cuda" else 512
    left, product = torch.rand(size, size, device=device), torch.empty(size, size, device=device)

    def copy() -> None:
        target.copy_(pinned, non_blocking=True)
        wait(device)

    def multiply() -> None:
        torch.mm(left, left, out=product)
        wait(device)

    copied, multiplied = (statistics.median(times_ms(work, 30)[10:]) for work in (copy, multiply))
    return copied, multiplied * case.flops / (2.0 * size**3)


def measure(case: Case, device: str, rounds: int, count: int) -> dict[str, object]:
    data = blocks(case)
    chain = TorchSpikeChain(SOS, case.channels, SRATE, BLOCK, case.clusters, device=device, calibration_s=CALIBRATION_S)
    chain.set_weights(weights(case))
    stages = Stages(case)
    turn = 0

    def next_block() -> np.ndarray:
        nonlocal turn
        turn = (turn + 1) % len(data)
        return data[turn]

    differing = sum(
        float(np.abs(chain(block) - stages(block)).sum()) for block in (next_block() for _ in range(WARM_UP))
    )
    answers, peers, streams = [], [], []
    for _ in range(rounds):
        for _ in range(count):  # one at a time, as they come: the device is idle when a block comes
            wait(device)
            answers += times_ms(lambda: chain(next_block()), 1)
        wait(device)
        start = time.perf_counter()
        for _ in range(count):
            chain(next_block())
        wait(device)
        streams.append(1000 * (time.perf_counter() - start) / count)
        peers += times_ms(lambda: stages(next_block()), count)
    copied, computed = floor_ms(case, device)
    return {
        "name": case.name,
        "ours_ms": statistics.median(answers),
        "p99_ms": float(np.percentile(answers, 99)),
        "block_ms": statistics.median(streams),
        "goal_ms": case.goal_ms,
        "peer": "neuroloop's stages on one CPU core",
        "peer_ms": statistics.median(peers),
        "ratio": statistics.median(peers) / statistics.median(answers),
        "floor_ms": copied + computed,
        "floor_copy_ms": copied,
        "floor_flops_ms": computed,
        "megabytes": case.bytes / 1e6,
        "gflop": case.flops / 1e9,
        "bytes_per_channel": chain.memory_bytes / case.channels,
        "captured": chain.is_captured,
        "capture_error": chain.device.capture_error,
        "differing_counts": differing,
    }


COLUMNS = (
    "ours_ms",
    "p99_ms",
    "block_ms",
    "goal_ms",
    "peer_ms",
    "ratio",
    "floor_ms",
    "floor_copy_ms",
    "floor_flops_ms",
)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks gpu", description=__doc__)
    parser.add_argument("name", help=argparse.SUPPRESS)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--blocks", type=int, default=100, help="of each kind in a round")
    parser.add_argument("--cases", nargs="*", choices=[case.name for case in CASES], help="by default all")
    parser.add_argument("--out", type=Path, help="write the rows as JSON here too")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.device == "cuda" and not torch.cuda.is_available():
        print(f"gpu: there is no CUDA GPU that PyTorch {torch.__version__} can use; nothing was run")
        return
    name = torch.cuda.get_device_name() if options.device == "cuda" else "CPU, one thread"
    print(f"{name}, PyTorch {torch.__version__}; {BLOCK} samples per block at {SRATE / 1000:g} kHz\n")
    print(f"{'':26}" + "".join(f"{column.removesuffix('_ms'):>12}" for column in COLUMNS) + "   (ms)")
    rows = []
    for case in CASES:
        if options.cases and case.name not in options.cases:
            continue
        row = measure(case, options.device, options.rounds, options.blocks)
        cells = ("-" if row[column] is None else f"{row[column]:.3f}" for column in COLUMNS)
        print(f"{case.name:26}" + "".join(f"{cell:>12}" for cell in cells))
        notes = (
            f"{row['megabytes']:.2f} MB up, {row['gflop']:.2f} GFLOP, {row['bytes_per_channel']:.0f} bytes per channel"
        )
        how = "captured" if row["captured"] else f"no graph ({row['capture_error'] or 'CPU'})"
        print(f"{'':26}  {notes}; {how}; counts that differ: {row['differing_counts']:.0f}", flush=True)
        rows.append(row)
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"device": name, "rows": rows}, indent=1))
