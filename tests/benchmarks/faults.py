"""Every fault of `neuroloop faults`, for minutes, against a session with five subscribers, a recording and a shadow.

Meanwhile one client sends labels, and another uploads versions and has the session use them. Prints how often each
fault came, and what each subscriber was told beside what was sent; `unaccounted` must be 0: no sample is missing, or
too much, without an event. Then whether every label that was acknowledged was learned or refused with a reason, every
version that was acknowledged is in the registry to the digest, and the recording has every sample that was received.

With `--kill-every` the session's process is killed, too, and has to be replaced from its checkpoint. What it received
is not known then, nor is the recording one file: the account is that of the stream's time alone.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
from tests.processes import serving, streaming, wait_until, write_config

from neuroloop.models.decoder_files import of, write
from neuroloop.models.maxrate import MaxRate
from neuroloop.recording.reader import open_xdf
from neuroloop_client import Client, NeuroloopClientError
from neuroloop_sources.faults.account import Account
from neuroloop_sources.faults.kinds import KINDS
from neuroloop_sources.faults.line import Sent
from neuroloop_sources.faults.witness import Witness, final_status, witnessing

SESSION, MODEL = "faulty", "uploaded"
CLASSES = ["a", "b"]
LABEL_S, VERSION_S = 0.5, 3.0
SPARED_S = 10.0  # at the end: what a killed session misses is announced when its stream goes on


@dataclass
class Outcome:
    """labels, versions: that were acknowledged, as (label, start, end) and version -> digest. lost: of both."""

    sent: Sent
    rate: float
    status: dict[str, Any]
    witnesses: list[Witness]
    labels: list[tuple[Any, ...]]
    versions: dict[int, str]
    lost: list[str]
    recorded: dict[str, Any] | None

    @property
    def accounts(self) -> list[Account]:
        received = None if self.recorded is None else self.status["stream"]["samples"]
        return [witness.account(self.sent, self.rate, received) for witness in self.witnesses]

    @property
    def wrong(self) -> list[str]:
        """Everything that must not be."""
        found = [wrong for account in self.accounts for wrong in account.wrong] + self.lost
        received = {"samples": self.status["stream"]["samples"], "lost_samples": 0}
        if self.recorded not in (None, received):
            found.append(f"recording: {self.recorded}; expected {received}")
        return found


@contextmanager
def repeating(turn: Callable[[], None], pause_s: float) -> Iterator[None]:
    """Do this again and again in a thread, with a pause between two turns."""

    def work(stop: threading.Event) -> None:
        while not stop.is_set():
            turn()
            stop.wait(pause_s)

    with streaming(work):
        yield


def labelling(client: Client, acknowledged: list[tuple[Any, ...]]) -> Callable[[], None]:
    """Labels the last ten bins; those that are refused, as none has come yet, do not count."""

    def label() -> None:
        with suppress(NeuroloopClientError):
            end = client.latest(SESSION)["time"]
            answer = client.label(SESSION, CLASSES[len(acknowledged) % 2], end - 0.2, end)
            acknowledged.append((answer["label"], answer["start"], answer["end"]))

    return label


def uploading(client: Client, features: int, acknowledged: dict[int, str]) -> Callable[[], None]:
    random, decoder = np.random.default_rng(0), MaxRate(CLASSES, features)

    def upload() -> None:
        for index in range(len(CLASSES)):
            decoder.learn(random.gamma(2.0, 5.0, features).astype(np.float32), index)
        weights = write(of(decoder, features))
        version = client.upload_model(MODEL, weights)["version"]
        acknowledged[version] = f"sha256:{hashlib.sha256(weights).hexdigest()}"
        with suppress(NeuroloopClientError):  # no stream at present, or no process
            client.put_decoder(SESSION, MODEL, version, state="cold")

    return upload


def killing(server: int, seconds: float) -> Callable[[], None]:
    """The first turn kills nothing: the session has just begun. Nor does one after so long: the stream has to go on."""
    turns, end = count(), time.monotonic() + seconds

    def kill() -> None:
        children = map(int, Path(f"/proc/{server}/task/{server}/children").read_text().split())
        for child in children if next(turns) and time.monotonic() < end else ():
            if b"neuroloop.session" in Path(f"/proc/{child}/cmdline").read_bytes():
                os.kill(child, signal.SIGKILL)

    return kill


def lost(client: Client, witness: Witness, labels: list[tuple[Any, ...]], versions: dict[int, str]) -> Iterator[str]:
    """What was acknowledged, and is not there."""
    outcomes = [event for event in witness.events if event["event"] in ("label_learned", "label_refused")]
    ended = {(event.get("label"), event.get("start"), event.get("end")) for event in outcomes}
    yield from (
        f"label {label} was acknowledged and neither learned nor refused" for label in labels if label not in ended
    )
    there = {version["version"]: version["digest"] for version in client.versions(MODEL)} if versions else {}
    for version, digest in versions.items():
        kept = f"sha256:{hashlib.sha256(client.weights(MODEL, version)).hexdigest()}"
        if not digest == there.get(version) == kept:
            yield f"version {version} was acknowledged with {digest}, the registry has {there.get(version)}, {kept}"


def session(name: str, front_end: str) -> dict[str, Any]:
    settings = {"name": SESSION, "stream": {"source_id": name}, "classes": CLASSES, "window": 5}
    settings |= {"recording": {"automatic": True, "least_free_mb": 100}, "outlets": {"enabled": False}}
    settings |= {"front_end": {"kind": front_end}}
    if front_end == "broadband":
        settings |= {"rereference": {"clusters": 32}}
    shadow = {"name": "shadow", "kind": "poisson", "role": "shadow"}
    return settings | {"decoders": [{"name": "active", "kind": "maxrate"}, shadow]}


def measure(
    folder: Path,
    *,
    channels: int = 96,
    rate: float = 30_000,
    minutes: float | None = None,
    rounds: int | None = None,
    seed: int = 1,
    every_s: float = 2.0,
    subscribers: int = 5,
    kill_every_s: float | None = None,
) -> Outcome:
    """In a server of its own, whose folder this is; a stream below 2 kHz counts as one of spike counts."""
    name = f"faults-{uuid.uuid4().hex[:8]}"
    config = write_config(folder, sessions=[session(name, "broadband" if rate > 2000 else "counts")])
    shape = ["--channel-count", str(channels), "--nominal-srate", str(rate), "--source-id", f"{name}-source"]
    until = ["--rounds", str(rounds)] if minutes is None else ["--seconds", str(60 * minutes)]
    faults = ["--from", f"{name}-source", "--to", name, "--session", SESSION, "--seed", str(seed), *until]
    faults += ["--every", str(every_s)]
    command = [sys.executable, "-m", "neuroloop_sources"]
    labels: list[tuple[Any, ...]] = []
    versions: dict[int, str] = {}
    with ExitStack() as stack:
        url, server = stack.enter_context(serving(config))
        client = stack.enter_context(Client(url))
        wait_until(lambda: client.session(SESSION)["state"] == "running", "the session")
        witnesses = [stack.enter_context(witnessing(client, SESSION)) for _ in range(subscribers)]
        source = [*command, "simulate", "--name", f"{name}-source", *shape]
        simulator = stack.enter_context(subprocess.Popen(source, stdout=subprocess.DEVNULL))
        stack.callback(simulator.terminate)
        faults = [*command, "faults", *faults, "--url", url]
        proxy = stack.enter_context(subprocess.Popen(faults, stdout=subprocess.PIPE, text=True))
        stack.callback(proxy.terminate)
        wait_until(lambda: witnesses[0].predictions, "a bin")
        with ExitStack() as meanwhile:
            meanwhile.enter_context(repeating(labelling(client, labels), LABEL_S))
            meanwhile.enter_context(repeating(uploading(client, channels, versions), VERSION_S))
            if kill_every_s is not None and minutes is not None:
                meanwhile.enter_context(repeating(killing(server.pid, 60 * minutes - SPARED_S), kill_every_s))
            output, _ = proxy.communicate()
        ended, concluded = [json.loads(line) for line in output.splitlines()[-2:]]
        status = final_status(client, SESSION, *witnesses)
        stopped = None if kill_every_s else client.stop_recording(SESSION)
        sent = Sent(**{key: value for key, value in ended.items() if key != "ended"})
        missing = list(lost(client, witnesses[0], labels, versions))
    if stopped is None:
        return Outcome(sent, rate, status, witnesses, labels, versions, missing, None)
    if proxy.returncode:
        missing.append(f"neuroloop faults --session ended with {proxy.returncode}: {concluded}")
    recorded = {"samples": recorded_samples(folder, stopped["name"], name), "lost_samples": stopped["lost_samples"]}
    return Outcome(sent, rate, status, witnesses, labels, versions, missing, recorded)


def recorded_samples(folder: Path, recording: str, stream: str) -> int:
    (path,) = folder.rglob(f"{recording}.xdf")
    with open_xdf(path) as file:
        return sum(one.sample_count for one in file.streams if one.info.name == stream)


def table(outcome: Outcome) -> str:
    """A row a fault, then a row a subscriber."""
    lines = [f"{'fault':12}{'times':>8}"]
    lines += [f"{kind:12}{outcome.sent.faults.get(kind, 0):8}" for kind in KINDS]
    columns = ("sent", "in bins", "missing", "surplus", "nonfinite", "steps", "lost on way", "overrun", "unaccounted")
    lines += ["", f"{'subscriber':12}" + "".join(f"{column:>13}" for column in columns)]
    for number, one in enumerate(outcome.accounts, 1):
        figures = (one.bins - one.missing, one.missing, one.surplus, one.nonfinite)
        steps = sum(event["event"] == "clock_step" for event in outcome.witnesses[number - 1].events)
        row = (outcome.sent.sent, *figures, steps, one.lost, one.overrun, one.unaccounted)
        lines.append(f"{number:<12}" + "".join(f"{value!s:>13}" for value in row))
    gone = [sum(text.startswith(what) for text in outcome.lost) for what in ("label", "version")]
    status = outcome.status
    restarts = sum(event["event"] == "session_restarted" for event in outcome.witnesses[0].events)
    lines += [
        "",
        f"labels acknowledged {len(outcome.labels)}, lost {gone[0]}; versions {len(outcome.versions)}, lost {gone[1]}",
        f"bins {status['bins']}, late {status['late_bins']}, missed {status['missed_bins']}, gaps {status['gaps']}; "
        f"of the shadow {len(outcome.witnesses[0].shadows['shadow'])}; recorded {outcome.recorded}; "
        f"restarts {restarts}",
        f"process p50 {status['latency_ms']['process']['p50']} ms, p99 {status['latency_ms']['process']['p99']} ms",
    ]
    return "\n".join([*lines, *outcome.wrong])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks faults", description=__doc__)
    parser.add_argument("--minutes", type=float, default=20.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every", type=float, default=2.0, help="seconds between faults, on average")
    parser.add_argument("--kill-every", type=float, help="seconds between two kills of the session process")
    parser.add_argument("--channels", type=int, default=96)
    parser.add_argument("--rate", type=float, default=30_000)
    options = parser.parse_args(sys.argv[2:])
    shape = {"channels": options.channels, "rate": options.rate}
    shape |= {"every_s": options.every, "kill_every_s": options.kill_every}
    with tempfile.TemporaryDirectory() as folder:
        outcome = measure(Path(folder), minutes=options.minutes, seed=options.seed, **shape)
    print(table(outcome))
    raise SystemExit(1 if outcome.wrong else 0)
