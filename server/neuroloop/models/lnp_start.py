"""What an LNP fit starts from: kernels from the spike-triggered average, gain and bias from regression.

With unit-norm kernels the drive u = sum_r <t_r, s_r x> has an arbitrary size: a fit that began at gain 1 might begin at
rates of e^50. One regression of the counts on u, through the nonlinearity's slope at the mean rate, sets it right.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models import lnp_batch, nonlinearities, spike_triggered
from neuroloop.models.lnp_parameters import LNPParameters, LNPSettings, make_parameters
from neuroloop.models.receptive_fields import Frame, lay_out

F64 = NDArray[np.float64]
MODERATE = 2.0  # units of drive, at one standard deviation: the response is near enough to linear


def start_from_spikes(
    frames: F64,
    spikes: F64,
    settings: LNPSettings,
    frame: Frame,
    locations: NDArray[Any] | None,
    use: NDArray[np.bool_],
) -> LNPParameters:
    """frames: (time, channels, rows, columns), finite. spikes: (time, cells). use: (time,), which bins to learn from.

    locations: (cells, 2), of the kernels; None for the frame's centre, or the pixel of the largest average where the
    kernel is smaller than the frame. Spike filters start at 0.
    Raises ModelError for a rank that kernels of this size can't have.
    """
    kernel, cells = settings.kernel_on(frame), spikes.shape[1]
    largest = min(settings.lags, frame[0] * kernel[0] * kernel[1])
    if settings.rank > largest:
        raise ModelError(
            f"LNP rank: expected at most {largest}, which kernels of {settings.lags} lags and "
            f"{frame[0]} x {kernel[0]} x {kernel[1]} pixels can have, got {settings.rank}"
        )
    seen = frames[use]
    mean, scale = seen.mean(axis=(0, 2, 3)), seen.std(axis=(0, 2, 3))
    scale[scale <= 1e-9 * np.abs(mean)] = 1.0  # constant, but for rounding
    standard = (frames - mean[:, None, None]) / scale[:, None, None]
    filters = spike_triggered.average(standard, spikes, settings.lags, use)
    given: dict[str, Any] = {"mean": mean, "scale": scale}
    if locations is not None:
        given["locations"] = locations
    elif kernel != frame[1:]:
        given["locations"] = spike_triggered.locate(filters)
    made = make_parameters(settings, cells, frame, given)
    own = lay_out(made.locations, kernel, frame).pick(filters)
    space, given["time"] = spike_triggered.separate(own, settings.rank)
    given["space"] = space.reshape(cells, settings.rank, frame[0], *kernel)
    made = make_parameters(settings, cells, frame, given)
    drive = lnp_batch.stimulus_drive(made, settings, frame, frames.swapaxes(0, 1)[None])[0]
    given["gain"], given["bias"] = _regress(drive[use[settings.lags - 1 :]], spikes[use], settings)
    return make_parameters(settings, cells, frame, given)


def _regress(drive: F64, spikes: F64, settings: LNPSettings) -> tuple[F64, F64]:
    """Gain and bias, (cells,) each. drive, spikes: (bins, cells)."""
    rates = np.maximum(spikes.mean(axis=0), 0.5 / len(spikes))
    bias = nonlinearities.drive_of(settings.nonlinearity, rates)
    variance = drive.var(axis=0)
    known = np.where(variance > 0, variance, 1.0)
    covariance = ((drive - drive.mean(axis=0)) * spikes).mean(axis=0)
    gain = covariance / known / nonlinearities.slope(settings.nonlinearity, bias)
    gain = np.where(variance > 0, np.clip(gain, 0.0, MODERATE / np.sqrt(known)), 1.0)
    return gain, bias - gain * drive.mean(axis=0)
