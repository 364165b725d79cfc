"""What a fit learns from: bins and labels of a running session, a page at a time.

A minute of 1024 channels is 12 MB. The loop copies no more than `PAGE_BYTES` of it for one command, 0.03 to 0.13 ms,
and looks after its bins before the next.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuroloop.errors import Conflict
from neuroloop.session.loop import Loop

PAGE_BYTES = 1 << 18


def page(loop: Loop, first: int | None, seconds: float | None) -> dict[str, Any]:
    """A page of the bins from number `first` on; by default of the last `seconds`, or of those to come.

    rates: bytes of float32, (bins, features); times: bytes of float64, LSL seconds of the bins' centres; usable: bytes
    of bool. labels: the last ones, [label, start, end]. next: number of the bin after these; added: of the next to
    come. Raises Conflict while there is no stream.
    """
    chain = loop.chain
    if chain is None:
        raise Conflict(
            f"session {loop.session.name!r}: the stream has not been found yet, so there is nothing to learn from"
        )
    history, pipeline = chain.history, chain.pipeline
    features = len(pipeline.features)
    if first is None:
        first = history.added - (0 if seconds is None else round(seconds / history.bin_s))
    bins = history.since(first, max(1, PAGE_BYTES // (features * np.dtype(np.float32).itemsize)))
    return {
        "first": bins.first,
        "next": bins.first + len(bins.usable),
        "added": history.added,
        "rates": bins.values.tobytes(),
        "times": bins.centers.tobytes(),
        "usable": bins.usable.tobytes(),
        "labels": [[label.label, label.start, label.end] for label in loop.labels.recent],
        "classes": list(loop.session.classes),
        "features": features,
        "channels": list(pipeline.channels),
        "bin_s": history.bin_s,
        "duration_s": loop.session.window * history.bin_s,
    }
