"""openretina's side of the table: `SingleCellSeparatedLNP`, one model per cell, for one new output frame of each.

`forward` on the window of the last 30 frames, which is there beforehand, one cell after the other: the model has one
cell. Softplus, evaluation and inference mode, one thread. Kernels are normalised once, and the normalisation in every
forward is switched off (`normalize_weights`), which takes a third less. The part `normalising` has it switched on.
"""

import numpy as np
import torch
from openretina.models.linear_nonlinear import SingleCellSeparatedLNP
from tests.benchmarks import data
from tests.benchmarks.workers import Work, median_ms, serve

PACKAGES = ("openretina", "torch", "lightning", "numpy")


def model(space: np.ndarray, time: np.ndarray) -> SingleCellSeparatedLNP:
    """space: (rank, 1, rows, columns); time: (rank, lags)."""
    cell = SingleCellSeparatedLNP(
        (1, data.LAGS, *data.FRAME), spat_kernel_size=data.FRAME, rank=data.RANK, nonlinearity="softplus"
    ).eval()
    cell.space_conv.weight.data[:] = torch.from_numpy(space)[:, :, None]
    cell.time_conv.weight.data[0, :, :, 0, 0] = torch.from_numpy(time)
    cell.normalize_kernels()
    cell.normalize_weights = False
    return cell


def lnp() -> Work:
    cells = [model(space, time) for space, time in zip(*data.kernels(), strict=True)]
    frames = torch.from_numpy(data.frames())
    windows = [
        frames[end - data.LAGS : end].swapaxes(0, 1)[None].contiguous() for end in range(data.LAGS, len(frames) + 1)
    ]
    results = {"rates": np.array([[cell(window).item() for cell in cells] for window in windows])}
    next_window = data.in_turn(windows)

    def step() -> list[torch.Tensor]:
        window = next_window()
        return [cell(window) for cell in cells]

    def parts() -> dict[str, float]:
        for cell in cells:
            cell.normalize_weights = True
        told = {"normalising": median_ms(step)}
        for cell in cells:
            cell.normalize_weights = False
        return told

    return Work(step, results, parts)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.inference_mode():
        serve(PACKAGES, {"lnp_frame_100x3x30x15x15": lnp})
