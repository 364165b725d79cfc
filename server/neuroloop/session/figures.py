"""What is measured of a session's bins, and told once a second: latencies, queues, and what `watch` finds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from neuroloop.session import messages
from neuroloop.session.chain import Chain
from neuroloop.session.latency import EDGES_MS, Histogram, Latency
from neuroloop.session.watch import Event, Watch

if TYPE_CHECKING:
    from neuroloop.session.loop import Loop

STAGES = ("stream", "process", "age")
BUSY_SHARE = 0.5  # of a second; a loop that waits for more of it has late bins because samples come many at a time


class Figures:
    """Of one session; called by its loop."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._latency = Latency(STAGES)
        self._histograms = {stage: Histogram() for stage in STAGES}
        self._add = tuple(histogram.add for histogram in self._histograms.values())
        self._watch: Watch | None = None
        self._waited_s = 0.0

    def begin(self, chain: Chain) -> None:
        """Another stream."""
        self._watch = Watch(chain, self._loop.health)

    def bin(self, stream_ms: float, process_ms: float, age_ms: float) -> None:
        """A bin was answered: how long its newest sample took to come, how long then the answer, its age at that."""
        self._latency.add(stream_ms, process_ms, age_ms)
        stream, process, age = self._add
        stream(stream_ms)
        process(process_ms)
        age(age_ms)
        if self._watch is not None:
            self._watch.bin(process_ms)

    def lost(self, samples: int, is_stale: bool) -> None:
        """Samples were missed because this process was too slow. is_stale: let go of by the configured policy."""
        if self._watch is not None:
            self._watch.lost(samples, is_stale)

    def surplus(self, samples: int) -> None:
        """So many samples came twice, or too late."""
        if self._watch is not None and samples:
            self._watch.surplus(samples)

    def waited(self, seconds: float) -> None:
        """The loop had nothing to do."""
        self._waited_s += seconds

    def second(self) -> Iterator[Event]:
        """Events (name, text, facts) of the second that ended."""
        is_busy, self._waited_s = self._waited_s < 1.0 - BUSY_SHARE, 0.0
        if self._watch is not None:
            yield from self._watch.second()
        chain = self._loop.chain
        if self._watch is not None and chain is not None:
            yield from chain.clock.second()
            # Of a stream that is played faster than in real time, bins are late however little there is to do.
            is_overload = is_busy and chain.clock.is_in_real_time
            yield from self._loop.shedding.second(self._watch.late_share if is_overload else 0.0)

    def status(self) -> dict[str, Any]:
        """Everything that a person or a monitor wants to know."""
        loop, chain = self._loop, self._loop.chain
        loop.health.labels = loop.labels.tally
        loop.health.latency = self._latency.summary()
        status = messages.status(loop.session, loop.health, loop.inlet, chain, loop.seq, loop.clock())
        told: dict[str, Any] = {"histograms": self._told_histograms(chain), "queues": self._queues(chain)}
        told |= {"staleness": loop.staleness.describe(), "shed": list(loop.shedding.shed)}
        return (
            status
            | told
            | loop.encoders.describe()
            | {"recording": loop.recordings.describe(), "checkpoint": loop.checkpoints.describe()}
        )

    def _told_histograms(self, chain: Chain | None) -> dict[str, Any]:
        stages = self._histograms if chain is None else self._histograms | {"predict": chain.decoders.histogram}
        return {"edges_ms": EDGES_MS, "stages": {stage: h.describe() for stage, h in stages.items()}}

    def _queues(self, chain: Chain | None) -> dict[str, int]:
        """What waits: messages for the loop, samples in the ring, bins for the shadows and for the encoders."""
        waiting = {"inbox": self._loop.inbox.waiting, "encoders": self._loop.encoders.waiting}
        if chain is not None:
            waiting["ring"] = chain.ring.written - chain.ring.consumed
            waiting["shadows"] = sum(shadow.waiting for shadow in chain.decoders.shadows.values())
        return waiting
