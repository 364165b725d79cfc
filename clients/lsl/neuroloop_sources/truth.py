"""Everything that is known about a simulated session: which direction was cued when, and every spike.

Unit u fires as a Poisson process whose rate depends on the cued direction theta (von Mises tuning):

    rate_u(theta) = b_u (1 + m exp(kappa (cos(theta - phi_u) - 1)))

with lognormal b_u and uniform phi_u. Trials follow one another without a pause; every eight of them cue each direction
once, in random order. Each trial has a random generator of its own, seeded by (seed, trial), so any trial can be asked
for at any time, at the cost of that trial alone: hours of session cost nothing until they are looked at.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from neuroloop_sources.settings import SimulatorSettings

F64 = NDArray[np.float64]
I64 = NDArray[np.int64]
Spikes = tuple[I64, I64]

CLASSES = ("right", "up-right", "up", "up-left", "left", "down-left", "down", "down-right")
UNITS, ORDER, SPIKES = range(3)  # what a random generator is for; settings.seed comes first
CACHED_TRIALS = 4


class Truth:
    """The truth of a session with these settings.

    Samples are counted from the first of the stream; times of the session are sample / nominal_srate.
    """

    def __init__(self, settings: SimulatorSettings) -> None:
        self.settings = settings
        random = np.random.default_rng([settings.seed, UNITS])
        self.preferred: F64 = random.uniform(0, 2 * np.pi, settings.units)
        self.baselines: F64 = settings.baseline_hz * np.exp(
            settings.baseline_spread * random.standard_normal(settings.units)
        )
        directions = np.arange(len(CLASSES)) * 2 * np.pi / len(CLASSES)
        tuning = np.exp(settings.concentration * (np.cos(directions[:, None] - self.preferred) - 1))
        self._rates: F64 = self.baselines * (1 + settings.modulation * tuning)
        self._trial_spikes: Callable[[int], Spikes] = lru_cache(maxsize=CACHED_TRIALS)(self._draw_spikes)
        self._block: Callable[[int], I64] = lru_cache(maxsize=CACHED_TRIALS)(self._draw_block)

    def rates(self, direction: int) -> F64:
        """Spikes per second of every unit while this direction (an index into CLASSES) is cued: (units,)."""
        rates: F64 = self._rates[direction]
        return rates

    def direction(self, trial: int) -> int:
        """The direction cued in this trial, counted from 0, as an index into CLASSES."""
        return int(self._block(trial // len(CLASSES))[trial % len(CLASSES)])

    def label(self, trial: int) -> str:
        """The direction cued in this trial, as the marker says it."""
        return CLASSES[self.direction(trial)]

    def trial_at(self, sample: int) -> int:
        """The trial that this sample belongs to."""
        return sample // self.settings.trial_samples

    def label_at(self, sample: int) -> str:
        """The label of the trial that this sample belongs to."""
        return self.label(self.trial_at(sample))

    def spike_samples(self, trial: int) -> Spikes:
        """Unit and sample (of the trough) of every spike of this trial, in order of time; samples of the session."""
        return self._trial_spikes(trial)

    def counts(self, trial: int, start_s: float = 0.0, stop_s: float | None = None) -> I64:
        """Spikes of every unit from start_s to stop_s after the trial's start, at most to its end: (units,)."""
        first, last = self._span(trial, start_s, stop_s)
        units, samples = self.spike_samples(trial)
        chosen = (samples >= first) & (samples < last)
        return np.bincount(units[chosen], minlength=self.settings.units)

    def ideal_decode(self, trial: int, start_s: float = 0.0, stop_s: float | None = None) -> str:
        """The label that is most likely, given the true rates and the true spike counts of that span."""
        first, last = self._span(trial, start_s, stop_s)
        seconds = (last - first) / self.settings.nominal_srate
        likelihood = np.log(self._rates) @ self.counts(trial, start_s, stop_s) - seconds * self._rates.sum(axis=1)
        return CLASSES[int(np.argmax(likelihood))]

    def save(self, path: Path, trials: int) -> None:
        """Write the first trials to an .npz: spikes, labels, the units' tuning."""
        spikes = [self.spike_samples(trial) for trial in range(trials)]
        nothing = np.empty(0, np.int64)
        np.savez_compressed(
            path,
            spike_unit=np.concatenate([nothing, *(units for units, _ in spikes)]),
            spike_sample=np.concatenate([nothing, *(samples for _, samples in spikes)]),
            trial_label=np.array([self.label(trial) for trial in range(trials)], dtype=np.str_),
            trial_start_sample=np.arange(trials) * self.settings.trial_samples,
            trial_samples=self.settings.trial_samples,
            nominal_srate=self.settings.nominal_srate,
            classes=np.array(CLASSES),
            preferred_rad=self.preferred,
            rates_hz=self._rates,
            seed=self.settings.seed,
        )

    def _span(self, trial: int, start_s: float, stop_s: float | None) -> tuple[int, int]:
        """First sample, and the one after the last, of a span given in seconds after the trial's start."""
        length = self.settings.trial_samples
        first = min(max(round(start_s * self.settings.nominal_srate), 0), length)
        last = length if stop_s is None else min(max(round(stop_s * self.settings.nominal_srate), first), length)
        return trial * length + first, trial * length + last

    def _draw_block(self, block: int) -> I64:
        return np.random.default_rng([self.settings.seed, ORDER, block]).permutation(len(CLASSES))

    def _draw_spikes(self, trial: int) -> Spikes:
        length = self.settings.trial_samples
        random = np.random.default_rng([self.settings.seed, SPIKES, trial])
        counts = random.poisson(self.rates(self.direction(trial)) * length / self.settings.nominal_srate)
        samples = random.integers(trial * length, (trial + 1) * length, counts.sum())
        order = np.argsort(samples, kind="stable")
        units = np.repeat(np.arange(self.settings.units), counts)
        return units[order], samples[order]
