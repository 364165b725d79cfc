"""One thread per inlet: finds its stream, blocks in liblsl, hands samples to the ring and wakes the loop.

The thread asks liblsl for exactly the samples that complete the loop's block, so it is woken once per block and not
once per sample, and then drains. It tells the loop every change of its state: searching, connected, stalled, lost,
refused.
"""

from __future__ import annotations

import ctypes
import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pylsl
from pylsl.util import LostError

from neuroloop.config import InletSettings, MarkerSettings, StreamSelector
from neuroloop.errors import StreamError
from neuroloop.session.priority import Level, run_at
from neuroloop.session.ring import Ring
from neuroloop.session.streams import GONE, StreamDescription, describe, find

InletState = Literal["searching", "connected", "stalled", "lost", "refused"]
PULL_TIMEOUT_S = 0.1
CLOCK_INTERVAL_S = 5.0
SEARCH_S = 1.0  # liblsl asks known peers half a second after it asked by multicast, if its file does not say otherwise
ALL_ANSWER_S = 0.3
AGAIN_S = 0.5
OVERFLOW_SAMPLES = 256
MARKERS_KEPT = 4096  # for a recorder
OFFSETS_KEPT = 64

Measured = deque[tuple[float, float]]


@dataclass(frozen=True)
class InletEvent:
    """A change of an inlet, told to the loop."""

    kind: Literal[
        "stream_found",
        "stream_connected",
        "stream_stalled",
        "stream_resumed",
        "stream_lost",
        "stream_refused",
        "clock_step",
    ]
    detail: str
    description: StreamDescription | None = None
    count: int = 0


@dataclass(frozen=True, eq=False)
class Receiving:
    """What a recorder is told of a stream of samples: its header, the ring, and the count of its first sample there."""

    header: str
    ring: Ring
    first: int


@dataclass(frozen=True, eq=False)
class Markers:
    """What a recorder is told of a marker stream: its header, and its samples as they come, with raw timestamps."""

    header: str
    samples: deque[tuple[float, list[Any]]] = field(default_factory=lambda: deque(maxlen=MARKERS_KEPT))


class ClockOffset(threading.Thread):
    """Keeps an inlet's clock offset fresh beside the acquire thread: the first estimate takes most of a second."""

    def __init__(self, inlet: pylsl.StreamInlet, name: str, offset: float | None, measured: Measured) -> None:
        """measured: gets each estimate, as (the sender's time, seconds to add to it)."""
        super().__init__(name=f"{name}-clock", daemon=True)
        self._inlet = inlet
        self._measured = measured
        self._known = threading.Event()
        self._ended = threading.Event()
        self.offset = 0.0
        if offset is not None:
            self.offset = offset
            self._known.set()

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                self.offset = offset = self._inlet.time_correction(timeout=3.0)
                self._measured.append((pylsl.local_clock() - offset, offset))
                self._known.set()
            except RuntimeError:  # whichever of pylsl's
                self._ended.wait(0.2)
                continue
            self._ended.wait(CLOCK_INTERVAL_S)
        del self._inlet  # its connections end with the last reference

    def wait_known(self, timeout: float) -> bool:
        """Whether an estimate came within `timeout` seconds."""
        return self._known.wait(timeout)

    def end(self) -> None:
        self._ended.set()


class SampleInlet(threading.Thread):
    """The stream of samples of a session."""

    def __init__(
        self,
        name: str,
        settings: InletSettings,
        *,
        prepare: Callable[[StreamDescription, np.dtype[np.generic]], Ring],
        notify: Callable[[InletEvent], None],
        wake: Callable[[], None],
    ) -> None:
        """prepare: makes ready for the described stream and returns the ring, or raises StreamError to refuse it.

        notify, wake: called from this thread.
        """
        super().__init__(name=f"{name}-acquire", daemon=True)
        self.state: InletState = "searching"
        self.last_arrival = 0.0
        self.receiving: Receiving | None = None
        self.measured: Measured = deque(maxlen=OFFSETS_KEPT)
        self._settings = settings
        self._prepare = prepare
        self._notify = notify
        self._wake = wake
        self._ended = threading.Event()
        self._known: StreamDescription | None = None
        self._sought: StreamDescription | None = None
        self._offset_before: float | None = None
        self._clock: ClockOffset | None = None
        self._refused: set[str] = set()
        self._ambiguous: set[str] = set()

    @property
    def clock_offset(self) -> float:
        """Seconds to add to the sender's timestamps."""
        clock = self._clock
        return clock.offset if clock is not None else 0.0

    def expect(self, known: StreamDescription, clock_offset: float) -> None:
        """Before the thread starts: look for this very stream, whose clock offset was so much a moment ago."""
        self._sought, self._offset_before = known, clock_offset

    def end(self) -> None:
        """Ask the thread to end; it does within a second or so."""
        self._ended.set()

    def run(self) -> None:
        while not self._ended.is_set():
            # Finding a stream, and compiling for it, takes its time; for one that is expected, all is compiled.
            run_at(Level.BESIDE if self._sought is None else Level.SESSION)
            try:
                info = self._search()
                if info is not None:
                    self._stream(info)
            except LostError:
                self._lose("the stream's sender is gone; looking for it again")
            except GONE:
                self._lose("the stream was found but does not answer; looking for it again")
                self._ended.wait(AGAIN_S)
            except StreamError as error:
                self._refuse(str(error))
                self._ended.wait()  # searching on would not help

    def _search(self) -> pylsl.StreamInfo | None:
        selector: StreamSelector = self._settings
        sought = self._known or self._sought
        if sought is not None and sought.source_id:
            selector = self._settings.model_copy(update={"source_id": sought.source_id})
        found = find(selector, len(self._refused) + 1, SEARCH_S)
        if found and sought is None:
            others = find(selector, len(self._refused) + 2, ALL_ANSWER_S)
            found = list({info.uid(): info for info in (*found, *others)}.values())
        if not found:
            self._refused.clear()
            self._sought = None  # it has gone meanwhile; another one may be there
            self.state = "searching" if self._known is None else "lost"
        fresh = {info.uid(): info for info in found if info.uid() not in self._refused}
        if len(fresh) < 2:
            self._ambiguous = set()
            return next(iter(fresh.values()), None)
        if fresh.keys() != self._ambiguous:
            self._ambiguous = set(fresh)
            names = ", ".join(f"{i.name()!r} (source_id {i.source_id()!r} on {i.hostname()})" for i in fresh.values())
            self._refuse(f"{len(fresh)} streams match: {names}; name one of them by its source_id")
        self._ended.wait(AGAIN_S)
        return None

    def _lose(self, why: str) -> None:
        self.state = "lost"
        self._notify(InletEvent("stream_lost", why, self._known))

    def _refuse(self, why: str) -> None:
        self.state = "refused"
        self._notify(InletEvent("stream_refused", why, self._known))

    def _check_return(self, now: StreamDescription) -> None:
        """A stream that returns must be the one that went away."""
        before = self._known
        if before is None:
            return
        for what, expected, came in (
            ("channel count", before.channel_count, now.channel_count),
            ("nominal_srate", before.nominal_srate, now.nominal_srate),
            ("format", before.format, now.format),
            ("channel labels", before.channels, now.channels),
        ):
            if expected != came:
                raise StreamError(
                    f"stream {now.name!r} returned with another {what}: expected {expected}, got {came}; "
                    "stop and start the session to take it as a new stream"
                )

    def _stream(self, info: pylsl.StreamInfo) -> None:
        inlet = pylsl.StreamInlet(info, max_buflen=max(1, round(self._settings.buffer_s)), recover=False)
        full = inlet.info(timeout=5.0)
        description = describe(full)
        self._notify(InletEvent("stream_found", f"found {description.name!r} on {description.hostname}", description))
        try:
            self._check_return(description)
            returns = self._known is not None
            ring = self._prepare(description, np.dtype(inlet.np_dtype))
        except StreamError as error:
            self._refused.add(info.uid())
            self._refuse(str(error))
            return
        self._known = description
        self.receiving = Receiving(full.as_xml(), ring, ring.written)
        keep = self.clock_offset if returns and description.is_local else self._offset_before
        self._sought = self._offset_before = None
        self._clock = ClockOffset(inlet, self.name, keep, self.measured)
        self._clock.start()
        try:
            # Without the offset the first bins would carry another machine's time.
            if not self._clock.wait_known(5.0):
                self._notify(
                    InletEvent("stream_stalled", "no clock offset within 5 s; timestamps are the sender's own")
                )
            run_at(Level.LOOP)
            inlet.open_stream(timeout=5.0)
            self.state = "connected"
            self._notify(InletEvent("stream_connected", f"receiving {description.name!r}", description))
            self._pull(inlet, ring, description.channel_count)
        finally:
            self._clock.end()
            inlet.close_stream()

    def _pull(self, inlet: pylsl.StreamInlet, ring: Ring, channel_count: int) -> None:
        pull = _puller(inlet, channel_count)
        row = ring.samples.strides[0]
        data, times = ring.samples.ctypes.data, ring.times.ctypes.data
        overflow = np.empty((OVERFLOW_SAMPLES, channel_count), ring.samples.dtype)
        overflow_times = np.empty(OVERFLOW_SAMPLES)
        buffer_s = self._settings.buffer_s
        before = self.last_arrival = pylsl.local_clock()
        while not self._ended.is_set():
            slot, room = ring.room()
            if room == 0:
                before = pylsl.local_clock()
                ring.overrun(before + buffer_s)
                if pull(overflow.ctypes.data, overflow_times.ctypes.data, OVERFLOW_SAMPLES, 0.0) == 0:
                    self._wake()
                    self._ended.wait(0.002)
                continue
            room = min(room, ring.most_at_once)
            lacking = min(max(1, ring.wanted - ring.written), room)
            count = pull(data + slot * row, times + slot * 8, lacking, PULL_TIMEOUT_S)
            now = pylsl.local_clock()
            if now - before > buffer_s:  # this process was held up for longer than liblsl keeps samples
                ring.overrun_until = now + buffer_s
            before = now
            if count == 0:
                if self.state == "connected" and now - self.last_arrival > self._settings.stall_after_s:
                    self.state = "stalled"
                    self._notify(InletEvent("stream_stalled", f"no sample for {now - self.last_arrival:.1f} s"))
                continue
            if count == lacking < room:
                slot += count
                count += pull(data + slot * row, times + slot * 8, room - count, 0.0)
                now = pylsl.local_clock()
            self.last_arrival = now
            ring.commit(count, now)
            if ring.written >= ring.wanted:
                self._wake()
            if self.state == "stalled":
                self.state = "connected"
                self._notify(InletEvent("stream_resumed", "samples are coming again"))


def _puller(inlet: pylsl.StreamInlet, channel_count: int) -> Callable[[int, int, int, float], int]:
    """`pull_chunk` into memory: (address of samples, of timestamps, room in samples, timeout) -> samples pulled."""
    pull_chunk, handle = inlet.do_pull_chunk, inlet.obj
    error = ctypes.c_int()
    error_reference = ctypes.byref(error)

    def pull(data: int, times: int, room: int, timeout: float) -> int:
        got: int = pull_chunk(
            handle,
            ctypes.c_void_p(data),
            ctypes.c_void_p(times),
            ctypes.c_ulong(room * channel_count),
            ctypes.c_ulong(room),
            ctypes.c_double(timeout),
            error_reference,
        )
        if error.value:
            pylsl.util.handle_error(error)
        return got // channel_count

    return pull


class MarkerInlet(threading.Thread):
    """A stream of markers that become labels."""

    def __init__(
        self,
        name: str,
        settings: MarkerSettings,
        *,
        submit: Callable[[str, float, float], None],
        notify: Callable[[InletEvent], None],
    ) -> None:
        """submit: takes (label, start, end), LSL seconds of this machine; called from this thread."""
        super().__init__(name=f"{name}-markers", daemon=True)
        self.state: InletState = "searching"
        self.receiving: Markers | None = None
        self.measured: Measured = deque(maxlen=OFFSETS_KEPT)
        self._settings = settings
        self._submit = submit
        self._notify = notify
        self._ended = threading.Event()

    def end(self) -> None:
        self._ended.set()

    def run(self) -> None:
        run_at(Level.SESSION)
        while not self._ended.is_set():
            try:
                found = find(self._settings.stream, 1, SEARCH_S)
                if found:
                    self._stream(found[0])
            except GONE:
                self.state = "lost"
                self._notify(InletEvent("stream_lost", "a marker stream is gone; looking for it again"))
                self._ended.wait(AGAIN_S)
            except StreamError as error:
                self.state = "refused"
                self._notify(InletEvent("stream_refused", f"markers: {error}"))
                self._ended.wait()  # searching on would not help

    def _stream(self, info: pylsl.StreamInfo) -> None:
        inlet = pylsl.StreamInlet(info, max_buflen=60, recover=False)
        clock = ClockOffset(inlet, self.name, None, self.measured)
        self.receiving = received = Markers(inlet.info(timeout=5.0).as_xml())
        inlet.open_stream(timeout=5.0)
        self.state = "connected"
        self._notify(InletEvent("stream_connected", f"receiving markers of {info.name()!r}"))
        clock.start()
        start, end = self._settings.window
        try:
            while not self._ended.is_set():
                sample, time = inlet.pull_sample(timeout=PULL_TIMEOUT_S * 2)
                if sample is None:
                    continue
                received.samples.append((time, sample))
                text = str(sample[0])
                label = text if self._settings.labels is None else self._settings.labels.get(text)
                if label is not None:
                    clock.wait_known(3.0)
                    self._submit(label, time + clock.offset + start, time + clock.offset + end)
        finally:
            clock.end()
