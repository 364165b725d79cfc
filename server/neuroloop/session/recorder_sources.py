"""What a recorder reads beside the loop: rings of samples and marker streams, as inlets receive them.

Nobody waits for a recorder. It copies out of a ring and looks afterwards whether the copy was whole; what was
overwritten before is lost to the recording, and counted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from neuroloop.recording.writer import XdfWriter
from neuroloop.session.inlet import Markers, Measured, Receiving
from neuroloop.session.ring import Ring
from neuroloop_sources.xdf import layout

PIECE_BYTES = 1 << 22
Tell = Callable[[str, dict[str, int | str]], None]


@dataclass(eq=False)
class Feed:
    """An inlet, as far as a recorder looks at it; both members are read anew at every turn."""

    receiving: Callable[[], Receiving | Markers | None]
    measured: Callable[[], Measured | None]


class RingSource:
    """The samples of one ring. at: count of the next one to write."""

    def __init__(self, writer: XdfWriter, receiving: Receiving, first: int) -> None:
        self.ring: Ring = receiving.ring
        self.stream = writer.add_stream(receiving.header)
        self.at = first
        self.lost = 0
        self._writer = writer
        rows = max(1, min(self.ring.capacity, PIECE_BYTES // max(1, self.ring.samples.strides[0])))
        self._samples = np.empty((rows, self.ring.samples.shape[1]), self.ring.samples.dtype)
        self._times = np.empty(rows)

    @property
    def lost_now(self) -> int:
        """Samples lost so far, those too that will be found lost at the next turn."""
        return self.lost + max(0, self.ring.whole() - self.at)

    def drain(self, tell: Tell) -> None:
        """Write what has come. tell: takes what was lost."""
        ring = self.ring
        until = ring.written
        while self.at < until:
            self._skip(ring.whole(), tell)
            slot = self.at % ring.capacity
            count = min(len(self._times), until - self.at, ring.capacity - slot)
            if count <= 0:
                return
            np.copyto(self._samples[:count], ring.samples[slot : slot + count])
            np.copyto(self._times[:count], ring.received[slot : slot + count])
            if ring.whole() > self.at:
                continue  # overwritten meanwhile
            self._writer.samples(self.stream, self._times[:count], self._samples[:count])
            self.at += count

    def _skip(self, whole: int, tell: Tell) -> None:
        if whole <= self.at:
            return
        first, self.at = self.at, min(self.ring.written, whole + self.ring.capacity // 4)  # not to be lapped at once
        self.lost += self.at - first
        why = "the disk was too slow"
        tell("samples", {"stream": self.stream, "first": first, "count": self.at - first, "why": why})


class MarkerSource:
    """The samples of one marker stream."""

    lost_now = 0

    def __init__(self, writer: XdfWriter, markers: Markers) -> None:
        self.stream = writer.add_stream(markers.header)
        self._info, _ = layout.parse_header(markers.header)
        self._writer = writer
        self._markers = markers

    def drain(self, tell: Tell) -> None:
        """Write what has come."""
        samples = self._markers.samples
        taken = [samples.popleft() for _ in range(len(samples))]
        if not taken:
            return
        times, rows = [time for time, _ in taken], [row for _, row in taken]
        values = rows if self._info.is_text else np.array(rows, self._info.dtype)
        self._writer.samples(self.stream, times, values)


Source = RingSource | MarkerSource


class Sources:
    """Everything that the inlets of a session receive, while it is recorded."""

    def __init__(self, feeds: list[Feed]) -> None:
        """To be made by the loop: of the rings that there are already, samples that it has not used are recorded."""
        self._feeds = feeds
        known = [feed.receiving() for feed in feeds]
        self._first = {id(one.ring): one.ring.consumed for one in known if isinstance(one, Receiving)}
        self._known: dict[int, Source] = {}
        self._latest: dict[int, Source] = {}  # of each feed

    def __iter__(self) -> Iterator[Source]:
        return iter(list(self._known.values()))

    @property
    def lost(self) -> int:
        """Samples that the recording will lack, by now."""
        return sum(source.lost_now for source in self)

    def drain(self, writer: XdfWriter, tell: Tell, begun: Callable[[RingSource], None]) -> None:
        """Write what has come. begun: told of each ring when its stream begins."""
        for number, feed in enumerate(self._feeds):
            receiving = feed.receiving()
            if receiving is not None:
                self._latest[number] = self._source(writer, receiving, begun)
            self._drain_offsets(writer, number, feed)
        for source in self:
            source.drain(tell)

    def _source(self, writer: XdfWriter, receiving: Receiving | Markers, begun: Callable[[RingSource], None]) -> Source:
        key = id(receiving if isinstance(receiving, Markers) else receiving.ring)
        if key in self._known:
            return self._known[key]
        if isinstance(receiving, Markers):
            self._known[key] = MarkerSource(writer, receiving)
        else:
            first = self._first.get(key, receiving.first)
            self._known[key] = source = RingSource(writer, receiving, first)
            begun(source)
        return self._known[key]

    def _drain_offsets(self, writer: XdfWriter, number: int, feed: Feed) -> None:
        measured, source = feed.measured(), self._latest.get(number)
        while measured and source is not None:
            writer.clock_offset(source.stream, *measured.popleft())
