"""What an LNP encoder is made of: its settings and the parameters of its cells.

Cell i has R pairs of a spatial kernel s_r and a temporal kernel t_r over T lags (oldest first), a gain g and a bias c:

    z(t) = g sum_r sum_tau t_r[tau] <s_r, crop(x(t - T + 1 + tau))> + c
           + sum_l h[l] n_i(t - 1 - l) + sum_j sum_l k_j[l] n_j(t - 1 - l)
    rate(t) = f(z(t)),  expected spikes per frame

in cross-correlation, kernels not flipped. h (spike history) and k (coupling to the other cells) are optional. x is the
frame after `(frame - mean) / scale` per channel. With `normalize_weights`, s and t of a cell are divided by
their Frobenius norm over all ranks wherever they are used; what is stored stays as it is, and a kernel of zeros
stays zero.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, model_validator

from neuroloop.errors import ModelError
from neuroloop.models.nonlinearities import Nonlinearity
from neuroloop.models.receptive_fields import Frame, centre

LARGEST_FRAME = 2**24  # values: 4096 x 4096 pixels

F32 = NDArray[np.float32]


class LNPSettings(BaseModel):
    """Settings of encoder kind `lnp`."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    lags: int = Field(20, ge=1, description="T, frames that a rate depends on")
    rank: int = Field(1, ge=1, description="R, pairs of a spatial and a temporal kernel per cell")
    kernel: tuple[int, int] | None = Field(None, description="rows and columns of a spatial kernel; null: the frame's")
    nonlinearity: Nonlinearity = Field("softplus", description="from drive to rate")
    learn_a: bool = Field(False, description="fit the slope inside the parametrised softplus too")
    normalize_weights: bool = Field(True, description="unit norm of each cell's spatial and temporal kernels")
    history: int = Field(0, ge=0, description="earlier frames whose spikes of the cell itself count; 0 for none")
    coupling: int = Field(0, ge=0, description="earlier frames whose spikes of the other cells count; 0 for none")
    learning_rate: float = Field(0.01, gt=0, description="of the online gradient steps")
    bin_ms: float | None = Field(None, gt=0, description="that a frame lasts; null: not known, and not checked")

    @model_validator(mode="after")
    def _kernel_has_pixels(self) -> LNPSettings:
        if self.kernel is not None and min(self.kernel) < 1:
            raise ValueError(f"kernel: expected at least 1 x 1, got {self.kernel}")
        return self

    def kernel_on(self, frame: Frame) -> tuple[int, int]:
        """Rows and columns of a spatial kernel on frames (channels, rows, columns)."""
        return self.kernel or (frame[1], frame[2])


@dataclass(frozen=True, eq=False, slots=True)
class LNPParameters:
    """Parameters of a bank of cells; float32, locations int64."""

    space: F32  # (cells, rank, channels, kh, kw)
    time: F32  # (cells, rank, lags), oldest first
    gain: F32  # (cells,)
    bias: F32  # (cells,)
    softplus_a: F32  # (cells,), of the parametrised softplus, as are the next two
    softplus_b: F32
    softplus_w: F32
    history: F32  # (cells, history), newest first
    coupling: F32  # (cells, cells, coupling): [i, j, l] is the effect of cell j on cell i; the diagonal is 0
    mean: F32  # (channels,)
    scale: F32  # (channels,)
    locations: NDArray[np.int64]  # (cells, 2): rows, columns

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}

    def kernels(self, normalize: bool) -> tuple[NDArray[Any], NDArray[Any]]:
        """Spatial and temporal kernels as they are used."""
        return (unit_norm(self.space), unit_norm(self.time)) if normalize else (self.space, self.time)


def cell_names(cells: Sequence[str] | int) -> tuple[str, ...]:
    """The names of the cells; 0, 1, ... where only their number is given. Raises ModelError for none, or one twice."""
    names = tuple(str(cell) for cell in range(cells)) if isinstance(cells, int) else tuple(cells)
    if not names or len(set(names)) < len(names):
        raise ModelError(f"cells: expected one or more different names, got {list(names)}")
    return names


def check_frame_size(frame: Sequence[int]) -> Frame:
    """(channels, rows, columns). Raises ModelError unless these are three numbers from 1 on, in bounds."""
    if len(frame) != 3 or min(frame) < 1:
        raise ModelError(f"frame: expected (channels, rows, columns), each at least 1, got {tuple(frame)}")
    if math.prod(frame) > LARGEST_FRAME:
        raise ModelError(f"frame: expected at most {LARGEST_FRAME} values, got {tuple(frame)}")
    return int(frame[0]), int(frame[1]), int(frame[2])


def unit_norm(weights: NDArray[Any]) -> NDArray[Any]:
    """Each cell's weights, (cells, ...), over their norm; zeros stay zeros."""
    axes = tuple(range(1, weights.ndim))
    norm = np.sqrt(np.square(weights, dtype=np.float64).sum(axis=axes, keepdims=True))
    return (weights / np.where(norm > 0, norm, 1.0)).astype(weights.dtype)


def shapes(settings: LNPSettings, cells: int, frame: Frame) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter."""
    per_cell = (cells,)
    return {
        "space": (cells, settings.rank, frame[0], *settings.kernel_on(frame)),
        "time": (cells, settings.rank, settings.lags),
        "gain": per_cell,
        "bias": per_cell,
        "softplus_a": per_cell,
        "softplus_b": per_cell,
        "softplus_w": per_cell,
        "history": (cells, settings.history),
        "coupling": (cells, cells, settings.coupling),
        "mean": (frame[0],),
        "scale": (frame[0],),
        "locations": (cells, 2),
    }


def make_parameters(settings: LNPSettings, cells: int, frame: Frame, given: Mapping[str, Any]) -> LNPParameters:
    """The parameters that are given; for the rest kernels of zeros at the centre of the frame, gain 1, bias 0.

    Raises ModelError, naming the parameter, for a name that is none, another shape, values that are not finite, or a
    scale that is not positive.
    """
    expected = shapes(settings, cells, frame)
    for name in given:
        if name not in expected:
            raise ModelError(f"LNP parameters: {name} is none; there are: {', '.join(expected)}")
    # What is given is checked before anything is allocated: a file may claim any size.
    checked = {name: _check(name, np.asarray(value), expected[name]) for name, value in given.items()}
    rest = {name: _default(name, shape, frame) for name, shape in expected.items() if name not in checked}
    parameters = LNPParameters(**checked, **rest)
    if not (parameters.scale > 0).all():
        raise ModelError(f"LNP parameter scale: expected values above 0, got {parameters.scale.tolist()}")
    if parameters.coupling.size and parameters.coupling[np.arange(cells), np.arange(cells)].any():
        raise ModelError("LNP parameter coupling: expected 0 from a cell to itself; its own spikes belong in history")
    return parameters


def _check(name: str, array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """A copy in the type that the parameter has."""
    if array.shape != shape:
        raise ModelError(f"LNP parameter {name}: expected shape {shape}, got {array.shape}")
    if array.dtype.kind not in "iuf":
        raise ModelError(f"LNP parameter {name}: expected real numbers, got {array.dtype}")
    with np.errstate(over="ignore", invalid="ignore"):
        taken = np.array(array, dtype=np.int64 if name == "locations" else np.float32, order="C")
    if not (np.isfinite(array).all() and np.isfinite(taken).all()):
        raise ModelError(f"LNP parameter {name}: expected finite numbers within the range of float32")
    return taken


def _default(name: str, shape: tuple[int, ...], frame: Frame) -> NDArray[Any]:
    if name == "locations":
        return np.tile(np.array(centre(frame), np.int64), (shape[0], 1))
    return np.full(shape, 1.0 if name in ("gain", "softplus_a", "softplus_w", "scale") else 0.0, np.float32)
