"""A session of minutes with labels, swaps, a refit and a stream that is away for 2 s: recorded, then replayed.

What is asked: that every prediction is the same, and how many times faster than it happened.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import json
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.benchmarks.recording import Recorded, record

from neuroloop.errors import ModelError, NeuroloopError
from neuroloop.logs import configure_log
from neuroloop.models.decoder_files import of, write
from neuroloop.models.maxrate import MaxRate
from neuroloop.recording.verification import verify

STATES = ("carry", "reprime", "cold")
LABEL_S = 4.0


def loading(channels: int, state: str) -> dict[str, Any]:
    """The arguments of `decoder_load`."""
    data = write(of(MaxRate(["a", "b"], channels), channels))
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    return {"model": {"name": "reach", "version": 1, "digest": digest}, "weights": data, "state": state}


async def ask(session: Recorded, channels: int, bins: int, begins: int) -> None:
    """Labels every few seconds; three swaps and a refit, spread over the session.

    begins: bin at which the recording is asked for, 0 where it begins with the session.
    """
    at = {bins * (number + 1) // 5: state for number, state in enumerate(STATES)}
    refit = bins // 2
    for number in range(100, bins - 100, round(50 * LABEL_S)):
        await session.until(number)
        if begins and number >= begins:
            begins = 0
            await session.process.command("recording_start")
        with suppress(ModelError):  # of the time when the stream was away
            await session.process.command("label", label="ab"[number // 200 % 2])
        for place in [place for place in at if place <= number]:
            await session.process.command("decoder_load", timeout=60, **loading(channels, at.pop(place)))
        if refit and number >= refit:
            refit = 0
            await session.process.command("rereference_fit", seconds=2.0)


async def measure(folder: Path, channels: int, rate: float, seconds: float, after_s: float) -> dict[str, Any]:
    bins = int(seconds * 50)

    async def meanwhile(session: Recorded) -> None:
        await ask(session, channels, bins, int(after_s * 50))

    settings: dict[str, Any] = {"decoders": [{"name": "one"}, {"name": "two", "role": "shadow"}]}
    if after_s:
        settings["recording"] = {"automatic": False, "least_free_mb": 100}
    path, seen = await record(
        folder, channels, rate, seconds, pattern="noise-away", settings=settings, meanwhile=meanwhile
    )
    try:
        told = verify(path).plain()
    except NeuroloopError as error:
        told = {"refused": str(error)}
    return {"channels": channels, "rate": rate, "recorded": seen, "replayed": told}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks replay", description=__doc__)
    parser.add_argument("--channels", type=int, default=96)
    parser.add_argument("--rate", type=float, default=30_000)
    parser.add_argument("--seconds", type=float, default=300)
    parser.add_argument("--after", type=float, default=0, help="seconds before the recording begins")
    options = parser.parse_args(sys.argv[2:])
    configure_log("warning")
    with tempfile.TemporaryDirectory() as folder:
        sizes = options.channels, options.rate, options.seconds, options.after
        told = asyncio.run(measure(Path(folder), *sizes))
    print(json.dumps(told, indent=1))
