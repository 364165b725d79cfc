"""Compile everything that a session runs, so that the first one starts as fast as those after it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from neuroloop.config import parse_session
from neuroloop.models.base import kinds, make_decoder
from neuroloop.session.alignment import compile_for_every_format
from neuroloop.session.chain import make_chain
from neuroloop.session.encoder_loading import compile_encoders
from neuroloop.session.streams import StreamDescription
from neuroloop.signal.located_spikes import LocatedCrossings

CHANNELS = tuple("abcdefgh")
CLASSES = ["a", "b"]
FORMATS = {"float32": np.float32, "double64": np.float64, "int16": np.int16, "int32": np.int32}
FRONT_ENDS: dict[str, dict[str, Any]] = {
    "broadband": {"rereference": {"clusters": 4}},
    "counts": {},
    "bandpower": {"bin_ms": 100},
    "covariance": {"bin_ms": 100, "decoders": [{"name": "d", "kind": "lda"}]},
}


def compile_ahead() -> Iterator[str]:
    """What is compiled already, one name after the other. Takes a minute where nothing was compiled before."""
    for front_end, settings in FRONT_ENDS.items():
        for format, dtype in FORMATS.items():
            srate = 30_000.0 if front_end == "broadband" else 250.0
            facts = {"name": "none", "front_end": {"kind": front_end}, "outlets": {"enabled": False}}
            session = parse_session({"stream": {"name": "none"}, "classes": CLASSES} | facts | settings)
            make_chain(session, _described(srate, format), np.dtype(dtype)).end()
        yield f"front end {front_end}"
    compile_for_every_format()
    LocatedCrossings(len(CHANNELS), 1000.0, calibration_s=0.0)(np.zeros((2, len(CHANNELS)), np.float32))
    yield "spike times"
    compile_encoders()
    yield "encoders"
    for kind in kinds():
        make_decoder(kind, CLASSES, len(CHANNELS))
        yield f"decoder {kind}"


def _described(nominal_srate: float, format: str) -> StreamDescription:
    count = len(CHANNELS)
    return StreamDescription(
        "none", "none", "none", "none", count, nominal_srate, format, CHANNELS, ("",) * count, (None,) * count
    )
