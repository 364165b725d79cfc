"""One thread per inlet: finds its stream, blocks in liblsl, hands samples to the ring and wakes the loop.

The thread asks liblsl for exactly the samples that complete the loop's block, so it is woken once per block and not
once per sample, and then drains. It tells the loop every change of its state: searching, connected, stalled, lost,
refused.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pylsl
from pylsl.lib import fmt2npdtype

from neuroloop.config import MarkerSettings, StreamSelector, StreamSettings
from neuroloop.errors import StreamError
from neuroloop.session.ring import Ring
from neuroloop.session.streams import StreamDescription, describe, find

InletState = Literal["searching", "connected", "stalled", "lost", "refused"]
PULL_TIMEOUT_S = 0.1
CLOCK_INTERVAL_S = 5.0
ALL_ANSWER_S = 0.3


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
    ]
    detail: str
    description: StreamDescription | None = None
    count: int = 0


class ClockOffset(threading.Thread):
    """Keeps an inlet's clock offset fresh beside the acquire thread: the first estimate takes most of a second."""

    def __init__(self, inlet: pylsl.StreamInlet, name: str, offset: float | None) -> None:
        super().__init__(name=f"{name}-clock", daemon=True)
        self._inlet = inlet
        self._known = threading.Event()
        self._ended = threading.Event()
        self.offset = 0.0
        if offset is not None:
            self.offset = offset
            self._known.set()

    def run(self) -> None:
        while not self._ended.is_set():
            try:
                self.offset = self._inlet.time_correction(timeout=3.0)
                self._known.set()
            except (TimeoutError, RuntimeError, pylsl.util.LostError):
                self._ended.wait(0.2)
                continue
            self._ended.wait(CLOCK_INTERVAL_S)

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
        settings: StreamSettings,
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
        self._settings = settings
        self._prepare = prepare
        self._notify = notify
        self._wake = wake
        self._ended = threading.Event()
        self._known: StreamDescription | None = None
        self._clock: ClockOffset | None = None
        self._refused: set[str] = set()

    @property
    def clock_offset(self) -> float:
        """Seconds to add to the sender's timestamps."""
        clock = self._clock
        return clock.offset if clock is not None else 0.0

    def end(self) -> None:
        """Ask the thread to end; it does within a fraction of a second."""
        self._ended.set()

    def run(self) -> None:
        while not self._ended.is_set():
            info = self._search()
            if info is None:
                continue
            try:
                self._stream(info)
            except pylsl.util.LostError:
                self.state = "lost"
                self._notify(
                    InletEvent("stream_lost", "the stream's sender is gone; looking for it again", self._known)
                )
            except TimeoutError:
                continue  # it went away between being found and being opened

    def _search(self) -> pylsl.StreamInfo | None:
        if self.state not in ("lost", "refused"):
            self.state = "searching"
        selector: StreamSelector = self._settings
        if self._known is not None and self._known.source_id:
            selector = self._settings.model_copy(update={"source_id": self._known.source_id})
        found = find(selector, 1, 0.5)
        if found and self._known is None:
            found = find(selector, 2, ALL_ANSWER_S)
        if not found:
            self._refused.clear()
            return None
        fresh = [info for info in found if info.uid() not in self._refused]
        if not fresh:
            self._ended.wait(0.2)
            return None
        if len(fresh) > 1:
            names = ", ".join(f"{i.name()!r} (source_id {i.source_id()!r} on {i.hostname()})" for i in fresh)
            self._refuse(fresh, f"{len(fresh)} streams match: {names}; name one of them by its source_id")
            return None
        return fresh[0]

    def _refuse(self, infos: list[pylsl.StreamInfo], why: str) -> None:
        self._refused.update(info.uid() for info in infos)
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
        description = describe(inlet.info(timeout=5.0))
        self._notify(InletEvent("stream_found", f"found {description.name!r} on {description.hostname}", description))
        try:
            self._check_return(description)
            if description.format == "string" or description.nominal_srate <= 0:
                raise StreamError(
                    f"stream {description.name!r}: expected numbers at a regular rate, "
                    f"got format {description.format} at {description.nominal_srate:g} Hz"
                )
            returns = self._known is not None
            ring = self._prepare(description, np.dtype(fmt2npdtype[info.channel_format()]))
        except StreamError as error:
            self._refuse([info], str(error))
            return
        self._known = description
        keep = self.clock_offset if returns and description.is_local else None
        self._clock = ClockOffset(inlet, self.name, keep)
        self._clock.start()
        try:
            # Without the offset the first bins would carry another machine's time.
            if not self._clock.wait_known(5.0):
                self._notify(
                    InletEvent("stream_stalled", "no clock offset within 5 s; timestamps are the sender's own")
                )
            inlet.open_stream(timeout=5.0)
            self.state = "connected"
            self._notify(InletEvent("stream_connected", f"receiving {description.name!r}", description))
            self._pull(inlet, ring, description)
        finally:
            self._clock.end()

    def _pull(self, inlet: pylsl.StreamInlet, ring: Ring, description: StreamDescription) -> None:
        pull = inlet.do_pull_chunk
        channels = description.channel_count
        row = ring.samples.strides[0]
        data, times = ring.samples.ctypes.data, ring.times.ctypes.data
        error = ctypes.c_int()
        error_reference = ctypes.byref(error)
        overflow = np.empty((256, channels), ring.samples.dtype)
        overflow_times = np.empty(256)
        self.last_arrival = pylsl.local_clock()
        while not self._ended.is_set():
            slot, room = ring.room()
            if room == 0:
                got = self._pull_into(pull, inlet, overflow.ctypes.data, overflow_times.ctypes.data, 256, channels, 0.0)
                ring.dropped += got
                if got == 0:
                    self._wake()
                    self._ended.wait(0.002)
                continue
            lacking = min(max(1, ring.wanted - ring.written), room)
            got = pull(
                inlet.obj,
                ctypes.c_void_p(data + slot * row),
                ctypes.c_void_p(times + slot * 8),
                ctypes.c_ulong(lacking * channels),
                ctypes.c_ulong(lacking),
                ctypes.c_double(PULL_TIMEOUT_S),
                error_reference,
            )
            if error.value:
                pylsl.util.handle_error(error)
            count = got // channels
            now = pylsl.local_clock()
            if count == 0:
                if self.state == "connected" and now - self.last_arrival > self._settings.stall_after_s:
                    self.state = "stalled"
                    self._notify(InletEvent("stream_stalled", f"no sample for {now - self.last_arrival:.1f} s"))
                continue
            if count == lacking < room:
                count += self._pull_into(
                    pull, inlet, data + (slot + count) * row, times + (slot + count) * 8, room - count, channels, 0.0
                )
                now = pylsl.local_clock()
            self.last_arrival = now
            ring.commit(count, now)
            if ring.written >= ring.wanted:
                self._wake()
            if self.state == "stalled":
                self.state = "connected"
                self._notify(InletEvent("stream_resumed", "samples are coming again"))

    @staticmethod
    def _pull_into(
        pull: Callable[..., int],
        inlet: pylsl.StreamInlet,
        data: int,
        times: int,
        room: int,
        channels: int,
        timeout: float,
    ) -> int:
        error = ctypes.c_int()
        got = pull(
            inlet.obj,
            ctypes.c_void_p(data),
            ctypes.c_void_p(times),
            ctypes.c_ulong(room * channels),
            ctypes.c_ulong(room),
            ctypes.c_double(timeout),
            ctypes.byref(error),
        )
        if error.value:
            pylsl.util.handle_error(error)
        return got // channels


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
        self._settings = settings
        self._submit = submit
        self._notify = notify
        self._ended = threading.Event()

    def end(self) -> None:
        self._ended.set()

    def run(self) -> None:
        while not self._ended.is_set():
            found = find(self._settings.stream, 1, 0.5)
            if not found:
                continue
            try:
                self._stream(found[0])
            except pylsl.util.LostError:
                self.state = "lost"
                self._notify(
                    InletEvent("stream_lost", f"marker stream {found[0].name()!r} is gone; looking for it again")
                )
            except TimeoutError:
                continue

    def _stream(self, info: pylsl.StreamInfo) -> None:
        inlet = pylsl.StreamInlet(info, max_buflen=60, recover=False)
        clock = ClockOffset(inlet, self.name, None)
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
                text = str(sample[0])
                label = text if self._settings.labels is None else self._settings.labels.get(text)
                if label is not None:
                    clock.wait_known(3.0)
                    self._submit(label, time + clock.offset + start, time + clock.offset + end)
        finally:
            clock.end()
