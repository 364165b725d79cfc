"""What a process does that is to become a session later: load and compile all that such a session runs, and use it.

In a thread of its own at the lowest priority: Linux has one for each thread, and not every process may raise it again.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import Any

LOWEST = 19
BINS = 50


def warm_up_beside(ready: Path) -> None:
    """Returns when it is done; then the file `ready` is there. The first line of standard input says what to load."""
    thread = threading.Thread(target=_run, args=(ready,), name="warm-up")
    thread.start()
    thread.join()


def _run(ready: Path) -> None:
    os.setpriority(os.PRIO_PROCESS, 0, LOWEST)
    line = sys.stdin.readline()
    if not line:
        return  # the server has ended
    import neuroloop.session.process  # noqa: F401, the most of what takes its time

    warm_up(json.loads(line)["warm"])
    gc.collect()
    gc.freeze()
    ready.touch()


def warm_up(settings: dict[str, Any]) -> None:
    """Run some bins of a session of these settings, on few channels, in each number format."""
    import numpy as np

    from neuroloop.errors import NeuroloopError
    from neuroloop.session.compile_ahead import FORMATS, described

    session = _small(settings)
    if settings.get("stimulus") is not None:
        from neuroloop.session.alignment import compile_for_every_format
        from neuroloop.session.encoder_loading import compile_encoders

        compile_for_every_format()
        compile_encoders()
    srate = 30_000.0 if session.front_end.kind == "broadband" else 1000.0
    for format, dtype in FORMATS.items():
        with suppress(NeuroloopError):  # a decoder that is of other channels; the rest is loaded then
            _run_bins(session, described(srate, format), np.dtype(dtype))


def _run_bins(session: Any, description: Any, dtype: Any) -> None:
    import numpy as np

    from neuroloop.session import messages
    from neuroloop.session.chain import make_chain

    chain = make_chain(session, description, dtype)
    noise = np.random.default_rng(0).standard_normal((chain.pipeline.block_samples, len(chain.columns)))
    block = noise.astype(np.float32)
    for seq in range(BINS):
        for _ in range(chain.pipeline.bin_samples // chain.pipeline.block_samples):
            chain.pipeline.step(block, True)
            chain.pipeline.accumulate()
        outcome = chain.pipeline.finish_bin()
        answer = chain.decoders.answer(outcome, seq)
        time = messages.BinTime(seq, 0, 0, 0.0, 0.0)
        messages.prediction("none", chain.decoders.active, *answer, outcome, time, None)
        chain.history.add(seq, 0.0, outcome.values, True)
    chain.end()


def _small(settings: dict[str, Any]) -> Any:
    """The same session for any stream of a few channels."""
    from neuroloop.config import SessionSettings

    plain = settings | {"name": "none", "stream": {"name": "none"}, "markers": [], "stimulus": None, "device": "cpu"}
    plain |= {"outlets": {"enabled": False}, "rereference": settings["rereference"] | {"clusters": 4}}
    return SessionSettings.model_validate(plain)
