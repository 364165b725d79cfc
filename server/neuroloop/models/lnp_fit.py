"""Fitting LNP encoders to a recording: from the spike-triggered average, by gradients on the Poisson loss.

    stimulus, counts -> STA -> SVD -> kernels, gain, bias -> L-BFGS (or AdamW) with early stopping -> LNP

The default is full-batch L-BFGS: the loss of a bank on minutes of recording is smooth, and tens of evaluations are
enough where a stochastic optimiser takes thousands. AdamW over pieces of `batch_bins` is for recordings too long to
differentiate at once. The last part of the bins is held out, and the parameters of the epoch with the best held-out
correlation are kept; nothing is random but the order of pieces, which is seeded.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models.kept import Kept
from neuroloop.models.lnp import LNP, as_frames
from neuroloop.models.lnp_batch import hold
from neuroloop.models.lnp_fit_settings import LNPFitSettings
from neuroloop.models.lnp_losses import bits_per_spike, correlation
from neuroloop.models.lnp_parameters import LNPSettings, cell_names
from neuroloop.models.lnp_start import start_from_spikes
from neuroloop.models.lnp_torch import LNPModule
from neuroloop.models.receptive_fields import Frame
from neuroloop.models.torch_threads import threads

__all__ = ["LNPFit", "LNPFitSettings", "LNPScore", "fit", "score"]

F64 = NDArray[np.float64]
Bins = NDArray[np.bool_]


@dataclass(frozen=True, eq=False, slots=True)
class LNPFit:
    """A fitted bank. curve: held-out correlation after each epoch, or the loss where nothing was held out."""

    model: LNP
    curve: list[float]


@dataclass(frozen=True, eq=False, slots=True)
class LNPScore:
    """Of each cell: (cells,) each."""

    bits_per_spike: F64
    correlation: F64


def fit(
    stimulus: NDArray[Any],
    counts: NDArray[Any],
    settings: LNPSettings | None = None,
    training: LNPFitSettings | None = None,
    *,
    cells: Sequence[str] | None = None,
    locations: NDArray[Any] | None = None,
    use: Bins | None = None,
    on_epoch: Callable[[int, float], None] | None = None,
    kept: Kept = Kept(),  # noqa: B008 (immutable)
) -> LNPFit:
    """Fit a bank of cells.

    stimulus: (time,) for a series, (time, channels), (time, rows, columns) or (time, channels, rows, columns); what is
    not finite is held. counts: (time,) or (time, cells), spikes in each bin. cells: their names.
    locations: (cells, 2), the pixel under the middle of each kernel; where the kernel is smaller than the frame, by
    default that of the largest spike-triggered average. use: (time,), which bins are learned from; all by default.
    on_epoch: called after each epoch with its number, from 1, and its point of the curve; what it raises ends the fit.
    kept: what it goes on from, to the same end.
    The stimulus before a bin, and the spikes that history and coupling look back on, count whether used or not.
    Raises ModelError where shapes do not fit, there is nothing to learn from, or Lightning is not installed.
    """
    settings, training = settings or LNPSettings(), training or LNPFitSettings()
    frames, frame = _frames(stimulus)
    spikes = _spikes(counts, len(frames))
    names = cell_names(spikes.shape[1] if cells is None else cells)
    if len(names) != spikes.shape[1]:
        raise ModelError(f"cells: expected a name for each of {spikes.shape[1]} cells, got {len(names)}")
    train, windows = _lightning()
    lead = max(settings.lags - 1, settings.history, settings.coupling)
    used = _used(use, len(frames), lead)
    learn, held_out = _split(used, training.validation)
    start = start_from_spikes(frames, spikes, settings, frame, locations, learn)
    exact = training.optimizer == "lbfgs"
    model = LNPModule(start, settings, frame).to(torch.float64 if exact else torch.float32)
    dtype = model.gain.dtype
    pixels = model.pixels(torch.from_numpy(frames).to(dtype).transpose(0, 1)[None])[0]
    tensors = pixels, torch.from_numpy(spikes).to(dtype)
    bins = len(frames) if exact else training.batch_bins
    pieces = [windows(*tensors, torch.from_numpy(learn).to(dtype), lead, bins)]
    pieces += [windows(*tensors, torch.from_numpy(held_out).to(dtype), lead, len(frames))]
    with threads(training.threads):
        curve = train(model, pieces[0], pieces[1] if held_out.any() else None, training, on_epoch, kept)
    return LNPFit(LNP(names, frame, settings, **model.export().arrays()), curve)


def score(bank: LNP, stimulus: NDArray[Any], counts: NDArray[Any], use: Bins | None = None) -> LNPScore:
    """Bits per spike over the mean rate, and correlation, of each cell in the bins `use` that have all their lags."""
    frames = as_frames(stimulus, bank.frame)
    spikes = _spikes(counts, len(frames))
    used = _used(use, len(frames), bank.settings.lags - 1)
    rates = bank.run(frames, spikes)[used]
    return LNPScore(bits_per_spike(rates, spikes[used]), correlation(rates[None], spikes[used][None])[0])


def _frames(stimulus: NDArray[Any]) -> tuple[F64, Frame]:
    """(time, channels, rows, columns) float64 without holes, and the size of a frame."""
    array = np.asarray(stimulus, dtype=np.float64)
    if not 1 <= array.ndim <= 4 or array.size == 0:
        raise ModelError(
            "stimulus: expected (time,), (time, channels), (time, rows, columns) or (time, channels, rows, columns), "
            f"got {array.shape}"
        )
    frame = {1: (1, 1, 1), 2: (*array.shape[1:], 1, 1), 3: (1, *array.shape[1:]), 4: array.shape[1:]}[array.ndim]
    held = hold(array.reshape(1, len(array), -1))[0]
    return held.reshape(len(array), *frame), (frame[0], frame[1], frame[2])


def _spikes(counts: NDArray[Any], frames: int) -> F64:
    """(time, cells) float64."""
    spikes = np.asarray(counts, dtype=np.float64)
    spikes = spikes[:, None] if spikes.ndim == 1 else spikes
    if spikes.ndim != 2 or len(spikes) != frames or spikes.shape[1] == 0:
        raise ModelError(
            f"counts: expected ({frames},) or ({frames}, cells), as many as frames, got {np.shape(counts)}"
        )
    if not np.isfinite(spikes).all() or (spikes < 0).any():
        raise ModelError("counts: expected finite numbers from 0 on; leave bins without a count out with `use`")
    return spikes


def _used(use: Bins | None, frames: int, lead: int) -> Bins:
    """Which bins count, (time,): those asked for that come after the `lead` frames on which they depend."""
    used = np.ones(frames, np.bool_) if use is None else np.array(use)
    if used.shape != (frames,) or used.dtype != np.bool_:
        raise ModelError(f"use: expected ({frames},) of bool, got {used.shape} of {used.dtype}")
    used[:lead] = False
    if not used.any():
        raise ModelError(f"use: no bin is left of {frames}, each after the {lead} that it depends on")
    return used


def _split(used: Bins, share: float) -> tuple[Bins, Bins]:
    """The bins to learn from, and the last share of them, which is held out."""
    indices = np.flatnonzero(used)
    held_out = np.zeros_like(used)
    held_out[indices[len(indices) - round(share * len(indices)) :]] = True
    return used & ~held_out, held_out


def _lightning() -> tuple[Any, Any]:
    """The training loop. Raises ModelError, naming the extra, where Lightning is not installed."""
    try:
        from neuroloop.models.lnp_training import Windows, train
    except ModuleNotFoundError as error:
        raise ModelError(f"fitting needs {error.name}: install it with pip install 'neuroloop[train]'") from error
    return train, Windows
