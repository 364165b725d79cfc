"""A pair of LSL outlets: a stream of samples, and its markers as a stream of strings beside it."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pylsl
from numpy.typing import NDArray

from neuroloop_sources.errors import SourceError

FORMATS = {
    "float32": np.float32,
    "double64": np.float64,
    "int8": np.int8,
    "int16": np.int16,
    "int32": np.int32,
    "int64": np.int64,
}
BUFFER_S = 60.0
BUFFER_BYTES = 256_000_000  # kept for each consumer that falls behind
WAIT_S = 0.1
MARKER_WAIT_S = 2.0
LINGER_S = 2.0  # an outlet that ends drops what its own thread has not sent yet, and does not say when it has


@dataclass(frozen=True)
class StreamLayout:
    """What a stream says of itself. positions_mm, banks: of every channel, or none at all."""

    name: str
    source_id: str
    type: str
    nominal_srate: float
    format: str
    channels: tuple[str, ...]
    units: tuple[str, ...]
    positions_mm: tuple[tuple[float, float, float], ...] = ()
    banks: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.format not in FORMATS:
            raise SourceError(f"format: expected one of {', '.join(FORMATS)}, got {self.format!r}")
        if not self.nominal_srate > 0:
            raise SourceError(f"nominal_srate: expected more than 0, got {self.nominal_srate!r}")
        for key, values in (
            ("units", self.units),
            ("positions_mm", self.positions_mm or self.channels),
            ("banks", self.banks or self.channels),
        ):
            if len(values) != len(self.channels):
                raise SourceError(f"{key}: expected one for each of {len(self.channels)} channels, got {len(values)}")

    @property
    def buffer_s(self) -> int:
        """Seconds kept for a consumer that falls behind; what comes later replaces the oldest."""
        bytes_per_s = self.nominal_srate * len(self.channels) * np.dtype(FORMATS[self.format]).itemsize
        return max(1, int(min(BUFFER_S, BUFFER_BYTES / bytes_per_s)))


def _describe(layout: StreamLayout) -> pylsl.StreamInfo:
    """The stream's description, as XDF's meta-data specification wants it: positions in millimetres."""
    info = pylsl.StreamInfo(
        layout.name, layout.type, len(layout.channels), layout.nominal_srate, layout.format, layout.source_id
    )
    channels = info.desc().append_child("channels")
    for number, (label, unit) in enumerate(zip(layout.channels, layout.units, strict=True)):
        channel = channels.append_child("channel")
        channel.append_child_value("label", label)
        channel.append_child_value("unit", unit)
        channel.append_child_value("type", layout.type)
        if layout.banks:
            channel.append_child_value("bank", layout.banks[number])
        if layout.positions_mm:
            location = channel.append_child("location")
            for axis, value in zip("XYZ", layout.positions_mm[number], strict=True):
                location.append_child_value(axis, f"{value:.6g}")
    return info


class OutletPair:
    """The outlets `name` and `name-markers` (source ids alike); they are gone when the object is closed.

    blocking: liblsl's synchronous transport. It takes about a third less of a core and hands samples to the network
    within the push, but a consumer that stops reading stops the source.
    """

    def __init__(self, layout: StreamLayout, *, blocking: bool = False) -> None:
        flags = pylsl.transp_sync_blocking if blocking else pylsl.transp_default
        self._samples = pylsl.StreamOutlet(_describe(layout), 0, layout.buffer_s, flags)
        markers = pylsl.StreamInfo(
            f"{layout.name}-markers", "Markers", 1, pylsl.IRREGULAR_RATE, "string", f"{layout.source_id}-markers"
        )
        self._markers = pylsl.StreamOutlet(markers)

    def wait_for_consumers(self, stop: threading.Event) -> None:
        """Until someone receives the samples, or `stop`; then, for at most two seconds, someone the markers."""
        while not stop.is_set() and not self._samples.wait_for_consumers(WAIT_S):
            pass
        for _ in range(round(MARKER_WAIT_S / WAIT_S)):
            if stop.is_set() or self._markers.wait_for_consumers(WAIT_S):
                return

    def push(self, samples: NDArray[np.generic], time: float | Sequence[float]) -> None:
        """samples: (n, channels); time: of the last of them, or of each, LSL seconds."""
        self._samples.push_chunk(samples, time)

    def push_marker(self, text: str, time: float) -> None:
        self._markers.push_sample([text], time)

    def close(self, stop: threading.Event) -> None:
        """End both streams, after a moment in which consumers can take the last samples, unless `stop` is set."""
        if self._samples.have_consumers() or self._markers.have_consumers():
            stop.wait(LINGER_S)
        del self._samples, self._markers
