"""Threshold crossings per channel on a device; what they are is said in `spikes`, and this gives the same.

On a CPU a detector goes through time one sample after the other. Here a stretch of samples that share one threshold
is taken at once. The refractory period r orders the spikes of a channel: whether a crossing counts depends on the
last one that did. Since spikes are at least r samples apart, no r neighbouring samples hold more than one, so a stretch
of n samples is done in n / r steps over tiles of r samples, each for all channels:

    first_k = first crossing of tile k at or after e_k,    e_(k+1) = first_k + r, or e_k where there was none

At 30 kHz, with 1 ms and blocks of 10 ms, that is 10 steps of six small kernels. A sample of tile k belongs to no spike
if it lies at or after e_k, and before first_k. For r <= 2 every crossing counts (two crossings never touch: a sample
above lies between), and no steps are needed.

Sigma is updated every 10 ms counted from the end of the calibration, wherever that falls in a block. The host counts
samples and so knows the stretches of each block; they are sent along with it, as (start, stop, whether a period ends
there), always so many as a block can have at most. Some are empty then, and change nothing.
"""

from __future__ import annotations

from math import gcd
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from neuroloop.gpu.torch_device import TorchDevice
from neuroloop.signal.spikes import CALIBRATION_SAMPLES, DEAD_BELOW, MEDIAN_OF_GAUSSIAN, UPDATE_S, gaussian_mean

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

PLAN_COLUMNS = 3  # start, stop, complete


class TorchCrossings:
    """Counts the spikes of each channel, for blocks of a fixed number of samples. Static tensor: `spikes`, (channels,).

    threshold: k. refractory_ms: least time between two spikes of a channel. calibration_s: until sigma is known; no
    spikes before. half_life_s: of the running estimate.
    """

    def __init__(
        self,
        device: TorchDevice,
        block_samples: int,
        channels: int,
        nominal_srate: float,
        threshold: float = 4.5,
        refractory_ms: float = 1.0,
        calibration_s: float = 1.0,
        half_life_s: float = 10.0,
    ) -> None:
        self.channels = channels
        self.threshold = float(threshold)
        self._device = device
        self._samples = block_samples
        self._refractory = round(refractory_ms * nominal_srate / 1000)
        self._calibration = max(1, round(calibration_s * nominal_srate))
        self._stride = -(-self._calibration // CALIBRATION_SAMPLES)
        self._period = max(1, round(UPDATE_S * nominal_srate))
        self.stretches = most_stretches(block_samples, self._period, self._calibration)
        longest = min(block_samples, self._period)
        self._tile = min(self._refractory, longest) if self._refractory > 2 else longest
        rows = -(-longest // self._tile) * self._tile
        single, double = torch.float32, torch.float64
        self._rows = device.constant(np.arange(rows), torch.int64)
        self._clock = device.constant(np.arange(rows)[:, None], single)
        self._never = device.constant(np.inf, single)
        self._none = device.constant(0.0, single)
        self._unit = gaussian_mean(threshold)
        self._gain = device.constant(1.0 - 0.5 ** (self._period / (half_life_s * nominal_srate)), double)
        self._one = device.constant(1.0, double)
        self._unbounded = device.constant(np.inf, double)
        self._nothing = device.constant(0.0, double)
        self.spikes = device.zeros(channels)
        self._floor = device.zeros(dtype=double)
        self._sigma = device.zeros(channels, dtype=double)
        self._limit = device.zeros(channels)
        self._clip = device.zeros(channels)
        self._above = device.zeros(channels, dtype=torch.bool)
        self._wait = device.zeros(channels)
        self._total = device.zeros(channels)
        self._kept = device.zeros(channels)
        self._seen = self._phase = 0
        self._first: Tensor | None = None  # |samples| of the calibration, (retained, channels), while it lasts
        self.reset()

    @property
    def calibrated(self) -> bool:
        """Whether sigma is known, and spikes are counted."""
        return self._seen >= self._calibration

    @property
    def sigma(self) -> F64:
        """Noise of each channel, (channels,), in the unit of the samples; 0 before. Waits for the device."""
        with self._device.queue():
            values: F64 = self._sigma.cpu().numpy().copy()
        return values

    def plan(self, rows: F32) -> None:
        """Write the stretches of the next block, (stretches, 3), and count its samples."""
        n = self._samples
        start = min(n, max(0, self._calibration - self._seen))
        for row in rows:
            stop = min(n, start + self._period - self._phase)
            self._phase = (self._phase + stop - start) % self._period
            row[:] = start, stop, stop > start and self._phase == 0
            start = stop

    def step(self, block: Tensor, plan: Tensor) -> None:
        """block: (n, channels) float32. plan: (stretches, 3) float32, as `plan` wrote it, on the device."""
        for row in plan:
            start, stop, complete = row[0], row[1], row[2] > 0
            rows = (self._rows + start.long()).clamp(max=self._samples - 1)
            self._detect(block.index_select(0, rows), stop - start)
            self._follow(complete)
            self._bound()

    def _detect(self, x: Tensor, length: Tensor) -> None:
        """x: (rows, channels), of which the first `length` count."""
        free = x >= self._limit
        above = torch.cat((self._above[None], free))
        crossing = above[:-1] & ~free & (self._clock < length)
        times = torch.where(crossing, self._clock, self._never)
        hits, open_, earliest = self._every(times) if self._refractory <= 2 else self._refract(times)
        keep = open_ & free & (self._clock < length)
        magnitude = torch.minimum(x.abs(), self._clip)
        self.spikes.add_(hits)
        self._total.add_(torch.where(keep, magnitude, self._none).sum(0))
        self._kept.add_(keep.sum(0))
        self._wait.copy_((earliest - length + 1).clamp(min=0))
        self._above.copy_(above.index_select(0, length.long().view(1))[0])

    def _refract(self, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Spikes of each channel, the samples that belong to none, and when the next spike may be.

        times: (rows, channels), of each crossing, infinite elsewhere.
        """
        earliest = self._wait - 1
        bounds, firsts = [], []
        for tile in times.view(-1, self._tile, self.channels):
            first = torch.where(tile >= earliest, tile, self._never).amin(0)
            bounds.append(earliest)
            firsts.append(first)
            earliest = torch.where(first < self._never, first + self._refractory, earliest)
        lower, upper = torch.stack(bounds)[:, None], torch.stack(firsts)[:, None]
        clock = self._clock.view(-1, self._tile, 1)
        open_ = ((clock >= lower) & (clock < upper)).view(times.shape)
        return (upper[:, 0] < self._never).sum(0), open_, earliest

    def _every(self, times: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same where the refractory period is too short for another crossing."""
        earliest = self._wait - 1
        hit = (times < self._never) & (times >= earliest)
        open_ = self._clock >= earliest
        if self._refractory == 2:
            open_[1:] &= ~hit[:-1]
        ends = torch.where(hit, times + self._refractory, -self._never).amax(0)
        return hit.sum(0), open_, torch.maximum(earliest, ends)

    def _follow(self, complete: Tensor) -> None:
        """Let sigma follow the period, where it is complete; one that was dead starts afresh from it."""
        mean = (self._total / self._kept.clamp(min=1.0)).double() / self._unit
        gain = torch.where(self._sigma > self._floor, self._gain, self._one)
        changed = self._sigma + gain * (mean - self._sigma)
        self._sigma.copy_(torch.where((self._kept > 0) & complete, changed, self._sigma))
        self._total.copy_(torch.where(complete, self._none, self._total))
        self._kept.copy_(torch.where(complete, self._none, self._kept))

    def _bound(self) -> None:
        """What the detection compares with; nothing is below the limit of a dead channel."""
        self._clip.copy_(torch.where(self._sigma > self._floor, self.threshold * self._sigma, self._unbounded))
        self._limit.copy_(-self._clip)

    def calibrate(self, block: Tensor) -> None:
        """Keep samples of a block for the calibration, and end it where that is due; before `step`, until calibrated.

        block: (n, channels) float32. Not part of the graph: it lasts a second.
        """
        if self._first is None:
            self._first = self._empty_calibration()
        used = min(self._samples, self._calibration - self._seen)
        kept = block[-self._seen % self._stride : used : self._stride]
        filled = self._retained
        self._first[filled : filled + len(kept)].copy_(kept.abs())
        self._seen += used
        if not self.calibrated:
            return
        middle = self._first.kthvalue(len(self._first) // 2 + 1, dim=0).values
        self._sigma.copy_(middle.double() / MEDIAN_OF_GAUSSIAN)
        ordered = torch.where(self._sigma > 0, self._sigma, self._unbounded).sort().values
        alive = (self._sigma > 0).sum()
        halves = torch.stack(((alive - 1).clamp(min=0) // 2, alive // 2)).clamp(max=self.channels - 1)
        median = ordered.index_select(0, halves).mean()
        self._floor.copy_(torch.where(alive > 0, DEAD_BELOW * median, self._nothing))
        self._first = None
        self._bound()

    @property
    def _retained(self) -> int:
        """Samples of each channel kept so far for the calibration."""
        return -(-self._seen // self._stride)

    def _empty_calibration(self) -> Tensor:
        return self._device.zeros(-(-self._calibration // self._stride), self.channels)

    def scale_sigma(self, factor: NDArray[np.floating[Any]]) -> None:
        """Follow a known change of amplitude, as when other rereferencing weights come into use.

        factor: (channels,), new over old; one that is not positive and finite counts as 1.
        """
        values = np.asarray(factor, dtype=np.float64)
        values = np.where(np.isfinite(values) & (values > 0), values, 1.0)
        with self._device.queue():
            scale = torch.from_numpy(values).to(self._device.device)
            if self._first is not None:
                self._first.mul_(scale.float())
            self._sigma.mul_(scale)
            self._total.mul_(scale.float())
            self._bound()

    def interrupt(self) -> None:
        """The next sample does not follow the last one: no crossing spans the hole, and sigma stays."""
        with self._device.queue():
            self._above.zero_()
            self._wait.zero_()

    def reset(self) -> None:
        """Back to the beginning, calibration included."""
        self._seen = 0
        self._phase = 0
        self._first = None
        with self._device.queue():
            for tensor in (self.spikes, self._floor, self._sigma, self._total, self._kept):
                tensor.zero_()
            self._bound()
        self.interrupt()

    def state_dict(self) -> dict[str, Any]:
        with self._device.queue():
            state: dict[str, Any] = {
                "seen": self._seen,
                "phase": self._phase,
                "floor": float(self._floor),
                "sigma": self._sigma.to("cpu", copy=True),
                "above": self._above.to("cpu", copy=True),
                "wait": self._wait.to("cpu", copy=True),
                "total": self._total.to("cpu", copy=True),
                "kept": self._kept.to("cpu", copy=True),
                "spikes": self.spikes.to("cpu", copy=True),
            }
            if self._first is not None:
                state["first"] = self._first[: self._retained].to("cpu", copy=True)
            return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.reset()
        self._seen, self._phase = int(state["seen"]), int(state["phase"])
        with self._device.queue():
            self._floor.fill_(float(state["floor"]))
            for name in ("sigma", "above", "wait", "total", "kept"):
                getattr(self, f"_{name}").copy_(torch.as_tensor(state[name]))
            self.spikes.copy_(torch.as_tensor(state["spikes"]))
            if "first" in state:
                self._first = self._empty_calibration()
                self._first[: self._retained].copy_(torch.as_tensor(state["first"]))
            self._bound()


def most_stretches(block_samples: int, period: int, calibration: int) -> int:
    """How many stretches between updates of sigma a block can touch, whatever block it is.

    Blocks start at multiples of their length, periods at multiples of theirs after the calibration: a block starts at
    most (period - step + the remainder of the calibration) into a period, with the step their common divisor.
    """
    step = gcd(block_samples, period)
    latest = period - step + -calibration % step
    return -(-(latest + block_samples) // period)
