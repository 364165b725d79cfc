"""The loop that every source runs: a chunk of samples made ready, its time awaited, the chunk pushed.

A chunk is due when its last sample would have been measured. Samples are made a page of about 10 ms at a time, which
costs a third less of a core than chunk by chunk, and before the wait, so that what the making costs delays nothing.
Timestamps come from the sample's number alone, start_time + n / nominal_srate, never from when it was pushed; a source
that was held up pushes its whole backlog, in the same chunks.

At a speed other than 1 the timestamps still advance by one sample period per sample, so a stream played faster than
real time runs ahead of the clock: consumers see samples from the future, exactly spaced.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pylsl
from numpy.typing import NDArray

from neuroloop_sources.errors import SourceError
from neuroloop_sources.outlets import OutletPair, StreamLayout

PAGE_S = 0.01
LONGEST_SLEEP_S = 0.05  # how late a stop may be noticed

Ready = Callable[[float], None]


@dataclass(frozen=True)
class Feed:
    """What is streamed. Samples are counted from 0.

    samples: (start, stop) -> (stop - start, channels), of the layout's format. markers: (start, stop) -> position and
    text of the markers there; positions are in samples and need not be whole. sample_count: None never ends.
    offsets: (start, stop) -> recorded times in seconds after the first sample, where those are to be sent.
    """

    layout: StreamLayout
    samples: Callable[[int, int], NDArray[Any]]
    markers: Callable[[int, int], Iterable[tuple[float, str]]]
    sample_count: int | None = None
    offsets: Callable[[int, int], NDArray[Any]] | None = None


def _offset(feed: Feed, position: float) -> float:
    """Seconds from sample 0 to a position, by the timestamps that are sent."""
    if feed.offsets is None:
        return position / feed.layout.nominal_srate
    before = int(position)
    around = feed.offsets(before, before + 2)
    step = around[1] - around[0] if len(around) == 2 else 1 / feed.layout.nominal_srate
    return float(around[0] + (position - before) * step)


def _wait_until(due: float, stop: threading.Event) -> None:
    while (left := due - pylsl.local_clock()) > 0 and not stop.is_set():
        time.sleep(min(left, LONGEST_SLEEP_S))


def stream(
    feed: Feed,
    chunk_samples: int,
    *,
    stop: threading.Event,
    ready: Ready | None = None,
    wait_for_consumers: bool = False,
    speed: float = 1.0,
    start_time: float | None = None,
    blocking: bool = False,
) -> int:
    """Stream until the feed ends or `stop` is set; returns the number of samples pushed.

    ready: called with the LSL time of sample 0 once it is known, just before sample 0. start_time: that time; now by
    default. wait_for_consumers: sample 0 waits until somebody receives. blocking: see `OutletPair`.
    """
    if not speed > 0:
        raise SourceError(f"speed: expected more than 0, got {speed!r}")
    if chunk_samples < 1:
        raise SourceError(f"chunk: expected 1 sample or more, got {chunk_samples!r}")
    outlets = OutletPair(feed.layout, blocking=blocking)
    try:
        if wait_for_consumers:
            outlets.wait_for_consumers(stop)
        return _push_all(feed, outlets, chunk_samples, stop, ready, speed, start_time)
    finally:
        outlets.close(stop)


def _push_all(
    feed: Feed,
    outlets: OutletPair,
    chunk_samples: int,
    stop: threading.Event,
    ready: Ready | None,
    speed: float,
    start_time: float | None,
) -> int:
    nominal_srate = feed.layout.nominal_srate
    page_samples = chunk_samples * max(1, int(PAGE_S * nominal_srate / chunk_samples))
    last = sys.maxsize if feed.sample_count is None else feed.sample_count
    sample = page_start = page_stop = 0
    page: NDArray[Any] = np.empty((0, 0))
    began = pylsl.local_clock()
    origin = began if start_time is None else start_time
    if ready is not None and not stop.is_set():
        ready(origin)
    while sample < last:
        if sample == page_stop:
            page_start, page_stop = sample, min(sample + page_samples, last)
            page = feed.samples(page_start, page_stop)
        after = min(sample + chunk_samples, page_stop)
        _wait_until(began + (after - 1) / nominal_srate / speed, stop)
        if stop.is_set():
            break
        for position, text in feed.markers(sample, after):
            outlets.push_marker(text, origin + _offset(feed, position))
        samples = page[sample - page_start : after - page_start]
        if feed.offsets is None:
            outlets.push(samples, origin + (after - 1) / nominal_srate)
        else:
            outlets.push(samples, (origin + feed.offsets(sample, after)).tolist())
        sample = after
    return sample
