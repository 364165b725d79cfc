"""What defines a simulated session. The same settings give the same session, to the bit."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from neuroloop_sources.errors import SourceError

SIMULATOR_FORMATS = ("float32", "int16")

POSITIVE = ("nominal_srate", "chunk_ms", "trial_s", "concentration", "baseline_hz", "spike_uv", "line_hz")
NOT_NEGATIVE = ("seed", "baseline_spread", "modulation", "noise_uv", "common_mode_uv", "line_uv")

SHANK = 32
PITCH_MM = 0.04
SHANK_PITCH_MM = 0.4


def _letters(number: int) -> str:
    rest, last = divmod(number, 26)
    return (_letters(rest - 1) if rest else "") + chr(ord("A") + last)


@dataclass(frozen=True)
class SimulatorSettings:
    """Settings of the simulator and of its truth; amplitudes in microvolts.

    unit_count: by default as many as channels. concentration: kappa of the von Mises tuning. baseline_hz,
    baseline_spread: median, and standard deviation of the logarithm, of the units' lowest rates. modulation: how much
    is added to the baseline in the preferred direction, in multiples of it. spike_uv: median depth of the trough.
    noise_uv: sigma of each channel's own white noise. common_mode_uv: sigma of the noise that all channels share, half
    of its power slow, half of it white. line_uv: amplitude of the fundamental at line_hz; odd harmonics go with it.
    """

    name: str = "array"
    source_id: str = "neuroloop-simulator"
    channel_count: int = 96
    nominal_srate: float = 30_000.0
    format: str = "float32"
    chunk_ms: float = 1.0
    trial_s: float = 0.6
    seed: int = 0
    unit_count: int | None = None
    concentration: float = 2.5
    baseline_hz: float = 4.0
    baseline_spread: float = 0.4
    modulation: float = 8.0
    spike_uv: float = 90.0
    noise_uv: float = 8.0
    common_mode_uv: float = 120.0
    line_uv: float = 60.0
    line_hz: float = 50.0

    def __post_init__(self) -> None:
        for key in POSITIVE:
            if not getattr(self, key) > 0:
                raise SourceError(f"{key}: expected more than 0, got {getattr(self, key)!r}")
        for key in NOT_NEGATIVE:
            if not getattr(self, key) >= 0:
                raise SourceError(f"{key}: expected 0 or more, got {getattr(self, key)!r}")
        if self.channel_count < 1:
            raise SourceError(f"channel_count: expected 1 or more, got {self.channel_count!r}")
        if self.unit_count is not None and self.unit_count < 0:
            raise SourceError(f"unit_count: expected 0 or more, got {self.unit_count!r}")
        if self.format not in SIMULATOR_FORMATS:
            raise SourceError(f"format: expected one of {', '.join(SIMULATOR_FORMATS)}, got {self.format!r}")
        if not (self.name and self.source_id):
            raise SourceError("name, source_id: expected text, got nothing")

    @property
    def units(self) -> int:
        """Number of units."""
        return self.channel_count if self.unit_count is None else self.unit_count

    @property
    def trial_samples(self) -> int:
        """Samples of a trial; trial k begins at sample k times this."""
        return max(1, round(self.trial_s * self.nominal_srate))

    @property
    def chunk_samples(self) -> int:
        """Samples pushed at once."""
        return max(1, round(self.chunk_ms * self.nominal_srate / 1000))

    @property
    def channels(self) -> tuple[str, ...]:
        """Labels: ch001, ch002, ..."""
        width = max(3, len(str(self.channel_count)))
        return tuple(f"ch{number:0{width}d}" for number in range(1, self.channel_count + 1))

    @property
    def banks(self) -> tuple[str, ...]:
        """The shank of each channel: A, B, ... Z, AA, ..."""
        return tuple(_letters(channel // SHANK) for channel in range(self.channel_count))

    @property
    def positions_mm(self) -> NDArray[np.float64]:
        """Where the electrodes are, two columns on shanks of 32: (channels, 3)."""
        shank, on_shank = np.divmod(np.arange(self.channel_count), SHANK)
        row, column = np.divmod(on_shank, 2)
        x = shank * SHANK_PITCH_MM + column * PITCH_MM
        return np.stack([x, row * PITCH_MM, np.zeros(self.channel_count)], axis=1)
