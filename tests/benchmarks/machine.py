"""What the machine is, and what one of its cores can do at most: the peaks that floors are computed from.

    python -m tests.benchmarks.machine      # as JSON; with one thread only where the environment says so

Multiply-adds: a square product of 1024, by numpy's BLAS. Bandwidth: the faster of a copy (bytes read and written) and a
dot product (bytes read), over as many bytes in all; it falls where they leave a cache. The best of many each, since a
peak is asked for.
"""

import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tests.benchmarks.workers import ONE_THREAD

SIZES = (256 << 10, 1 << 20, 8 << 20, 64 << 20)
VECTORS = ("avx2", "fma", "avx512f", "avx512_bf16", "amx_tile", "asimd", "sve")


@dataclass(frozen=True)
class Peaks:
    """multiply_adds: per second, by type. bandwidth: bytes per second, by bytes in all."""

    multiply_adds: dict[str, float]
    bandwidth: dict[int, float]

    def bandwidth_for(self, size: int) -> float:
        """Of the smallest measured size that holds so many bytes."""
        return self.bandwidth[min((known for known in self.bandwidth if known >= size), default=max(self.bandwidth))]


def best_seconds(work: Callable[[], object], repeats: int) -> float:
    taken = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        taken.append(time.perf_counter() - start)
    return min(taken)


def multiply_adds(dtype: str, size: int = 1024) -> float:
    left, out = np.ones((size, size), dtype), np.empty((size, size), dtype)
    return size**3 / best_seconds(lambda: np.matmul(left, left, out=out), 30)


def bandwidth(size: int) -> float:
    """Many small calls are timed as one, so that the call itself does not count."""
    first, second = (np.ones(size // 8, np.float32) for _ in range(2))
    inner = max(1, (8 << 20) // size)

    def copies() -> None:
        for _ in range(inner):
            np.copyto(second, first)

    def products() -> None:
        for _ in range(inner):
            np.dot(first, second)

    return size * inner / min(best_seconds(copies, 40), best_seconds(products, 40))


def measure_peaks() -> Peaks:
    """In a process of its own, since the number of BLAS threads is read when numpy is imported."""
    told = subprocess.run(
        [sys.executable, "-m", __name__], env=os.environ | ONE_THREAD, stdout=subprocess.PIPE, text=True, check=True
    )
    peaks = json.loads(told.stdout)
    return Peaks(peaks["multiply_adds"], {int(size): value for size, value in peaks["bandwidth"].items()})


def describe() -> dict[str, str]:
    """Processor, its vector instructions, cores and memory, system, and interpreter."""
    listed = {}
    if Path("/usr/bin/lscpu").exists():
        said = json.loads(subprocess.run(["lscpu", "--json"], stdout=subprocess.PIPE, text=True).stdout)
        listed = {entry["field"].rstrip(":"): entry["data"] for entry in flatten(said["lscpu"])}
    flags = listed.get("Flags", "").split()
    model = [listed.get(name, "?") for name in ("Model name", "CPU family", "Model", "Stepping")]
    caches = [f"{level[:-6]} {listed[level]}" for level in ("L1d cache", "L2 cache", "L3 cache") if level in listed]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return {
        "processor": "{}, family {}, model {}, stepping {}".format(*model),
        "vector instructions": ", ".join(name for name in VECTORS if name in flags) or "?",
        "cores and memory": f"{os.cpu_count()} cores, {memory:.0f} GiB",
        "caches": "; ".join(caches) or "?",
        "system": f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        "load at the start": f"{os.getloadavg()[0]:.1f} processes over the last minute",
    }


def flatten(entries: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """lscpu nests its fields in some versions."""
    return [one for entry in entries for one in (entry, *flatten(entry.get("children", [])))]


if __name__ == "__main__":
    peaks = {"multiply_adds": {dtype: multiply_adds(dtype) for dtype in ("float32", "float64")}}
    print(json.dumps(peaks | {"bandwidth": {size: bandwidth(size) for size in SIZES}}))
