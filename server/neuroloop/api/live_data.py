"""The data of a fit out of a running session: its last seconds, or those to come.

Bins are numbered, and fetched by their numbers a page at a time: none is taken twice, and none is missed while the
session keeps it, for 60 s. A label counts that is there when the last bin is fetched.
"""

from __future__ import annotations

import asyncio
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool

from neuroloop.api.live import LiveSession
from neuroloop.errors import ModelError, StreamError
from neuroloop.training.job import INPUT
from neuroloop.training.labelling import label_bins
from neuroloop.training.request import LiveSource

PAUSE_S = 5.0  # between two visits while bins are to come, at most
STALLED_S = 60.0  # without a bin


@dataclass
class Pages:
    """What has been fetched so far. about: the last reply, for what is the same in all."""

    about: dict[str, Any]
    rates: list[bytes] = field(default_factory=list)
    times: list[bytes] = field(default_factory=list)
    usable: list[bytes] = field(default_factory=list)
    labels: set[tuple[str, float, float]] = field(default_factory=set)

    def add(self, reply: dict[str, Any]) -> None:
        """Raises StreamError for bins of another stream than before."""
        same = all(reply[key] == self.about[key] for key in ("channels", "features", "bin_s"))
        if not same or reply["added"] < self.about["added"]:
            raise StreamError("the session found another stream while its bins were gathered; ask for the fit again")
        self.about = reply
        for key in ("rates", "times", "usable"):
            getattr(self, key).append(reply[key])
        self.labels |= {(label, start, end) for label, start, end in reply["labels"]}

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        about = self.about
        times = np.frombuffer(b"".join(self.times), np.float64)
        labels, numbers = label_bins(times, self.labels, about["classes"])
        return {
            "rates": np.frombuffer(b"".join(self.rates), np.float32).reshape(len(times), about["features"]),
            "labels": labels,
            "trial_numbers": numbers,
            "times": times,
            "usable": np.frombuffer(b"".join(self.usable), np.bool_),
            "classes": np.array(about["classes"]),
            "channels": np.array(about["channels"]),
            "duration_s": np.array(about["duration_s"]),
        }


async def gather(session: LiveSession, source: LiveSource, folder: Path) -> None:
    """Put the bins and labels into the folder of a job.

    Raises what the session answers; StreamError where no bin comes; ModelError where no bin has a label.
    """
    pages = await (_last if source.which == "last" else _next)(session, source.seconds)
    arrays = pages.arrays()
    if not (arrays["labels"] >= 0).any():
        raise ModelError(
            f"session {session.name!r}: none of {len(arrays['labels'])} bins has a label; send labels, then ask again"
        )
    await run_in_threadpool(lambda: np.savez(folder / INPUT, allow_pickle=False, **arrays))


async def _last(session: LiveSession, seconds: float) -> Pages:
    reply = await session.process.command("training_data", seconds=seconds)
    pages, end = Pages(reply), reply["added"]
    pages.add(reply)
    while pages.about["next"] < end:
        pages.add(await session.process.command("training_data", first=pages.about["next"]))
    return pages


async def _next(session: LiveSession, seconds: float) -> Pages:
    reply = await session.process.command("training_data")
    pages, clock = Pages(reply), asyncio.get_running_loop()
    end, newest = reply["added"] + math.ceil(seconds / reply["bin_s"]), clock.time()
    while pages.about["next"] < end:
        to_come = (end - pages.about["added"]) * reply["bin_s"]
        if pages.about["next"] == pages.about["added"]:
            await asyncio.sleep(min(max(to_come, reply["bin_s"]), PAUSE_S))
        before = pages.about["next"]
        pages.add(await session.process.command("training_data", first=before))
        if pages.about["next"] > before:
            newest = clock.time()
        elif clock.time() - newest > STALLED_S:
            raise StreamError(f"session {session.name!r}: no bin came for {STALLED_S:g} s; is its stream there?")
    return pages
