"""Threshold crossings per channel, against a running estimate of the noise.

A spike is the first sample below `-k sigma` after one that was not, at least the refractory time after the last spike
of that channel; across block borders too.

Sigma starts as `median(|x|) / 0.6745` over the calibration, of at most 2048 samples of each channel, evenly spaced (the
median of so many is good to 3 percent; it costs 8 kB per channel, and 5 ms once for 1024 channels). From then on it
follows the mean of |x|: every 10 ms

    m <- m + a (mean of min(|x|, k sigma) - m),    sigma = m / g(k)

over the samples that belong to no spike: neither below the threshold nor within the refractory time after a crossing.
g(k) is what this mean is for Gaussian noise of unit sigma (0.798 from k = 4 on), so that Gaussian noise keeps its sigma
whatever k is. The limit at k sigma keeps an artefact from deafening the channel for long; sigma can still double every
few seconds where the noise really grew.

Everything is counted from the first sample after a reset, so the result does not depend on how samples were cut into
blocks. Branch-free over channels, with all state in registers: 0.04 ms for 300 samples x 1024 channels in tiles.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.compiled import kernel
from neuroloop.signal.lanes import (
    ABOVE,
    CLIP,
    COUNTS,
    DETECT_ROWS,
    KEPT,
    LIMIT,
    TOTAL,
    WAIT,
    WIDTH,
    detect,
    flush_denormals,
    lanes,
    restore_denormals,
)
from neuroloop.signal.tiles import lay_out, load_tile, store_tile, tile_buffer

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

MEDIAN_OF_GAUSSIAN = 0.6745  # of |x| over sigma
CALIBRATION_SAMPLES = 2048
UPDATE_S = 0.01
DEAD_BELOW = 1e-4  # of the median sigma: an electrode that carries rounding noise only


def gaussian_mean(threshold: float) -> float:
    """Mean of min(|x|, k) over the samples above -k, for Gaussian x of unit sigma."""
    tail = 0.5 * math.erfc(threshold / math.sqrt(2))
    inner = math.sqrt(2 / math.pi) * (1 - math.exp(-threshold * threshold / 2))
    return (inner + threshold * tail) / (1 - tail)


@kernel
def detect_tile(
    tile: Any, start: int, stop: int, refractory: float, period: int, phase: int, follow: Any, state: Any, sigma: Any
) -> int:
    """Spikes of a tile's samples from start to stop; returns the new phase, samples since sigma was last updated.

    state: (DETECT_ROWS, width) float32, see `lanes.detect`. sigma: (1, width) float64, updated each period.
    follow: gain, unit, floor and threshold, of `_follow` and `bound`.
    """
    gain, unit, floor, threshold = follow
    while start < stop:
        length = min(stop - start, period - phase)
        for column in range(0, state.shape[1], lanes(tile)):
            detect(tile, start, length, column, np.float32(refractory), state)
        start += length
        phase += length
        if phase == period:
            _follow(sigma[0], state[TOTAL], state[KEPT], gain, unit, floor)
            bound(sigma[0], threshold, floor, state[LIMIT], state[CLIP])
            phase = 0
    return phase


@kernel
def _detect(
    block: Any, start: int, stop: int, order: Any, runs: Any, refractory: float, period: int, phase: int, follow: Any,
    state: Any, sigma: Any, tile: Any, local: Any, local_sigma: Any,
) -> int:  # fmt: skip
    """block: (n, channels) float32. state: (DETECT_ROWS, channels), sigma: (1, channels). Returns the new phase."""
    control = flush_denormals()
    after = phase
    for number in range(len(runs)):
        channels = order[number * WIDTH : (number + 1) * WIDTH]
        load_tile(block, channels, runs[number], tile)
        load_tile(state, channels, runs[number], local)
        load_tile(sigma, channels, runs[number], local_sigma)
        after = detect_tile(tile, start, stop, refractory, period, phase, follow, local, local_sigma)
        store_tile(local, channels, runs[number], state)
        store_tile(local_sigma, channels, runs[number], sigma)
    restore_denormals(control)
    return after


@kernel
def _follow(sigma: Any, total: Any, kept: Any, gain: float, unit: float, floor: float) -> None:
    """Let sigma, (channels,) float64, follow the last period; one that was dead starts afresh from it."""
    for c in range(len(sigma)):
        if kept[c] > 0:
            mean = total[c] / kept[c] / unit
            sigma[c] += (gain if sigma[c] > floor else 1.0) * (mean - sigma[c])
        total[c] = 0
        kept[c] = 0


@kernel
def bound(sigma: Any, threshold: float, floor: float, limit: Any, clip: Any) -> None:
    """What the detection compares with: (channels,) float32; nothing is below the limit of a dead channel."""
    for c in range(len(sigma)):
        clip[c] = threshold * sigma[c] if sigma[c] > floor else np.inf
        limit[c] = -clip[c]


class ThresholdCrossings:
    """Counts the spikes of each channel in each block.

    threshold: k. refractory_ms: least time between two spikes of a channel. calibration_s: until sigma is known; no
    spikes before. half_life_s: of the running estimate. fits_tiles: whether `detect_tile` does all that it does.
    """

    fits_tiles = True

    def __init__(
        self,
        channels: int,
        nominal_srate: float,
        threshold: float = 4.5,
        refractory_ms: float = 1.0,
        calibration_s: float = 1.0,
        half_life_s: float = 10.0,
    ) -> None:
        self.channels = channels
        self.threshold = float(threshold)
        self.refractory = float(round(refractory_ms * nominal_srate / 1000))
        self._calibration = max(1, round(calibration_s * nominal_srate))
        self._stride = -(-self._calibration // CALIBRATION_SAMPLES)
        self.period = max(1, round(UPDATE_S * nominal_srate))
        self.phase = 0  # samples since sigma was last updated
        self._gain = 1.0 - 0.5 ** (self.period / (half_life_s * nominal_srate))
        self._unit = gaussian_mean(threshold)
        self.state: F32 = np.zeros((DETECT_ROWS, channels), np.float32)
        self.sigma_row: F64 = np.zeros((1, channels))
        self._tiles = lay_out([], channels)
        self._tile = tile_buffer(0, WIDTH, np.float32)
        self._local = np.zeros((DETECT_ROWS, WIDTH), np.float32)
        self._local_sigma = np.zeros((1, WIDTH))
        self._first: F32 | None = None  # |samples| of the calibration, (channels, retained), while it lasts
        self.reset()
        self._detect(np.empty((0, channels), np.float32), 0)  # compiles the kernels now, not at the first block

    @property
    def calibrated(self) -> bool:
        """Whether sigma is known, and spikes are counted."""
        return self._seen >= self._calibration

    @property
    def sigma(self) -> F64:
        """Noise of each channel, (channels,), in the unit of the samples; 0 before the calibration is over."""
        self.conclude_calibration()
        return self._sigma.copy()

    @property
    def _sigma(self) -> F64:
        row: F64 = self.sigma_row[0]
        return row

    @property
    def counts(self) -> F32:
        """Spikes of each channel since they were last set to 0, (channels,)."""
        row: F32 = self.state[COUNTS]
        return row

    @property
    def follow(self) -> tuple[float, float, float, float]:
        """What `detect_tile` needs to let sigma follow."""
        return self._gain, self._unit, self._floor, self.threshold

    def __call__(self, block: F32) -> F32:
        """Spikes of each channel in this block, (channels,) float32; valid until the next call."""
        self.counts[:] = 0
        self.conclude_calibration()
        block = np.ascontiguousarray(block)
        start = 0 if self.calibrated else self._calibrate(block)
        if start < len(block):
            self._detect(block, start)
        return self.counts

    def _detect(self, block: F32, start: int) -> None:
        if len(self._tile) < len(block):
            self._tile = tile_buffer(len(block), WIDTH, np.float32)
        self.phase = _detect(
            block, start, len(block), self._tiles.order, self._tiles.runs, self.refractory, self.period, self.phase,
            self.follow, self.state, self.sigma_row, self._tile, self._local, self._local_sigma,
        )  # fmt: skip

    def _calibrate(self, block: F32) -> int:
        """Keep samples for the calibration; returns how many samples of the block belong to it.

        What they say waits where nothing of the block is left to be counted: 1 ms for 96 channels.
        """
        if self._first is None:
            self._first = self._empty_calibration()
        used = min(len(block), self._calibration - self._seen)
        kept = block[-self._seen % self._stride : used : self._stride]
        filled = self._retained
        np.abs(kept.T, out=self._first[:, filled : filled + len(kept)])
        self._seen += used
        if used < len(block):
            self.conclude_calibration()
        return used

    def conclude_calibration(self) -> None:
        """Take sigma from the calibration, if it is over and nobody has; the next block does it where nobody does."""
        if self._first is None or not self.calibrated:
            return
        middle = self._first.shape[1] // 2
        self._first.partition(middle, axis=1)  # numpy's median takes ten times as long
        self._sigma[:] = self._first[:, middle] / MEDIAN_OF_GAUSSIAN
        alive = self._sigma[self._sigma > 0]
        self._floor = DEAD_BELOW * float(np.median(alive)) if len(alive) else 0.0
        self._first = None
        self._set_thresholds()

    @property
    def _retained(self) -> int:
        """Samples of each channel kept so far for the calibration."""
        return -(-self._seen // self._stride)

    def _empty_calibration(self) -> F32:
        return np.empty((self.channels, -(-self._calibration // self._stride)), np.float32)

    def _set_thresholds(self) -> None:
        bound(self._sigma, self.threshold, self._floor, self.state[LIMIT], self.state[CLIP])

    def scale_sigma(self, factor: NDArray[np.floating[Any]]) -> None:
        """Follow a known change of amplitude, as when other rereferencing weights come into use.

        factor: (channels,), new over old; one that is not positive and finite counts as 1.
        """
        values = np.asarray(factor, dtype=np.float64)
        values = np.where(np.isfinite(values) & (values > 0), values, 1.0)
        if self._first is not None:
            self._first[:, : self._retained] *= values.astype(np.float32)[:, None]
        self._sigma[:] *= values
        self.state[TOTAL] *= values.astype(np.float32)
        self._set_thresholds()

    def interrupt(self) -> None:
        """The next sample does not follow the last one: no crossing spans the hole, and sigma stays."""
        self.state[ABOVE] = 0
        self.state[WAIT] = 0

    def reset(self) -> None:
        """Back to the beginning, calibration included."""
        self._seen = 0
        self.phase = 0
        self._floor = 0.0
        self._sigma[:] = 0
        self.state[:] = 0
        self._first = None
        self.interrupt()
        self._set_thresholds()

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = {
            "seen": self._seen,
            "phase": self.phase,
            "floor": self._floor,
            "sigma": self._sigma.copy(),
            "channels": self.state.copy(),
        }
        if self._first is not None:
            state["first"] = self._first[:, : self._retained].copy()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reset()
        self._seen, self.phase = int(state["seen"]), int(state["phase"])
        self._floor = float(state["floor"])
        self._sigma[:], self.state[:] = state["sigma"], state["channels"]
        if "first" in state:
            self._first = self._empty_calibration()
            self._first[:, : self._retained] = state["first"]
        self._set_thresholds()
