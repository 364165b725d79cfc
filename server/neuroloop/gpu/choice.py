"""Where a session's chain runs: `auto` takes the GPU only where it is clearly faster at the session's size.

Both sides are estimated for one block of n samples and C channels, sum k^2 over the clusters of k channels:

    CPU   n C 0.9 ns  +  4 n sum k^2 / 170 GFLOP/s
    GPU   0.3 ms  +  4 n C (1 / 10 GB/s + 1 / 20 GB/s)  +  (2 C (n + 8)^2 + 4 n sum k^2) / 20 TFLOP/s

The CPU's figures are measured, with one thread of an AVX-512 server: 0.12 ms for 96 channels in one cluster and 300
samples (estimated 0.09), 0.56 ms for 1024 in clusters of 32 (0.51), 7.5 ms for 1024 in one (7.7). The GPU's are
estimates for a data-centre GPU on PCIe: 143 small kernels of 2 microseconds in the graph of the answer, the copy into
pinned memory and the one to the device, products in float32. So the GPU is asked to be twice as fast, which pays for
what the estimate leaves out, such as seconds to start and half a gigabyte for CUDA itself. At 30 kHz that is from about
320 channels in one cluster on with blocks of 10 ms, and 670 with blocks of 2 ms; with clusters of 32 from about 5300
channels on, or never. A headset never.

PyTorch takes a second to import and is not, where the answer is the CPU.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from neuroloop.errors import ConfigError

Requested = Literal["auto", "cpu", "cuda"]
Device = Literal["cpu", "cuda"]

CPU_SAMPLE_S = 0.9e-9  # filter, crossings and the passes over memory, per sample and channel
CPU_FLOPS = 170e9
GPU_BLOCK_S = 0.3e-3
GPU_FLOPS = 20e12
STAGING_BYTES_PER_S = 10e9
PCIE_BYTES_PER_S = 20e9
FILTER_STATE = 8
CLEARLY = 2.0


def cpu_seconds(block_samples: int, channels: int, clusters: Sequence[Sequence[int]]) -> float:
    """Estimated time of a block on one CPU core."""
    return block_samples * channels * CPU_SAMPLE_S + _product_flops(block_samples, clusters) / CPU_FLOPS


def gpu_seconds(block_samples: int, channels: int, clusters: Sequence[Sequence[int]]) -> float:
    """Estimated time of a block on a GPU, transfers included."""
    transfer = 4 * block_samples * channels * (1 / STAGING_BYTES_PER_S + 1 / PCIE_BYTES_PER_S)
    flops = 2 * channels * (block_samples + FILTER_STATE) ** 2 + _product_flops(block_samples, clusters)
    return GPU_BLOCK_S + transfer + flops / GPU_FLOPS


def _product_flops(block_samples: int, clusters: Sequence[Sequence[int]]) -> int:
    """Of the rereference and of the covariance."""
    return 4 * block_samples * sum(len(cluster) ** 2 for cluster in clusters)


def choose_device(
    requested: Requested, *, block_samples: int, channels: int, clusters: Sequence[Sequence[int]]
) -> Device:
    """The device for a broadband chain of this size. clusters: of the rereference; empty where there is none.

    Raises ConfigError where `cuda` is asked for and there is none.
    """
    if requested == "cpu":
        return "cpu"
    if requested == "cuda":
        missing = missing_cuda()
        if missing:
            raise ConfigError(f"device: expected a CUDA GPU, found {missing}; or set device to cpu or auto")
        return "cuda"
    size = (block_samples, channels, clusters)
    if cpu_seconds(*size) < CLEARLY * gpu_seconds(*size):
        return "cpu"
    return "cpu" if missing_cuda() else "cuda"


def missing_cuda() -> str | None:
    """What there is instead of a CUDA GPU, and what to do; None where there is one."""
    import torch

    if torch.cuda.is_available():
        return None
    if torch.version.cuda is None:
        return f"PyTorch {torch.__version__}, which is built without CUDA: install PyTorch's CUDA build"
    return (
        f"none that PyTorch {torch.__version__} with CUDA {torch.version.cuda} can use: "
        "see whether nvidia-smi lists one, and whether its driver is recent enough"
    )
