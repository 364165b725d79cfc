"""openretina's side of the table: `SingleCellSeparatedLNP`, one model per cell, for one new output frame of each.

`forward` on the window of the last 30 frames, which is there beforehand, one cell after the other: the model has one
cell. Softplus, evaluation and inference mode, one thread. Kernels are normalised once, and the normalisation in every
forward is switched off (`normalize_weights`), which takes a third less. The part `normalising` has it switched on.

A fit is one of a cell, and takes as long for each of 100: its `forward`, loss and optimiser, in a loop without the
Trainer, over pieces of 200 bins, until the held-out correlation has not grown for 5 epochs; its scheduler is told that
correlation as the Trainer would. Ten times its default learning rate, with which it is done sooner and fits as well;
kernels are not normalised, for of unit norm and without a gain they could not give the rates.
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


@torch.inference_mode()
def lnp() -> Work:
    cells = [model(space, time) for space, time in zip(*data.kernels(), strict=True)]
    frames = torch.from_numpy(data.frames())
    windows = [
        frames[end - data.LAGS : end].swapaxes(0, 1)[None].contiguous() for end in range(data.LAGS, len(frames) + 1)
    ]
    results = {"rates": np.array([[cell(window).item() for cell in cells] for window in windows])}
    next_window = data.in_turn(windows)

    @torch.inference_mode()
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


PIECE, PATIENCE, MOST_EPOCHS = 200, 5, 100


def fit_one(frames: torch.Tensor, counts: torch.Tensor) -> float:
    """The held-out correlation of a cell. frames: (1, 1, bins, rows, columns); counts: (1, bins, 1)."""
    torch.manual_seed(0)
    cell = SingleCellSeparatedLNP(
        (1, data.FIT_LAGS, *data.FIT_FRAME),
        spat_kernel_size=data.FIT_FRAME,
        learning_rate=1e-2,
        nonlinearity="softplus",
        normalize_weights=False,
    )
    chosen = cell.configure_optimizers()
    optimizer, scheduler = chosen["optimizer"], chosen["lr_scheduler"]["scheduler"]
    lead, learned = data.FIT_LAGS - 1, data.FIT_BINS - data.HELD_OUT
    spans = [(first, min(first + lead + PIECE, learned)) for first in range(0, learned - lead, PIECE)]
    best, since = -1.0, 0
    for _ in range(MOST_EPOCHS):
        for first, last in spans:
            optimizer.zero_grad(set_to_none=True)
            loss = cell.loss(cell(frames[:, :, first:last]), counts[:, first + lead : last])
            (loss + cell.regularizer()).backward()
            optimizer.step()
        with torch.no_grad():
            answers = cell(frames[:, :, learned - lead :])
            correlation = cell.evaluation_loss(answers, counts[:, learned:]).item()
        scheduler.step(correlation)
        since = 0 if correlation > best + 1e-4 else since + 1
        best = max(best, correlation)
        if since == PATIENCE:
            break
    return best


def lnp_fit() -> Work:
    given, spikes = data.lnp_recording()
    frames, counts = torch.from_numpy(given)[None, None], torch.from_numpy(spikes.astype(np.float32))[None]
    next_cell = data.in_turn(range(data.CELLS))

    def step() -> float:
        cell = next_cell()
        return fit_one(frames, counts[:, :, cell : cell + 1])

    found = [step() for _ in range(5)]
    return Work(step, {}, lambda: {"held-out correlation of five": float(np.mean(found))}, data.CELLS)


if __name__ == "__main__":
    torch.set_num_threads(1)
    serve(PACKAGES, {"lnp_frame_100x3x30x15x15": lnp, "lnp_fit_100_cells": lnp_fit})
