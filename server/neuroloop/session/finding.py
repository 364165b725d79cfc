"""A stream that an inlet has found: what is made for it beside the loop, and how the loop begins with it or goes on."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import numpy as np

from neuroloop.errors import ConfigError, ModelError, StreamError
from neuroloop.session.chain import Chain, make_chain
from neuroloop.session.inbox import Call, Found
from neuroloop.session.inlet import SampleInlet
from neuroloop.session.publish import Publish
from neuroloop.session.ring import Ring
from neuroloop.session.streams import StreamDescription

if TYPE_CHECKING:
    from neuroloop.session.loop import Loop


class Finding:
    """Of one session. run_is_new: the stream of the present run has not been found yet."""

    def __init__(self, loop: Loop, publish: Publish) -> None:
        self.run_is_new = True
        self._loop = loop
        self._publish = publish

    def prepare(self, inlet: SampleInlet, description: StreamDescription, dtype: np.dtype[np.generic]) -> Ring:
        """In the acquire thread: the ring for this stream. The same stream as before keeps its chain."""
        loop, chain = self._loop, self._loop.chain
        if chain is None or not chain.description.is_same_source(description):
            try:
                chain = loop.checkpoints.chain(lambda: make_chain(loop.session, description, dtype))
            except (ModelError, ConfigError) as error:
                raise StreamError(str(error)) from error
            gc.collect()
            gc.freeze()
        loop.inbox.put(Found(inlet, chain, chain.ring.written))
        return chain.ring

    def adopt(self, chain: Chain, start: int) -> None:
        """Go on with the same stream as before, or begin with another."""
        loop = self._loop
        if chain is loop.chain and not self.run_is_new:
            chain.resume(start)
            return
        if chain is not loop.chain:
            self.use(chain)
        if not loop.checkpoints.rejoin(chain, start):
            chain.restart(start)
        loop.journal.place.given = start
        loop.hole, loop.bin_missing, loop.bin_nonfinite = None, 0, 0
        self.run_is_new = False

    def use(self, chain: Chain) -> None:
        """In the place of the one before, if there was one."""
        loop = self._loop
        before, loop.chain = loop.chain, chain
        loaded = None if before is None else before.decoders
        chain.decoders.journal = loop.journal
        if chain.rereferencing is not None:
            chain.rereferencing.journal = loop.journal
        chain.decoders.begin(self._publish, lambda run, due: loop.inbox.put(Call(run, due)), loaded)
        if before is not None:
            before.end()
            loop.event("session_started", "another stream than before: weights and unloaded decoders start anew")
        loop.telling.of_decoders()
        loop.figures.begin(chain)
