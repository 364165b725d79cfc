"""Session processes that record are killed (`kill -9`) at random moments: what each file has, and what it lost.

Some sessions record one stream, whose samples say which sample and channel they are. Each is killed at a moment of its
own: most after their first prediction, every tenth at any time after the first byte of its file. What is asked of every
file: it opens in our reader and in pyxdf, has every sample and prediction but those of the last moment before the kill,
is closed by a repair that changes nothing else, and replays to the same predictions. What was lost is told in seconds
of the LSL clock, which source and sessions share.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyxdf
from pylsl import local_clock
from tests.benchmarks.recording import CHUNK, Recorded
from tests.benchmarks.source import counting

from neuroloop.logs import configure_log
from neuroloop.recording.reader import XdfFile, XdfStream, open_xdf
from neuroloop.recording.recorded import RecordedSession
from neuroloop.recording.repair import repair
from neuroloop.recording.verification import verify
from neuroloop.session.launching import LocalLauncher, LocalSession
from neuroloop.session.supervisor import Failure

DECODERS = [{"name": "one"}, {"name": "two", "role": "shadow"}]
FRONT_END = {"kind": "broadband", "calibration_s": 0.2}
PATIENCE_S = 120.0
ALLOWED_S = 1.0  # that may be lost


@dataclass(frozen=True)
class Moment:
    """Seconds after the first prediction of a session, or after the first byte of its file."""

    after_s: float
    of_first_bin: bool


@dataclass(frozen=True)
class Killed:
    """What was known when a session process was killed. seen: the predictions that had come to a subscriber."""

    path: Path
    at: float
    seen: list[dict[str, Any]]


@dataclass
class Found:
    """What is in the file of a killed session. lost_*: seconds before the kill; None without a sample, a prediction.

    wrong: what must not be.
    """

    samples: int = 0
    predictions: int = 0
    torn_bytes: int = 0
    lost_samples_s: float | None = None
    lost_predictions_s: float | None = None
    replayed: int = 0
    wrong: list[str] = field(default_factory=list)


class Launcher(LocalLauncher):
    """Knows the process that it has started."""

    async def launch(self, first_line: dict[str, Any]) -> LocalSession:
        launched = await super().launch(first_line)
        self.pid = launched.pid
        return launched


class Victim(Recorded):
    """A session that is to be killed."""

    def __init__(self, name: str, folder: Path, settings: dict[str, Any]) -> None:
        self.launcher = Launcher()
        super().__init__(name, folder, settings, self.launcher)

    def _fail(self, failure: Failure) -> None:
        self.failure = failure

    async def killed(self, folder: Path, moment: Moment) -> Killed:
        """Let it record until then, and kill it."""
        self.failure: Failure | None = None
        await self.process.start()
        end = local_clock() + PATIENCE_S
        while not (paths := list(folder.glob("*.xdf"))):
            if self.failure is not None or local_clock() > end:
                raise SystemExit(f"no recording begins: {self.failure}")
            await asyncio.sleep(0.002)
        while moment.of_first_bin and not self.predictions:
            if self.failure is not None or local_clock() > end:
                raise SystemExit(f"no prediction comes: {self.failure}")
            await asyncio.sleep(0.002)
        await asyncio.sleep(moment.after_s)
        os.kill(self.launcher.pid, signal.SIGKILL)
        at = local_clock()
        seen = list(self.predictions)
        while self.failure is None:
            await asyncio.sleep(0.01)
        await self.process.stop()
        if self.failure.exit_code != -signal.SIGKILL:
            raise SystemExit(f"it ended by itself: {self.failure.detail}")
        return Killed(paths[0], at, seen)


def judged(killed: Killed, ring: np.ndarray) -> Found:
    """What the file has, and what it has after its repair. ring: the samples that the source sends over and over."""
    found, path = Found(), killed.path
    with open_xdf(path) as file:
        found.torn_bytes = file.index.size - file.index.end
        if len(file.damage) != file.is_torn:
            found.wrong.append(f"damage: {[str(damage) for damage in file.damage]}")
        before = _counts(file)
        _judge_samples(file, killed, ring, found)
        _judge_predictions(file, killed, found)
    for what in ("samples", "predictions"):
        if (getattr(found, f"lost_{what}_s") or 0.0) > ALLOWED_S:
            found.wrong.append(f"more than {ALLOWED_S:g} s of {what} are lost")
    _judge_pyxdf(path, before, found)
    if not repair(path).changed and before:
        found.wrong.append("there was nothing to repair")
    with open_xdf(path) as file:
        closed = file.streams and all(stream.footer is not None for stream in file.streams)
        if file.damage or _counts(file) != before or (before and not closed):
            found.wrong.append(f"after the repair: {_counts(file)} in place of {before}, {file.damage}")
    _judge_pyxdf(path, before, found)
    if found.predictions:
        verdict = verify(path)
        found.replayed = verdict.predictions
        if not verdict.is_identical:
            found.wrong.append(f"replayed: {verdict.first or verdict.ended or verdict}")
    return found


def _judge_samples(file: XdfFile, killed: Killed, ring: np.ndarray, found: Found) -> None:
    stream = _raw(file)
    if stream is None or not stream.sample_count:
        return
    times, values = stream.read()
    found.samples, found.lost_samples_s = len(times), killed.at - float(times[-1])
    (first,) = np.flatnonzero((ring == values[0]).all(axis=1))[:1]
    differing = (np.asarray(values) != ring[(first + np.arange(len(times))) % len(ring)]).any(axis=1)
    if differing.any():
        found.wrong.append(f"{int(differing.sum())} samples are not those that were sent")


def _judge_predictions(file: XdfFile, killed: Killed, found: Found) -> None:
    recorded: list[dict[str, Any]] = []
    if any(stream.info.type == "neuroloop-predictions" for stream in file.streams):
        recorded = [one for one in RecordedSession(file).predictions() if one["role"] == "active"]
    found.predictions = len(recorded)
    if [one["seq"] for one in recorded] != list(range(len(recorded))):
        found.wrong.append("predictions are missing between others")
    for one, seen in zip(recorded, killed.seen, strict=False):
        if one != seen:
            found.wrong.append(f"bin {seen['seq']} is not as it was published")
            break
    if killed.seen:
        last = recorded[-1]["time"] if recorded else killed.seen[0]["time"]
        found.lost_predictions_s = max(0.0, killed.seen[-1]["time"] - last)


def _judge_pyxdf(path: Path, counts: dict[int, int], found: Found) -> None:
    streams, _ = pyxdf.load_xdf(str(path), synchronize_clocks=False, dejitter_timestamps=False, verbose=False)
    theirs = {stream["info"]["stream_id"]: len(stream["time_stamps"]) for stream in streams}
    if theirs != counts:
        found.wrong.append(f"pyxdf finds {theirs} in place of {counts}")


def _raw(file: XdfFile) -> XdfStream | None:
    return next((stream for stream in file.streams if stream.info.type == "Ephys"), None)


def _counts(file: XdfFile) -> dict[int, int]:
    return {stream.stream_id: stream.sample_count for stream in file.streams}


async def kill_some(
    folder: Path, moments: list[Moment], at_once: int, channels: int, rate: float, told: bool = False
) -> list[Found]:
    """A session for each moment. told: one line for each."""
    name = f"kills-{uuid.uuid4().hex[:8]}"
    sizes = ("--channels", str(channels), "--rate", str(rate), "--chunk", str(CHUNK), "--seconds", "36000")
    more = ("--pattern", "counting", "--pushed", str(folder / "pushed.npz"))
    source = subprocess.Popen(
        [sys.executable, "-m", "tests.benchmarks.source", "--name", name, *sizes, *more], stdout=subprocess.DEVNULL
    )
    ring, turn = counting(channels, rate, CHUNK), asyncio.Semaphore(at_once)

    async def one(number: int, moment: Moment) -> Found:
        async with turn:
            own = folder / str(number)
            own.mkdir()
            victim = Victim(name, own, {"name": f"{name}-{number}", "decoders": DECODERS, "front_end": FRONT_END})
            killed = await victim.killed(own, moment)
            found = await asyncio.to_thread(judged, killed, ring)
            killed.path.unlink()
            if told:
                print(f"{number}: {moment}, {found}", file=sys.stderr, flush=True)
            return found

    try:
        return list(await asyncio.gather(*(one(number, moment) for number, moment in enumerate(moments))))
    finally:
        source.kill()
        source.wait()


def summary(found: list[Found]) -> dict[str, Any]:
    """Of all files."""
    lost = {
        what: [value for one in found if (value := getattr(one, f"lost_{what}_s")) is not None]
        for what in ("samples", "predictions")
    }
    return {
        "files": len(found),
        "with_samples": sum(one.samples > 0 for one in found),
        "samples": sum(one.samples for one in found),
        "torn": sum(one.torn_bytes > 0 for one in found),
        "replayed_predictions": sum(one.replayed for one in found),
        **{f"lost_{what}_s_median": round(float(np.median(values)), 3) for what, values in lost.items() if values},
        **{f"lost_{what}_s_most": round(max(values), 3) for what, values in lost.items() if values},
        "wrong": dict(Counter(wrong for one in found for wrong in one.wrong)),
    }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks kills", description=__doc__)
    parser.add_argument("--times", type=int, default=200)
    parser.add_argument("--longest", type=float, default=3.0, help="seconds until a session is killed, at most")
    parser.add_argument("--at-once", type=int, default=3, help="sessions beside each other")
    parser.add_argument("--channels", type=int, default=32)
    parser.add_argument("--rate", type=float, default=15_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(sys.argv[2:])
    configure_log("warning")
    chance = random.Random(options.seed)
    moments = [Moment(chance.uniform(0, options.longest), number % 10 > 0) for number in range(options.times)]
    with tempfile.TemporaryDirectory() as folder:
        found = asyncio.run(
            kill_some(Path(folder), moments, options.at_once, options.channels, options.rate, told=True)
        )
    told = summary(found)
    print(json.dumps({"channels": options.channels, "rate": options.rate} | told, indent=1))
    if told["wrong"]:
        raise SystemExit(1)
