"""The stimulus stream of a session: its inlet, its ring, and the frames of bins out of it.

An acquire thread fills the ring, as for the neural stream; the encoders' thread is its only reader. Between the two is
`Source`, made anew for each stream that is found.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pylsl import local_clock

from neuroloop.config import StimulusSettings
from neuroloop.errors import StreamError
from neuroloop.models.receptive_fields import Frame
from neuroloop.session.alignment import Alignment
from neuroloop.session.inlet import InletEvent, SampleInlet
from neuroloop.session.ring import Ring
from neuroloop.session.sender_clock import Offset, step_event
from neuroloop.session.streams import StreamDescription, from_plain
from neuroloop.session.timeline import Timeline

F32 = NDArray[np.float32]
Note = Callable[..., None]

IRREGULAR_SRATE = 240.0  # Hz, for which the ring of an irregular stream has room
LEAST_CAPACITY = 64
WAKES_PER_BIN = 4


@dataclass(eq=False)
class Source:
    """One stimulus stream. timeline: None for an irregular one. resumed: count of the first sample after a loss."""

    description: StreamDescription
    frame: Frame
    ring: Ring
    timeline: Timeline | None
    resumed: int | None = None
    offset: Offset = field(default_factory=Offset)

    @property
    def pixels(self) -> int:
        return self.description.channel_count

    @property
    def period_s(self) -> float:
        """0 for an irregular stream."""
        srate = self.description.nominal_srate
        return 1.0 / srate if srate > 0 else 0.0


def make_source(settings: StimulusSettings, description: StreamDescription, dtype: np.dtype[np.generic]) -> Source:
    """Raises StreamError where the stream is not what the session was made for."""
    name, count, srate = description.name, description.channel_count, description.nominal_srate
    if description.format in ("string", "undefined"):
        raise StreamError(f"stimulus stream {name!r}: expected numbers, got format {description.format}")
    if settings.channel_count not in (None, count):
        raise StreamError(
            f"stimulus stream {name!r}: expected {settings.channel_count} channels (stimulus.channel_count), "
            f"got {count}"
        )
    if settings.nominal_srate not in (None, srate):
        raise StreamError(
            f"stimulus stream {name!r}: expected {settings.nominal_srate:g} Hz (stimulus.nominal_srate), got {srate:g}"
        )
    frame = settings.frame or (count, 1, 1)
    if math.prod(frame) != count:
        raise StreamError(
            f"stimulus stream {name!r}: expected {math.prod(frame)} channels for frames of {frame} (stimulus.frame), "
            f"got {count}"
        )
    capacity = max(LEAST_CAPACITY, round(settings.buffer_s * (srate or IRREGULAR_SRATE)))
    timeline = Timeline(srate, settings.dejitter) if srate > 0 else None
    return Source(description, frame, Ring(capacity, count, dtype), timeline)


class Stimulus:
    """`start` and `stop` are for the loop, `describe` and `source` for anybody, the rest for the encoders' thread."""

    def __init__(self, session: str, settings: StimulusSettings, notify: Callable[[InletEvent], None]) -> None:
        """notify: called in the acquire thread."""
        self.source: Source | None = None
        self.note: Note = lambda **facts: None  # takes what a replay can't know, in the encoders' thread
        self.lost_frames = 0  # of a full ring
        self.settings = settings
        self._session = session
        self._notify = notify
        self.inlet: SampleInlet | None = None
        self._clock_offset = 0.0
        self._bin = -1
        self._used: Source | None = None  # for the bin before
        self._at = 0  # the count of its ring up to which that took frames
        self._bell = threading.Event()

    def start(self) -> None:
        """Look for the stream."""
        inlet = SampleInlet(
            f"{self._session}-stimulus",
            self.settings,
            prepare=lambda description, dtype: self._prepare(inlet, description, dtype),
            notify=lambda event: self._notify(replace(event, detail=f"stimulus: {event.detail}")),
            wake=self._bell.set,
        )
        self.inlet = inlet
        inlet.start()

    def stop(self) -> None:
        """Let go of the stream."""
        inlet, self.inlet = self.inlet, None
        if inlet is not None:
            inlet.end()
            inlet.join(1.0)

    def _prepare(self, inlet: SampleInlet, description: StreamDescription, dtype: np.dtype[np.generic]) -> Ring:
        """In the acquire thread. The same stream as before keeps its ring."""
        source = self.source
        if source is None or inlet is not self.inlet or not source.description.is_same_source(description):
            source = make_source(self.settings, description, dtype)
            if inlet is self.inlet:
                self.source = source
        else:
            source.resumed = source.ring.written
        return source.ring

    # For the encoders' thread

    def align(self, source: Source, bin_s: float) -> Alignment:
        """Of bins of this length."""
        return Alignment(source.pixels, bin_s, source.period_s, self.settings.hold_s)

    def begin(self, bin: int) -> Source | None:
        """Bin `bin` is at hand: the stream that its frames come from."""
        self._bin, source = bin, self.source
        if source is None:
            return None
        ring = source.ring
        if source is not self._used:
            stream = {"ring": ring.serial, "description": asdict(source.description), "dtype": ring.samples.dtype.str}
            self.note(bin=bin, what="source", at=ring.consumed, **stream)
        elif ring.consumed != self._at:  # it was let go of
            self.note(bin=bin, what="skip", at=self._at, to=ring.consumed)
        self._used, self._at = source, ring.consumed
        return source

    def state_dict(self) -> dict[str, Any] | None:
        """Between two bins: how its stream goes on; None without one. times: of frames that are judged and not used."""
        source = self.source
        if source is None:
            return None
        ring, timeline = source.ring, None if source.timeline is None else source.timeline.state_dict()
        judged = ring.consumed if timeline is None else timeline["judged"]
        return {
            "description": asdict(source.description),
            "dtype": ring.samples.dtype.str,
            "ring": ring.serial,
            "is_used": source is self._used,
            "consumed": ring.consumed,
            "clock_offset": self._clock_offset,
            "timeline": timeline,
            "times": ring.times[np.arange(ring.consumed, judged) % ring.capacity],
        }

    def load_state_dict(self, state: dict[str, Any] | None) -> Source | None:
        """Before the first bin: go on with that stream. Returns it if the bin before had its frames.

        Frames that are not used are the caller's to put into the ring, with their times.
        """
        if state is None:
            return None
        self.source = source = make_source(self.settings, from_plain(state["description"]), np.dtype(state["dtype"]))
        source.ring.written = source.ring.consumed = self._at = state["consumed"]
        if source.timeline is not None:
            source.timeline.load_state_dict(state["timeline"])
        self._clock_offset = state["clock_offset"]
        self._used = source if state["is_used"] else None
        return self._used

    def take(self, source: Source, alignment: Alignment) -> bool:
        """What has come for the bin at hand, without waiting; returns whether that is all. `wait` waits for more."""
        ring = source.ring
        self._bell.clear()
        ring.wanted = ring.written + max(1, int(alignment.samples_per_bin / WAKES_PER_BIN))
        released = self._released(source)
        if (inlet := self.inlet) is not None:
            shift = 0.0 if source.timeline is None else source.timeline.shift
            offset = source.offset.update(inlet.clock_offset, shift)
            if offset != self._clock_offset:
                self.note(bin=self._bin, what="offset", at=ring.consumed, offset=offset)
            self._clock_offset = offset
        if ring.is_overrun:
            self.note(bin=self._bin, what="skip", at=ring.consumed, to=released)
            self.lost_frames += released - ring.consumed
            ring.consumed, ring.is_overrun = released, False
        ring.consumed = alignment.take(ring.samples, ring.times, ring.consumed, released, self._clock_offset)
        self._at = ring.consumed
        return alignment.is_passed

    def give_up(self, source: Source) -> None:
        """The bin at hand waits for no more frames."""
        self.note(bin=self._bin, what="finish", at=source.ring.consumed)

    def wait(self, timeout: float) -> None:
        """Until more has come than `take` saw, a quarter of a bin's samples at least, or for so many seconds."""
        self._bell.wait(timeout)

    def let_go(self) -> None:
        """No bin asks for frames: keep the newest half of the ring."""
        source = self.source
        if source is not None:
            ring, released = source.ring, self._released(source)
            ring.consumed = max(ring.consumed, min(released, ring.written - ring.capacity // 2))
            ring.is_overrun = False

    def _released(self, source: Source) -> int:
        """Samples whose timestamps are judged."""
        resumed, source.resumed = source.resumed, None
        written, timeline = source.ring.written, source.timeline
        if timeline is None:
            return written
        if resumed is not None:
            timeline.follow(source.ring.times, resumed)  # those before it, which may be the first
            self.note(bin=self._bin, what="resumed", ring=source.ring.serial, at=resumed)
            timeline.resume(resumed)
        released, _ = timeline.follow(source.ring.times, written)
        for step in timeline.take_steps():
            kind, detail, _ = step_event(step, timeline.shift)
            self._notify(InletEvent(kind, f"stimulus: {detail}"))
        return released

    def describe(self) -> dict[str, Any]:
        """Of the stream, as the status has it."""
        inlet, source, wanted = self.inlet, self.source, self.settings
        described: dict[str, Any] = {
            "state": "stopped" if inlet is None else inlet.state,
            "name": wanted.name,
            "type": wanted.type,
            "source_id": wanted.source_id,
            "lost_frames": self.lost_frames,
        }
        if source is None:
            return described
        seen = source.description
        age_s = None if inlet is None or not inlet.last_arrival else local_clock() - inlet.last_arrival
        return described | {
            "name": seen.name,
            "type": seen.type,
            "source_id": seen.source_id,
            "hostname": seen.hostname,
            "channel_count": seen.channel_count,
            "nominal_srate": seen.nominal_srate,
            "frame": list(source.frame),
            "samples": source.ring.written,
            "clock_offset_s": self._clock_offset,
            "age_s": age_s,
        }
