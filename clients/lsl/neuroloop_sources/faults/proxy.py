"""A proxy between an LSL stream and who receives it: an inlet, an outlet of another name, and faults between the two.

The outlet says of itself what the source says, under its own name. Faults are told as they are applied, to `tell` and
on the marker stream `NAME-faults` as JSON. Of a source on another machine the timestamps are moved by one measured
clock offset, once, so that they keep their spacing.
"""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pylsl
from numpy.typing import NDArray

from neuroloop_sources.errors import SourceError
from neuroloop_sources.faults.kinds import Chunk
from neuroloop_sources.faults.line import Action, Close, Line, Open, Send, Sent, Tell, check
from neuroloop_sources.outlets import LINGER_S

SEARCH_S = 1.0
ANSWER_S = 5.0
PULL_S = 0.01
BUFFER_S = 60
MOST_AT_ONCE_S = 0.1
TOGETHER_S = 0.002  # of samples that are passed on at once, at least
WHOLE_TOLERANCE = 0.01
WAIT_S = 0.1
CALM_S = 2.5  # after the last fault: whoever counts once a second has told everything by then

Said = dict[str, Any]


def _find(name: str, stop: threading.Event) -> pylsl.StreamInfo | None:
    while not stop.is_set():
        if found := pylsl.resolve_byprop("name", name, 1, SEARCH_S):
            return found[0]
    return None


class Source:
    """The stream that is passed on."""

    def __init__(self, info: pylsl.StreamInfo) -> None:
        """Raises SourceError for a stream without numbers at a regular rate."""
        self.nominal_srate = info.nominal_srate()
        if info.channel_format() == pylsl.cf_string or not self.nominal_srate > 0:
            raise SourceError(f"stream {info.name()!r}: expected numbers at a regular rate")
        self._inlet = pylsl.StreamInlet(info, BUFFER_S)
        self.info = self._inlet.info(ANSWER_S)
        self._inlet.open_stream(ANSWER_S)
        self._offset = 0.0
        if info.hostname() != socket.gethostname():
            self._offset = self._inlet.time_correction(ANSWER_S)
        room = max(1, round(MOST_AT_ONCE_S * self.nominal_srate))
        self._buffer: NDArray[Any] = np.empty((room, info.channel_count()), self._inlet.np_dtype)
        self._together = min(room, max(1, round(TOGETHER_S * self.nominal_srate)))

    @property
    def is_float(self) -> bool:
        return self._buffer.dtype.kind == "f"

    def pull(self) -> Chunk | None:
        """What has come; None where nothing does for a moment."""
        buffer = self._buffer
        _, times = self._inlet.pull_chunk(PULL_S, max_samples=len(buffer), dest_obj=buffer, min_samples=self._together)
        if not times:
            return None
        return Chunk(buffer[: len(times)].copy(), np.array(times) + self._offset)

    def let_go(self) -> None:
        """Forget what has come so far."""
        self._inlet.flush()

    def close(self) -> None:
        self._inlet.close_stream()


class Outlet:
    """The stream under its other name, while there is one, and the faults as markers."""

    def __init__(self, source: Source, name: str) -> None:
        self._source = source
        self._name = name
        self._is_other = False
        self._stream: pylsl.StreamOutlet | None = None
        self._period = 1.0 / source.nominal_srate
        markers = pylsl.StreamInfo(f"{name}-faults", "Faults", 1, pylsl.IRREGULAR_RATE, "string", f"{name}-faults")
        self._markers = pylsl.StreamOutlet(markers)
        self.open()

    def open(self, other_channels: bool = False) -> None:
        """As the source is, or with a channel less; of a stream with one channel, with two."""
        self._stream = None  # the outlet before it ends here
        info, count = self._source.info, self._source.info.channel_count()
        self._is_other = other_channels
        if other_channels:
            count = count - 1 if count > 1 else 2
        own = pylsl.StreamInfo(self._name, info.type(), count, info.nominal_srate(), info.channel_format(), self._name)
        child = info.desc().first_child()
        while not child.empty() and not other_channels:
            own.desc().append_copy(child)
            child = child.next_sibling()
        self._stream = pylsl.StreamOutlet(own, 0, BUFFER_S)

    def close(self) -> None:
        self._stream = None

    def wait_for_consumers(self, stop: threading.Event) -> None:
        while self._stream is not None and not stop.is_set() and not self._stream.wait_for_consumers(WAIT_S):
            pass

    @property
    def is_received(self) -> bool:
        """Whether somebody receives the stream as it is."""
        return self._stream is not None and not self._is_other and bool(self._stream.have_consumers())

    def send(self, chunk: Chunk) -> None:
        if self._stream is None:
            return
        samples, times = chunk.samples, chunk.times
        if self._is_other:
            width = self._stream.channel_count
            samples = np.ascontiguousarray(np.resize(samples, (len(samples), width)))
        is_whole = np.abs(np.diff(times) - self._period) <= WHOLE_TOLERANCE * self._period
        if is_whole.all():
            self._stream.push_chunk(samples, float(times[-1]))
        else:
            self._stream.push_chunk(samples, times.tolist())

    def mark(self, facts: Said) -> None:
        self._markers.push_sample([json.dumps(facts)], facts["time"])


def _check_format(kinds: Sequence[str], source: Source) -> None:
    if "nan" in kinds and not source.is_float:
        raise SourceError("fault nan: expected a stream of float32 or double64, got one of integers")


def run(
    source_name: str,
    name: str,
    kinds: Sequence[str],
    *,
    stop: threading.Event,
    seconds: float | None = None,
    seed: int = 0,
    every_s: float = 2.0,
    rounds: int | None = None,
    wait_for_consumers: bool = False,
    ready: Callable[[Said], None] = lambda _: None,
    tell: Callable[[Said], None] = lambda _: None,
) -> Sent:
    """Pass a stream on with faults, then a moment without, or until `stop`; returns what was sent.

    seconds: of faults. rounds: that every kind comes; without either, there is no end but `stop`.
    wait_for_consumers: the first sample waits until somebody receives. ready: called once with what is passed on;
    tell: with each fault as it is applied, as a map with `time`, LSL seconds. Raises SourceError.
    """
    check(kinds, every_s)
    info = _find(source_name, stop)
    if info is None:
        return Sent()
    source = Source(info)
    _check_format(kinds, source)
    line = Line(kinds, source.nominal_srate, seed, every_s, rounds)
    outlet = Outlet(source, name)
    try:
        ready({"name": name, "channel_count": info.channel_count(), "nominal_srate": source.nominal_srate})
        if wait_for_consumers:
            outlet.wait_for_consumers(stop)
            source.let_go()
        _pass_on(source, line, outlet, stop, seconds, tell)
        time.sleep(LINGER_S)
    finally:
        source.close()
        outlet.close()
    return line.sent


def _pass_on(
    source: Source,
    line: Line,
    outlet: Outlet,
    stop: threading.Event,
    seconds: float | None,
    tell: Callable[[Said], None],
) -> None:
    end = np.inf if seconds is None else pylsl.local_clock() + seconds
    calm_end = np.inf
    while not stop.is_set() and (now := pylsl.local_clock()) < calm_end:
        chunk = source.pull()
        for action in line.take(chunk, pylsl.local_clock(), outlet.is_received):
            _act(action, outlet, tell)
        if now >= end:
            line.calm()
        if line.is_calm and line.is_idle and calm_end == np.inf:
            calm_end = now + CALM_S


def _act(action: Action, outlet: Outlet, tell: Callable[[Said], None]) -> None:
    match action:
        case Send(chunk):
            outlet.send(chunk)
        case Close(other_channels):
            outlet.close()
            if other_channels:
                outlet.open(other_channels=True)
        case Open():
            outlet.open()
        case Tell(facts):
            said = {"time": round(pylsl.local_clock(), 6), **facts}
            tell(said)
            outlet.mark(said)
