"""A bank of LNP encoders that answers every stimulus frame: kernels in space and time, a nonlinearity, spike filters.

`neuroloop.models.lnp_parameters` has the formula. Each frame is projected once on the spatial kernels of all cells,
into a ring of T projections; a rate is then one dot product with the temporal kernel per cell and rank, not T. Where
the cells look at nearly the same pixels, their kernels are laid over the box of the frame that holds them all, and the
projection is one product; where they are scattered, the pixels of each are gathered first: whichever costs less.

Cost per frame: (pixels + lags) * cells * rank multiply-adds, and each kernel is read once. For 100 cells of rank 3 with
30 x 15 x 15 kernels that is 77 000 multiply-adds over 0.34 MB: kernels and ring. Merely reading these takes 3.3
microseconds on one core of an Intel Xeon (Sapphire Rapids), out of its second cache; `predict` takes 10, of which the
projection is 5, the temporal kernels 2, the softplus 2 and the call 1. `adapt` takes 24 more.

Online learning, `adapt`, is a gradient step on the Poisson loss of the frame predicted last, on gain, bias, temporal
kernels (through their normalisation), spike history and coupling. Spatial kernels stay, and with them the projections
in the ring. With e = f'(z) (1 - n / f(z)) the slope of the loss at the drive z, I = f'(z)^2 / f(z) the Fisher
information, and phi the gradient of z with respect to the parameters, the step is

    - learning_rate e phi / (1 + learning_rate I |phi|^2)

the implicit form of a gradient step, to first order: it moves the drive by e / I at most, about onto the observed
count, so that no learning rate and no size of stimulus makes it diverge.

Missing pixels (NaN, Inf) are held: the pixel keeps its last value, the mean before the first; `missing` counts them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models import lnp_batch, lnp_files
from neuroloop.models.lnp_parameters import LNPParameters, LNPSettings, cell_names, check_frame_size, make_parameters
from neuroloop.models.lnp_state import LNPState
from neuroloop.models.receptive_fields import Frame

F32 = NDArray[np.float32]


class LNP:
    """A bank of cells, as a stream and on whole recordings.

    cells: their names, or how many. frame: (channels, rows, columns) of the stimulus.
    parameters: any of `LNPParameters` by name; the rest are kernels of zeros, gain 1, bias 0, at the frame's centre.

    >>> bank = LNP(["a", "b"], (1, 8, 8), LNPSettings(lags=5), bias=[0.0, 1.0])
    >>> bank.predict(np.zeros((1, 8, 8)))  # expected spikes in this frame
    array([0.6931472, 1.3132616], dtype=float32)
    """

    kind = "lnp"
    settings_model = LNPSettings

    def __init__(
        self, cells: Sequence[str] | int, frame: Frame, settings: LNPSettings | None = None, **parameters: Any
    ) -> None:
        self.cells = cell_names(cells)
        self.frame = check_frame_size(frame)
        self.settings = settings or LNPSettings()
        self.missing = 0  # values among the frames' that were not finite
        made = make_parameters(self.settings, len(self.cells), self.frame, parameters)
        self._state = LNPState(made, self.settings, self.frame)
        self._compile()

    @classmethod
    def for_series(
        cls, cells: Sequence[str] | int = 1, settings: LNPSettings | None = None, channels: int = 1, **parameters: Any
    ) -> LNP:
        """A bank for a stimulus of one number per bin (a sound's amplitude, a full-field flicker), or of `channels`."""
        return cls(cells, (channels, 1, 1), settings, **parameters)

    @classmethod
    def load(cls, data: bytes) -> LNP:
        """The bank that `save` wrote, at the start of a stream. Raises ModelError for anything else."""
        cells, frame, settings, arrays = lnp_files.read(data)
        return cls(cells, frame, settings, **arrays)

    def save(self) -> bytes:
        """Settings and parameters as a safetensors file."""
        return lnp_files.write(self.cells, self.frame, self.settings, self.parameters)

    @property
    def parameters(self) -> LNPParameters:
        """As given, with what was learned since."""
        return self._state.parameters()

    def predict(self, stimulus: Any) -> F32:
        """Expected spikes of each cell in the newest frame, (cells,) float32; valid until the next call.

        stimulus: a frame (channels, rows, columns), or without its axes of size 1; or, with one more axis in front, all
        frames since the last call, oldest first. Frames before the first count as the mean stimulus.
        Raises ModelError, and takes nothing in, for another shape.
        """
        state = self._state
        if isinstance(stimulus, np.ndarray) and stimulus.shape == self.frame and stimulus.dtype.kind == "f":
            self.missing += state.step(stimulus)
            return state.rates
        for frame in as_frames(stimulus, self.frame):
            self.missing += state.step(frame)
        return state.rates

    def observe(self, counts: Any) -> None:
        """The spikes of each cell, (cells,), in the frame predicted last; history and coupling act on them.

        A frame that nobody reports counts as silent, and so does NaN.
        Raises ModelError, and keeps nothing, for another size, negative counts, or when there is no such frame.
        """
        self._state.observe(np.nan_to_num(self._check_counts(counts), nan=0.0))

    def adapt(self, counts: Any) -> None:
        """`observe`, after a gradient step on the counts; NaN for a cell that is not to learn."""
        padded = self._check_counts(counts)
        self._state.learn(padded)
        self._state.observe(np.nan_to_num(padded, nan=0.0))

    def learn(self, stimulus: Any, counts: Any) -> None:
        """`predict`, then `adapt`: of a frame whose spikes are known already."""
        self.predict(stimulus)
        self.adapt(counts)

    def reset(self) -> None:
        """A hole in the stimulus or a run's start: forget the frames and spikes before. What was learned stays."""
        self._state.reset()

    def run(self, stimulus: Any, counts: Any = None) -> NDArray[Any]:
        """The rates of every frame, (frames, cells): those of `predict` frame by frame after a reset, in one product.

        stimulus: (frames, channels, rows, columns), or without its axes of size 1. counts: (frames, cells), or
        (frames,) for one cell; observed after each frame. The stream is left as it is.
        """
        frames = as_frames(stimulus, self.frame)
        padding = self.settings.lags - 1
        mean = self.parameters.mean[:, None, None].astype(frames.dtype)
        before = np.broadcast_to(mean, (padding, *self.frame))
        if counts is not None:
            spikes = np.asarray(counts, dtype=frames.dtype).reshape(len(frames), -1)
            counts = np.concatenate([np.zeros((padding, spikes.shape[1]), frames.dtype), spikes])[None]
        rates: NDArray[Any] = self.forward(np.concatenate([before, frames]).swapaxes(0, 1)[None], counts)[0]
        return rates

    def forward(self, x: NDArray[Any], counts: NDArray[Any] | None = None) -> NDArray[Any]:
        """Rates of batches, (batch, frames - lags + 1, cells), of x (batch, channels, frames, rows, columns).

        As `neuroloop.models.lnp_batch.forward`.
        """
        return lnp_batch.forward(self.parameters, self.settings, self.frame, x, counts)

    def state_dict(self) -> dict[str, Any]:
        """Everything that the next answer depends on: parameters, and the frames and spikes before."""
        about = {"kind": self.kind, "cells": list(self.cells), "settings": self.settings.model_dump(mode="json")}
        return about | {"missing": self.missing} | self._state.stream() | self.parameters.arrays()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over another bank's parameters and stream; the settings stay this one's.

        Raises ModelError, and changes nothing, where kind, cells, shapes or values do not fit.
        """
        for name, expected in (("kind", self.kind), ("cells", list(self.cells))):
            if state.get(name) != expected:
                raise ModelError(f"encoder state: expected {name} {expected!r}, got {state.get(name)!r}")
        names = self.parameters.arrays()
        absent = [name for name in (*names, *self._state.stream(), "missing") if name not in state]
        if absent:
            raise ModelError(f"encoder state: {', '.join(absent)} is missing")
        made = make_parameters(self.settings, len(self.cells), self.frame, {name: state[name] for name in names})
        loaded = LNPState(made, self.settings, self.frame)
        loaded.restore(state)
        self._state, self.missing = loaded, int(state["missing"])

    def _check_counts(self, counts: Any) -> F32:
        """Counts as the kernels take them, (width,) float32, NaN after the last cell."""
        values = np.asarray(counts, dtype=np.float32).reshape(-1)
        if len(values) != len(self.cells):
            raise ModelError(f"counts: expected one for each of {len(self.cells)} cells, got {len(values)}")
        if (values < 0).any() or np.isinf(values).any():
            raise ModelError(f"counts: expected numbers from 0 on, or NaN where unknown, got {values.min():g}")
        if not self._state.predicted:
            raise ModelError("counts: no frame was predicted since the start or the last counts; call predict first")
        padded = np.full(self._state.width, np.nan, np.float32)
        padded[: len(values)] = values
        return padded

    def _compile(self) -> None:
        """Call every kernel now, so that the first frame is as fast as the others; leaves the bank as it was."""
        self._state.step(np.zeros(self.frame, np.float32))
        self._state.learn(np.full(self._state.width, np.nan, np.float32))
        self._state.reset()


def as_frames(stimulus: Any, frame: Frame) -> NDArray[Any]:
    """One frame, or several in time order, with or without their axes of size 1: (frames, channels, rows, columns).

    float64 stays, everything else becomes float32. Raises ModelError for another shape.
    """
    array = np.asarray(stimulus)
    if array.dtype.kind not in "iufb":
        raise ModelError(f"stimulus: expected real numbers, got {array.dtype}")
    if array.dtype != np.float64:
        array = array.astype(np.float32)
    forms = [frame, tuple(size for size in frame if size > 1)]
    forms += [frame[1:]] if frame[0] == 1 else []
    forms += [frame[:1]] if frame[1:] == (1, 1) else []
    if array.shape in forms:
        return array.reshape(1, *frame)
    if array.ndim and array.shape[1:] in forms:
        return array.reshape(len(array), *frame)
    raise ModelError(f"stimulus: expected frames (channels, rows, columns) of {frame}, or several, got {array.shape}")
