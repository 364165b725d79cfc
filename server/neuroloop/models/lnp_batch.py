"""LNP encoders on whole recordings, in numpy: the definition that the streaming form is tested against.

The frames are projected on all kernels in one product, then each lag adds its share: frames * pixels * cells * rank
multiply-adds in BLAS, and frames * lags * cells * rank outside it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models.lnp_parameters import LNPParameters, LNPSettings
from neuroloop.models.nonlinearities import rate
from neuroloop.models.receptive_fields import Frame, Layout, lay_out


def forward(
    parameters: LNPParameters,
    settings: LNPSettings,
    frame: Frame,
    x: NDArray[Any],
    counts: NDArray[Any] | None = None,
) -> NDArray[Any]:
    """Rates, (batch, frames - lags + 1, cells): output i from frames i to i + lags - 1.

    x: (batch, channels, frames, height, width); float64 is computed in float64, everything else in float32. A value
    that is not finite counts as missing: the pixel keeps what it was, the mean at first.
    counts: (batch, frames, cells), spikes in each frame; needed where the settings have history or coupling.
    Raises ModelError for another shape, or fewer frames than lags.
    """
    drive = parameters.gain * stimulus_drive(parameters, settings, frame, x) + parameters.bias
    if settings.history or settings.coupling:
        drive += _spike_drive(parameters, counts, np.shape(x)[2], drive.dtype)[:, settings.lags - 1 :]
    shape = (parameters.softplus_a, parameters.softplus_b, parameters.softplus_w)
    return rate(settings.nonlinearity, drive, *shape).astype(drive.dtype, copy=False)


def stimulus_drive(parameters: LNPParameters, settings: LNPSettings, frame: Frame, x: NDArray[Any]) -> NDArray[Any]:
    """What the kernels make of the stimulus, before gain and bias: (batch, frames - lags + 1, cells). As `forward`."""
    x = np.asarray(x)
    if x.ndim != 5 or (x.shape[1], *x.shape[3:]) != frame:
        raise ModelError(f"stimulus: expected (batch, {frame[0]}, frames, {frame[1]}, {frame[2]}), got {x.shape}")
    if x.shape[2] < settings.lags:
        raise ModelError(f"stimulus: expected at least as many frames as lags, {settings.lags}, got {x.shape[2]}")
    dtype = np.float64 if x.dtype == np.float64 else np.float32
    layout = lay_out(parameters.locations, settings.kernel_on(frame), frame)
    space, time = parameters.kernels(settings.normalize_weights)
    space, time = space.astype(dtype), time.astype(dtype)
    projections = _pixels(parameters, layout, x, dtype) @ layout.lay(space).reshape(-1, layout.pixels).T
    projections = projections.reshape(*projections.shape[:2], *time.shape[:2])
    outputs = x.shape[2] - settings.lags + 1
    drive = np.zeros((len(x), outputs, len(time)), dtype)
    for lag in range(settings.lags):
        drive += (projections[:, lag : lag + outputs] * time[..., lag]).sum(axis=3)
    return drive


def _pixels(parameters: LNPParameters, layout: Layout, x: NDArray[Any], dtype: Any) -> NDArray[Any]:
    """The box of each frame, standardised, what is missing filled in: (batch, frames, pixels)."""
    shape = (-1, 1, 1, 1)
    box = (layout.cut(x).astype(dtype) - parameters.mean.reshape(shape)) / parameters.scale.reshape(shape)
    frames = np.ascontiguousarray(box.swapaxes(1, 2)).reshape(len(x), x.shape[2], -1)
    return hold(frames.astype(dtype, copy=False))


def hold(frames: NDArray[Any]) -> NDArray[Any]:
    """Frames (batch, frames, pixels) where a value that is not finite is the pixel's last one, 0 before the first."""
    if np.isfinite(frames).all():
        return frames
    held = frames.copy()
    before = np.zeros_like(held[:, 0])
    for t in range(held.shape[1]):
        before = np.where(np.isfinite(held[:, t]), held[:, t], before)
        held[:, t] = before
    return held


def _spike_drive(parameters: LNPParameters, counts: NDArray[Any] | None, frames: int, dtype: Any) -> NDArray[Any]:
    """What earlier spikes add to the drive, (batch, frames, cells)."""
    cells = len(parameters.gain)
    if counts is None or np.ndim(counts) != 3 or np.shape(counts)[1:] != (frames, cells):
        got = "none" if counts is None else np.shape(counts)
        raise ModelError(f"counts: this model has spike filters; expected (batch, {frames}, {cells}), got {got}")
    spikes = np.nan_to_num(np.asarray(counts, dtype=dtype), nan=0.0, posinf=0.0, neginf=0.0)
    drive = np.zeros(spikes.shape, dtype)
    for lag in range(parameters.history.shape[1]):
        drive[:, lag + 1 :] += spikes[:, : max(frames - lag - 1, 0)] * parameters.history[:, lag]
    for lag in range(parameters.coupling.shape[2]):
        drive[:, lag + 1 :] += spikes[:, : max(frames - lag - 1, 0)] @ parameters.coupling[..., lag].T.astype(dtype)
    return drive
