"""The simulator: a session whose truth is known, over LSL.

Samples on `name`, one marker per trial, at its first sample, on `name-markers`; the marker's text is the label.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator

from neuroloop_sources.outlets import StreamLayout
from neuroloop_sources.settings import SimulatorSettings
from neuroloop_sources.stream import Feed, Ready, stream
from neuroloop_sources.truth import Truth

__all__ = ["SimulatorSettings", "layout", "make_feed", "run"]


def layout(settings: SimulatorSettings) -> StreamLayout:
    """What the simulated stream says of itself."""
    return StreamLayout(
        name=settings.name,
        source_id=settings.source_id,
        type="Ephys",
        nominal_srate=settings.nominal_srate,
        format=settings.format,
        channels=settings.channels,
        units=("microvolts",) * settings.channel_count,
        positions_mm=tuple((float(x), float(y), float(z)) for x, y, z in settings.positions_mm),
        banks=settings.banks,
    )


def make_feed(settings: SimulatorSettings, seconds: float | None = None) -> Feed:
    """What is streamed of a session: all of it, without end, or so many seconds."""
    from neuroloop_sources.voltage import Voltage  # Numba is slow to import: only who simulates waits for it

    truth = Truth(settings)
    length = settings.trial_samples

    def markers(start: int, after: int) -> Iterator[tuple[float, str]]:
        for trial in range(-(-start // length), -(-after // length)):
            yield trial * length, truth.label(trial)

    sample_count = None if seconds is None else math.ceil(seconds * settings.nominal_srate)
    return Feed(layout(settings), Voltage(settings, truth), markers, sample_count)


def run(
    settings: SimulatorSettings,
    *,
    stop: threading.Event,
    ready: Ready | None = None,
    wait_for_consumers: bool = False,
    speed: float = 1.0,
    seconds: float | None = None,
    blocking: bool = False,
) -> int:
    """Stream the session until `stop` is set, or for so many of its seconds; returns the number of samples pushed.

    ready: called with the LSL time of sample 0, just before it; with the settings, that is all that `Truth` needs.
    Other arguments: see `stream`.
    """
    return stream(
        make_feed(settings, seconds),
        settings.chunk_samples,
        stop=stop,
        ready=ready,
        wait_for_consumers=wait_for_consumers,
        speed=speed,
        blocking=blocking,
    )
