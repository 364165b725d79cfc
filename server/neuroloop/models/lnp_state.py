"""What a streaming LNP bank holds between two frames, and the calls into its compiled steps.

Arrays have the cells innermost, padded to whole vectors. Parameters that are learned online live here and nowhere else;
what follows from them (kernels of unit norm) is kept beside them and never stored.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models import lnp_kernels
from neuroloop.models.lnp_kernels import BIAS, CELL_ROWS, GAIN, LANES, RATE, SOFTPLUS_A, SOFTPLUS_W
from neuroloop.models.lnp_parameters import LNPParameters, LNPSettings
from neuroloop.models.receptive_fields import Frame, Layout, lay_out

F32 = NDArray[np.float32]


class LNPState:
    """Parameters laid out for the kernels, the rings of projections and of spikes. No checks: its owner makes them."""

    def __init__(self, parameters: LNPParameters, settings: LNPSettings, frame: Frame) -> None:
        self._given, self._settings = parameters, settings
        self.cells = len(parameters.gain)
        self.width = -(-self.cells // LANES) * LANES
        width, lags, rank = self.width, settings.lags, settings.rank
        layout = lay_out(parameters.locations, settings.kernel_on(frame), frame)
        self._box = np.array([layout.top, layout.left, layout.height, layout.width])
        self._mean, self._inverse = parameters.mean.copy(), np.float32(1) / parameters.scale
        self._space, self._index = _lay_space(parameters.kernels(settings.normalize_weights)[0], layout, width)
        self._gathered = np.zeros(width, np.float32)
        self._raw_time = _pad(parameters.time.transpose(2, 1, 0), width)
        self._time, self._norm = np.zeros_like(self._raw_time), np.zeros(width, np.float32)
        lnp_kernels.scale_time(self._raw_time, settings.normalize_weights, self._norm, self._time)
        self._history = _pad(parameters.history.T, width)
        coupling = parameters.coupling.transpose(2, 1, 0)
        self._coupling = np.zeros((settings.coupling, width, width), np.float32)
        self._coupling[:, : self.cells, : self.cells] = coupling
        self._exponential = settings.nonlinearity == "exp"
        self._cell = np.zeros((CELL_ROWS, width), np.float32)
        self._cell[[SOFTPLUS_A, SOFTPLUS_W]] = 1.0
        self._cell[GAIN, : self.cells], self._cell[BIAS, : self.cells] = parameters.gain, parameters.bias
        if settings.nonlinearity == "parametrized_softplus":
            shape = (parameters.softplus_a, parameters.softplus_b, parameters.softplus_w)
            self._cell[SOFTPLUS_A : SOFTPLUS_W + 1, : self.cells] = shape
        self.rates: F32 = self._cell[RATE, : self.cells]
        self.ring = np.zeros((lags, rank, width), np.float32)
        self.held = np.zeros(layout.pixels + 1, np.float32)  # the last is what lies beyond the border
        self.spikes = np.zeros((max(settings.history, settings.coupling), width), np.float32)
        self.newest = self.latest = 0  # rows of the two rings
        self.predicted = False  # and not observed yet
        self._total, self._energy = np.zeros((rank, width), np.float32), np.zeros(width, np.float32)
        self._rate_of_learning: Any = np.float32(settings.learning_rate)
        # Frames are copied in: for one that is read-only, strided or of another type, Numba would compile in the loop.
        self._frame = np.zeros(frame, np.float32)
        self._nobody = np.zeros(width, np.float32)

    def step(self, frame: NDArray[Any]) -> int:
        """Take in a frame, (channels, rows, columns), into `rates`. Returns how many values were missing."""
        if self.predicted:
            self.observe(self._nobody)
        self.newest = self.newest + 1 if self.newest + 1 < len(self.ring) else 0
        self.predicted = True
        self._frame[...] = frame
        missing: int = lnp_kernels.step(
            self._frame, self._box, self._mean, self._inverse, self.held,
            self._index, self._space, self._gathered, self.ring, self.newest, self._time, self._total,
            self._history, self._coupling, self.spikes, self.latest, self._exponential, self._cell,
        )  # fmt: skip
        return missing

    def learn(self, counts: F32) -> None:
        """A gradient step. counts: (width,), NaN for no step."""
        lnp_kernels.learn(
            counts, self._rate_of_learning, self.ring, self.newest, self._raw_time, self._time, self._norm,
            self._settings.normalize_weights, self._history, self._coupling, self.spikes, self.latest,
            self._exponential, self._cell, self._energy,
        )  # fmt: skip

    def observe(self, counts: F32) -> None:
        """Keep the counts, (width,), of the frame predicted last."""
        self.predicted = False
        if len(self.spikes):
            self.latest = self.latest + 1 if self.latest + 1 < len(self.spikes) else 0
            self.spikes[self.latest] = counts

    def reset(self) -> None:
        """Forget frames and spikes; parameters stay."""
        for array in (self.ring, self.held, self.spikes):
            array[:] = 0
        self.newest = self.latest = 0
        self.predicted = False

    def parameters(self) -> LNPParameters:
        """As given, with what was learned since."""
        n = self.cells
        learned = {
            "time": self._raw_time[:, :, :n].transpose(2, 1, 0),
            "gain": self._cell[GAIN, :n],
            "bias": self._cell[BIAS, :n],
            "history": self._history[:, :n].T,
            "coupling": self._coupling[:, :n, :n].transpose(2, 1, 0),
        }
        return LNPParameters(**self._given.arrays() | {name: np.array(a, order="C") for name, a in learned.items()})

    def stream(self) -> dict[str, Any]:
        """What `reset` forgets, and the response to the frame predicted last, which `learn` needs."""
        arrays = {"ring": self.ring, "held": self.held, "spikes": self.spikes, "response": self._response()}
        positions = {"newest": self.newest, "latest": self.latest, "predicted": self.predicted}
        return {name: array.copy() for name, array in arrays.items()} | positions

    def restore(self, stream: dict[str, Any]) -> None:
        """The inverse of `stream`. Raises ModelError where shapes or values do not fit."""
        arrays = {"ring": self.ring, "held": self.held, "spikes": self.spikes, "response": self._response()}
        for name, array in arrays.items():
            if np.shape(stream[name]) != array.shape or not np.isfinite(stream[name]).all():
                got = np.shape(stream[name])
                raise ModelError(f"encoder state: expected finite {name} of shape {array.shape}, got shape {got}")
            array[:] = stream[name]
        self.newest, self.latest = int(stream["newest"]), int(stream["latest"])
        if not 0 <= self.newest < len(self.ring) or not 0 <= self.latest < max(len(self.spikes), 1):
            raise ModelError(f"encoder state: positions {self.newest} and {self.latest} are outside their rings")
        self.predicted = bool(stream["predicted"])

    def _response(self) -> F32:
        return self._cell[lnp_kernels.STIMULUS : RATE + 1]


def _pad(array: NDArray[Any], width: int) -> F32:
    """Zeros after the last cell, the innermost axis."""
    padded = np.zeros((*array.shape[:-1], width), np.float32)
    padded[..., : array.shape[-1]] = array
    return padded


def _lay_space(space: F32, layout: Layout, width: int) -> tuple[F32, NDArray[np.uint32]]:
    """Spatial kernels as (pixels, rank, cells), and the pixel of the box under each; none where it is the box itself.

    Per pixel and cell, gathering costs about two loads beside the `rank` multiply-adds that both ways have.
    """
    cells, rank = space.shape[:2]
    own = layout.index.shape[1]
    if layout.pixels * rank <= own * (rank + 2):
        return _pad(layout.lay(space).transpose(2, 1, 0), width), np.zeros((0, 0), np.uint32)
    index = np.full((own, width), layout.pixels, np.uint32)
    index[:, :cells] = layout.index.T
    return _pad(space.reshape(cells, rank, own).transpose(2, 1, 0), width), index
