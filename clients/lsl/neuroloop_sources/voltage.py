"""The voltage on every electrode of a simulated session, for any run of samples.

    x[t, c] = own[t, c] + common[t] g[c] + line[t] h[c] + waveforms of the spikes near t

The noises are drawn once and repeat with different periods (own noise after up to 2 s, common noise after about 10 s),
so a sample costs two multiply-adds per channel: little more than a copy. Every sample takes the same additions in the
same order whichever run it is asked for in, so the result does not depend, to the bit, on how a session is cut into
chunks.

Electrodes stand in two columns on shanks of 32; a spike is seen on the nearest six, fainter with distance.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from neuroloop_sources.settings import PITCH_MM, SimulatorSettings
from neuroloop_sources.truth import Truth

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

OWN, COMMON, GAINS, FOOTPRINTS = range(16, 20)  # what a random generator is for; those of Truth come before

OWN_NOISE_S = 2.0
OWN_NOISE_VALUES = 16_000_000  # 64 MB
COMMON_NOISE_S = 9.7
SLOW_BELOW_HZ = 200.0
LINE_UP_TO_HZ = 1000.0

REACH_MM = 0.025
FOOTPRINT = 6
TROUGH_MS, WAVEFORM_MS = 0.5, 1.8


@njit(cache=True, nogil=True)
def _mix(out: Any, start: int, own: Any, common: Any, common_gain: Any, line: Any, line_gain: Any) -> None:
    """out: (n, channels) float32; sample t of it is sample start + t of the session."""
    for t in range(out.shape[0]):
        row = (start + t) % own.shape[0]
        shared = common[(start + t) % common.shape[0]]
        hum = line[(start + t) % line.shape[0]]
        for c in range(out.shape[1]):
            out[t, c] = own[row, c] + shared * common_gain[c] + hum * line_gain[c]


@njit(cache=True, nogil=True)
def _add_spikes(out: Any, start: int, units: Any, samples: Any, trough: int, channels: Any, waveforms: Any) -> None:
    """Add what falls into out of the waveforms (units, length, footprint) with their trough at these samples."""
    length = waveforms.shape[1]
    for spike in range(len(units)):
        unit = units[spike]
        offset = samples[spike] - trough - start
        first = max(0, -offset)
        last = min(length, out.shape[0] - offset)
        for j in range(first, last):  # the channels of a unit are neighbours in memory, its samples are not
            for k in range(channels.shape[1]):
                out[offset + j, channels[unit, k]] += waveforms[unit, j, k]


class Voltage:
    """The samples of a session; see the module's head."""

    def __init__(self, settings: SimulatorSettings, truth: Truth | None = None) -> None:
        self.settings = settings
        self.truth = truth or Truth(settings)
        channels = settings.channel_count
        gains = self._random(GAINS)
        self._common_gain: F32 = gains.uniform(0.7, 1.3, channels).astype(np.float32)
        self._line_gain: F32 = gains.uniform(0.5, 1.5, channels).astype(np.float32)
        length = max(1, min(round(OWN_NOISE_S * settings.nominal_srate), OWN_NOISE_VALUES // channels))
        self._own: F32 = self._random(OWN).standard_normal((length, channels), np.float32)
        self._own *= np.float32(settings.noise_uv)
        self._common = self._draw_common()
        self._line = self._draw_line()
        self._trough = round(TROUGH_MS * settings.nominal_srate / 1000)
        self._channels, self._waveforms = self._draw_footprints()
        self._mixed: F32 = np.empty((0, channels), np.float32)
        self._rounded: NDArray[np.int16] = np.empty((0, channels), np.int16)
        self(0, 0)  # compiles the kernels now

    def __call__(self, start: int, stop: int) -> NDArray[Any]:
        """Samples start to stop of the session, (stop - start, channels), in the format of the settings.

        The array is valid until the next call.
        """
        n = stop - start
        if len(self._mixed) < n:
            self._mixed = np.empty((n, self.settings.channel_count), np.float32)
            self._rounded = np.empty((n, self.settings.channel_count), np.int16)
        out = self._mixed[:n]
        _mix(out, start, self._own, self._common, self._common_gain, self._line, self._line_gain)
        length = self._waveforms.shape[1]
        earliest, latest = start - length + 1 + self._trough, stop + self._trough
        for trial in range(self.truth.trial_at(max(0, earliest)), self.truth.trial_at(latest) + 1):
            units, samples = self.truth.spike_samples(trial)
            first, last = np.searchsorted(samples, (earliest, latest))
            _add_spikes(
                out, start, units[first:last], samples[first:last], self._trough, self._channels, self._waveforms
            )
        if self.settings.format == "float32":
            return out
        np.rint(out, out=out)
        np.clip(out, -32768, 32767, out=out)
        rounded = self._rounded[:n]
        rounded[:] = out
        return rounded

    def _random(self, purpose: int) -> np.random.Generator:
        return np.random.default_rng([self.settings.seed, purpose])

    def _draw_common(self) -> F32:
        """Gaussian, periodic: half of the power white, half of it falling as 1/f^2 above SLOW_BELOW_HZ / 10."""
        length = max(2, round(COMMON_NOISE_S * self.settings.nominal_srate))
        frequency = np.fft.rfftfreq(length, 1 / self.settings.nominal_srate)
        slow = 1 / (1 + (frequency / (SLOW_BELOW_HZ / 10)) ** 2)
        shape = np.sqrt(0.5 / len(slow) + 0.5 * slow / slow.sum())
        random = self._random(COMMON)
        spectrum = shape * (random.standard_normal(len(shape)) + 1j * random.standard_normal(len(shape)))
        spectrum[0] = 0
        common = np.fft.irfft(spectrum, length)
        common *= self.settings.common_mode_uv / common.std()
        return np.asarray(common, np.float32)

    def _draw_line(self) -> F32:
        """One second of the line's hum: the fundamental and its odd harmonics, in whole cycles per second."""
        length = max(1, round(self.settings.nominal_srate))
        line = np.zeros(length)
        highest = min(LINE_UP_TO_HZ, length / 2)
        for harmonic in range(1, int(highest / self.settings.line_hz) + 1, 2):
            cycles = round(harmonic * self.settings.line_hz)
            line += np.sin(2 * np.pi * cycles * np.arange(length) / length + harmonic) / harmonic
        return (self.settings.line_uv * line).astype(np.float32)

    def _draw_footprints(self) -> tuple[NDArray[np.int64], F32]:
        """The channels that see each unit, (units, footprint), and a spike there, (units, length, footprint)."""
        settings, random = self.settings, self._random(FOOTPRINTS)
        electrodes = settings.positions_mm
        home = electrodes[np.arange(settings.units) % settings.channel_count]
        places = home + random.normal(0, PITCH_MM / 8, home.shape)
        distance = np.linalg.norm(places[:, None] - electrodes, axis=2)
        channels = np.argsort(distance, axis=1)[:, :FOOTPRINT]
        fading = np.exp(-np.take_along_axis(distance, channels, axis=1) / REACH_MM)
        depth = settings.spike_uv * np.exp(0.2 * random.standard_normal(settings.units))
        width = random.uniform(0.85, 1.25, settings.units)[:, None]
        length = max(self._trough + 1, round(WAVEFORM_MS * settings.nominal_srate / 1000))
        ms = (np.arange(length) - self._trough) * 1000 / settings.nominal_srate / width
        shape = 0.35 * np.exp(-(((ms - 0.45) / 0.22) ** 2)) - np.exp(-((ms / 0.11) ** 2))
        waveforms = shape[:, :, None] * (depth[:, None] * fading / fading[:, :1])[:, None, :]
        return channels, waveforms.astype(np.float32)
