"""The signals of a session, for those who look at them: what came in, bin by bin, while somebody subscribes to it.

Up to 1 kHz every sample; above it the lowest and the highest sample of the bin, per channel, as a scope draws an array
whose samples nobody can see one by one. The samples are those that the front end gets: in the session's order of
channels, in float32, with the last value where one is missing or not finite. The raw ones are in recordings.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from neuroloop.pipeline import Pipeline
from neuroloop.session import messages
from neuroloop.session.blocks import Block
from neuroloop.session.messages import BinTime
from neuroloop.session.publish import Publish

if TYPE_CHECKING:
    from neuroloop.session.loop import Loop

TOPIC = b"signals"
EVERY_SAMPLE_HZ = 1000.0

F32 = NDArray[np.float32]


class Signals:
    """Of one session; called by its loop. What nobody subscribes to costs a look at a set."""

    def __init__(self, loop: Loop, publish: Publish) -> None:
        self._loop = loop
        self._publish = publish
        self._is_shown = False
        self._low: list[F32] = []
        self._high: list[F32] = []

    @property
    def are_wanted(self) -> bool:
        return self._publish.wants(TOPIC)

    def block(self, block: Block, pipeline: Pipeline) -> None:
        """Take a block in; a bin is shown if this was wanted when it began."""
        if block.index % pipeline.bin_samples == 0:
            self._is_shown = self._may_show()
            self._low, self._high = [], []
        if not self._is_shown:
            return
        if pipeline.nominal_srate <= EVERY_SAMPLE_HZ:
            self._low.extend(block.samples.copy())
            self._high = self._low
        elif not self._low:
            self._low, self._high = [block.samples.min(axis=0)], [block.samples.max(axis=0)]
        else:
            np.minimum(self._low[0], block.samples.min(axis=0), out=self._low[0])
            np.maximum(self._high[0], block.samples.max(axis=0), out=self._high[0])

    def bin(self, time: BinTime, gap: bool) -> None:
        """The bin of the last blocks is complete, or one of which no sample came."""
        if time.process_ms is None:
            self._is_shown, self._low, self._high = self._may_show(), [], []
        if self._is_shown:
            low, high = ([point.tolist() for point in points] for points in (self._low, self._high))
            self._publish(TOPIC, messages.signals(self._loop.session.name, time, low, high, gap))

    def _may_show(self) -> bool:
        return self.are_wanted and not self._loop.shedding.leaves_out("signals")
