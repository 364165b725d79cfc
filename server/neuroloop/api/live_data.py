"""The data of a fit out of a running session: its last seconds, or those to come.

Bins are numbered, and fetched by their numbers a page at a time: none is taken twice, and none is missed while the
session keeps it, for 60 s. A label counts that is there when the last bin is fetched. Decoders learn from rates and
labels, encoders from frames of the stimulus and spike counts.
"""

from __future__ import annotations

import asyncio
import math
from collections import defaultdict
from collections.abc import Callable
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

    form: Form
    about: dict[str, Any]
    parts: dict[str, list[bytes]] = field(default_factory=lambda: defaultdict(list))
    labels: set[tuple[str, float, float]] = field(default_factory=set)

    def add(self, reply: dict[str, Any]) -> None:
        """Raises StreamError for bins of another stream than before."""
        same = all(reply[key] == self.about[key] for key in self.form.same)
        if not same or reply["added"] < self.about["added"]:
            raise StreamError("the session found another stream while its bins were gathered; ask for the fit again")
        self.about = reply
        for key in self.form.dtypes:
            self.parts[key].append(reply[key])
        self.labels |= {(label, start, end) for label, start, end in reply.get("labels", ())}

    def __getitem__(self, key: str) -> np.ndarray[Any, Any]:
        return np.frombuffer(b"".join(self.parts[key]), self.form.dtypes[key])


@dataclass(frozen=True)
class Form:
    """What is fetched for a kind of model.

    command: asks for a page. dtypes: of the arrays in it. same: what must not change between pages. arrays: those of
    the fit; raises ModelError, told the session's name, where nothing can be learned from them.
    """

    command: str
    dtypes: dict[str, type]
    same: tuple[str, ...]
    arrays: Callable[[Pages, str], dict[str, np.ndarray[Any, Any]]]


def _labelled(pages: Pages, session: str) -> dict[str, np.ndarray[Any, Any]]:
    about, times = pages.about, pages["times"]
    labels, numbers = label_bins(times, pages.labels, about["classes"])
    if not (labels >= 0).any():
        raise ModelError(f"session {session!r}: none of {len(labels)} bins has a label; send labels, then ask again")
    return {
        "rates": pages["rates"].reshape(len(times), about["features"]),
        "labels": labels,
        "trial_numbers": numbers,
        "times": times,
        "usable": pages["usable"],
        "classes": np.array(about["classes"]),
        "channels": np.array(about["channels"]),
        "duration_s": np.array(about["duration_s"]),
    }


def _shown(pages: Pages, session: str) -> dict[str, np.ndarray[Any, Any]]:
    about, times, usable = pages.about, pages["times"], pages["usable"]
    if not usable.any():
        raise ModelError(
            f"session {session!r}: none of {len(times)} bins has both a frame of the stimulus and spike counts; "
            "its status says how the two streams are"
        )
    return {
        "stimulus": pages["stimulus"].reshape(len(times), *about["frame"]),
        "counts": pages["counts"].reshape(len(times), len(about["channels"])),
        "times": times,
        "usable": usable,
        "cells": np.array(about["channels"]),
    }


F32, F64, TRUTH = np.float32, np.float64, np.bool_
DECODERS = Form(
    "training_data",
    {"rates": F32, "times": F64, "usable": TRUTH},
    ("channels", "features", "bin_s"),
    _labelled,
)
ENCODERS = Form(
    "encoder_data",
    {"stimulus": F32, "counts": F32, "times": F64, "usable": TRUTH},
    ("channels", "frame", "bin_s"),
    _shown,
)


async def gather(session: LiveSession, source: LiveSource, folder: Path, form: Form = DECODERS) -> None:
    """Put the bins, with labels or stimulus, into the folder of a job.

    Raises what the session answers; StreamError where no bin comes; ModelError where nothing can be learned from them.
    """
    pages = await (_last if source.which == "last" else _next)(session, source.seconds, form)
    arrays = form.arrays(pages, session.name)
    await run_in_threadpool(lambda: np.savez(folder / INPUT, allow_pickle=False, **arrays))


async def _last(session: LiveSession, seconds: float, form: Form) -> Pages:
    reply = await session.process.command(form.command, seconds=seconds)
    pages, end = Pages(form, reply), reply["added"]
    pages.add(reply)
    while pages.about["next"] < end:
        pages.add(await session.process.command(form.command, first=pages.about["next"]))
    return pages


async def _next(session: LiveSession, seconds: float, form: Form) -> Pages:
    reply = await session.process.command(form.command)
    pages, clock = Pages(form, reply), asyncio.get_running_loop()
    end, newest = reply["added"] + math.ceil(seconds / reply["bin_s"]), clock.time()
    while pages.about["next"] < end:
        to_come = (end - pages.about["added"]) * reply["bin_s"]
        if pages.about["next"] == pages.about["added"]:
            await asyncio.sleep(min(max(to_come, reply["bin_s"]), PAUSE_S))
        before = pages.about["next"]
        pages.add(await session.process.command(form.command, first=before))
        if pages.about["next"] > before:
            newest = clock.time()
        elif clock.time() - newest > STALLED_S:
            raise StreamError(f"session {session.name!r}: no bin came for {STALLED_S:g} s; is its stream there?")
    return pages
