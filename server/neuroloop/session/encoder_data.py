"""What a fit of an encoder learns from: frames and spike counts of a running session, a page at a time.

Read by the encoders' thread between two bins, so that the decoders' loop has no part in it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuroloop.errors import Conflict
from neuroloop.session.encoding import Encoding

PAGE_BYTES = 1 << 20


def page(encoding: Encoding, frame: tuple[int, int, int], first: int | None, seconds: float | None) -> dict[str, Any]:
    """A page of the bins from number `first` on; by default of the last `seconds`, or of those to come.

    stimulus, counts: bytes of float32, (bins, pixels) and (bins, channels); times: bytes of float64, LSL seconds of the
    bins' centres; usable: bytes of bool. next: number of the bin after these; added: of the next to come.
    Raises Conflict while there is no bin.
    """
    history, needs = encoding.history, encoding.needs
    if history is None or needs is None:
        raise Conflict(
            "no bin has come with the stimulus yet, so there is nothing to learn from; wait for both streams"
        )
    if first is None:
        first = history.added - (0 if seconds is None else round(seconds / history.bin_s))
    row_bytes = (needs.pixels + len(needs.channels)) * np.dtype(np.float32).itemsize
    bins = history.since(first, max(1, PAGE_BYTES // row_bytes))
    return {
        "first": bins.first,
        "next": bins.first + len(bins.usable),
        "added": history.added,
        "stimulus": bins.frames.tobytes(),
        "counts": bins.counts.tobytes(),
        "times": bins.centers.tobytes(),
        "usable": bins.usable.tobytes(),
        "frame": list(frame),
        "channels": list(needs.channels),
        "bin_s": history.bin_s,
    }
