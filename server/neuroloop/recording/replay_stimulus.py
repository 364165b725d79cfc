"""The stimulus of a replay: frames out of the recording, as far as the live session had them for each bin.

Which frames a bin gets follows from timestamps; what does not follow from them was noted with the bin and the count of
frames at which it happened: another stream, another clock offset, frames that were let go of, and bins that waited for
no more.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from neuroloop.config import StimulusSettings
from neuroloop.errors import ModelError
from neuroloop.recording.recorded import Note, RecordedSession, RingSamples
from neuroloop.session.alignment import Alignment
from neuroloop.session.inlet import InletEvent
from neuroloop.session.stimulus import Source, Stimulus, make_source
from neuroloop.session.streams import from_plain

AT_ONCE = 64  # frames


class ReplayStimulus(Stimulus):
    """Without an inlet. source: that of the bin at hand, or of the first that has one."""

    def __init__(
        self,
        recorded: RecordedSession,
        notes: Iterable[Note],
        session: str,
        settings: StimulusSettings,
        notify: Callable[[InletEvent], None],
    ) -> None:
        super().__init__(session, settings, notify)
        self._recorded = recorded
        noted = [note for note in notes if note["kind"] == "stimulus"]
        self._to_come = deque(note for note in noted if note["what"] != "resumed")
        self._returns: dict[int, deque[int]] = defaultdict(deque)  # of each ring: counts of first frames after a loss
        for note in noted:
            if note["what"] == "resumed":
                self._returns[note["ring"]].append(note["at"])
        self._samples: RingSamples | None = None
        self._ring = 0  # as the recording calls it
        self._found: Source | None = None  # by a session that was running, and no bin had its frames
        first = next((note for note in noted if note["what"] == "source"), None)
        self.source = None if first is None else self._made(first)

    def start(self) -> None:
        """There is nothing to look for."""

    def stop(self) -> None:
        """Nor to let go of."""

    def begin(self, bin: int) -> Source | None:
        self._bin = bin
        while (note := self._next()) is not None and note["what"] == "source":
            self._to_come.popleft()
            self._use(note)
        return self._used

    def _next(self) -> Note | None:
        """What is noted next of the bin at hand."""
        head = self._to_come[0] if self._to_come else None
        return head if head is not None and head["bin"] <= self._bin else None

    def _made(self, note: Note) -> Source:
        return make_source(self.settings, from_plain(note["description"]), np.dtype(note["dtype"]))

    def _use(self, note: Note) -> None:
        source = self.source
        if source is not None and source is self._found and note["ring"] == self._ring:
            self._used, self._found = source, None
            self._skip(source, note["at"])
            return
        self._found = None
        self.close()
        self._used = self.source = source = self._made(note)
        self._open(note["ring"])
        if self._samples is None:
            return
        source.ring.written = source.ring.consumed = first = self._samples.first
        if source.timeline is not None:
            source.timeline.restart(first)
        self._skip(source, note["at"])

    def _open(self, ring: int) -> None:
        """The frames to come are those of this ring."""
        self._ring = ring
        try:
            self._samples = self._recorded.ring(ring)
        except ModelError:  # it has no frame of this stream
            self._samples = None

    def load_state_dict(self, state: dict[str, Any] | None) -> Source | None:
        used = super().load_state_dict(state)
        source = self.source
        if state is None or source is None:
            return None
        self._found = source if used is None else None
        self._open(state["ring"])
        ring, times = source.ring, state["times"]
        while ring.written < ring.consumed + len(times) and self._feed(source, ring.consumed + len(times)):
            continue
        ring.times[np.arange(ring.consumed, ring.written) % ring.capacity] = times[: ring.written - ring.consumed]
        return used

    def take(self, source: Source, alignment: Alignment) -> bool:
        """All that the live session took for the bin at hand."""
        while True:
            note = self._next()
            self._advance(source, alignment, None if note is None else note["at"])
            if note is None:
                return True
            self._to_come.popleft()
            match note["what"]:
                case "finish":
                    return True
                case "offset":
                    self._clock_offset = note["offset"]
                case "skip":
                    self._skip(source, note["to"])

    def _advance(self, source: Source, alignment: Alignment, until: int | None) -> None:
        """Take frames until they have passed the bin, up to this count, or all that there are."""
        ring = source.ring
        while True:
            released = self._released(source)
            stop = released if until is None else min(released, until)
            ring.consumed = alignment.take(ring.samples, ring.times, ring.consumed, stop, self._clock_offset)
            if ring.consumed < stop or (until is not None and ring.consumed >= until) or not self._feed(source):
                return

    def _skip(self, source: Source, count: int) -> None:
        ring = source.ring
        while True:
            ring.consumed = max(ring.consumed, min(count, self._released(source)))
            if ring.consumed >= count or not self._feed(source):
                return

    def _feed(self, source: Source, until: int | None = None) -> bool:
        """Let some frames in, up to this count at most; returns whether there were any."""
        ring, returns = source.ring, self._returns[self._ring]
        if self._samples is None:
            return False
        slot, room = ring.room()
        start = ring.written
        while returns and returns[0] <= start:
            source.resumed = returns.popleft()
        stop = min(self._samples.whole_until(start), start + min(room, AT_ONCE), *list(returns)[:1])
        stop = stop if until is None else min(stop, until)
        if stop <= start:
            return False
        times, values = self._samples.read(start, stop)
        ring.samples[slot : slot + len(times)] = values
        ring.times[slot : slot + len(times)] = times
        ring.commit(len(times), 0.0)
        return True

    def describe(self) -> dict[str, Any]:
        return {}

    def close(self) -> None:
        if self._samples is not None:
            self._samples.close()
