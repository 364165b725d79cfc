"""Two clients race to upload, swap, promote, roll back, follow, delete and move aliases, while a session decodes.

Prints what they were answered, by operation and status, and whether everything is whole after it: no answer but 2xx
and 409 with a reason; no missed bin, and `seq` without a hole at a subscriber; the registry verifies; every
version that the session uses is there, to the digest; what follows an alias is where the alias points.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pylsl
from tests.benchmarks.rivals import ALIASES, CHANNEL_COUNT, MODELS, Rival, Told, files
from tests.processes import serving, streaming, wait_until, write_config

from neuroloop_client import Client

SRATE = 1000
CHUNK = 20  # samples: one bin
SESSION = "raced"


@dataclass
class Outcome:
    """told: of each rival. seqs: of the active decoder's predictions, as a subscriber got them, with what it was told.

    unmet: what the session uses and the registry does not have, or follows and is not at. verified: by the command.
    """

    told: list[Told]
    seqs: list[int]
    status: dict[str, Any]
    unmet: list[str]
    verified: subprocess.CompletedProcess[str]

    @property
    def answers(self) -> Counter[tuple[str, int]]:
        return sum((told.answers for told in self.told), Counter())

    @property
    def faults(self) -> list[str]:
        return [fault for told in self.told for fault in told.faults]

    @property
    def holes(self) -> int:
        return self.seqs[-1] - self.seqs[0] + 1 - len(set(self.seqs))


@contextmanager
def counts(name: str) -> Iterator[None]:
    """A stream of spike counts in real time."""
    outlet = pylsl.StreamOutlet(pylsl.StreamInfo(name, "Test", CHANNEL_COUNT, SRATE, pylsl.cf_float32, name))

    def push(stop: threading.Event) -> None:
        sent, start, began = 0, pylsl.local_clock(), time.monotonic()
        samples = np.tile(np.array([0.1, 0.1, 0, 0], np.float32), (CHUNK, 1))
        while not stop.wait(max(0.0, began + sent / SRATE - time.monotonic())):
            sent += CHUNK
            outlet.push_chunk(samples, start + (sent - 1) / SRATE)

    with streaming(push):
        yield


@contextmanager
def subscribed(client: Client, session: str) -> Iterator[list[int]]:
    """`seq` of every prediction of the active decoder, as they come."""
    seqs: list[int] = []
    stop = threading.Event()
    live = client.live(session)

    def receive() -> None:
        while not stop.is_set():
            with suppress(TimeoutError):
                message = live.receive(0.2)
                if message is not None and message["type"] == "prediction" and message["role"] == "active":
                    seqs.append(message["seq"])

    thread = threading.Thread(target=receive, name="subscriber")
    thread.start()
    try:
        yield seqs
    finally:
        stop.set()
        thread.join()
        live.close()


def deleted(http: httpx.Client, status: dict[str, Any]) -> Iterator[str]:
    """What the session uses, or can return to, and the registry lacks."""
    for decoder in status["decoders"]:
        loaded = [decoder["model"]] if decoder["loaded"] else []
        for model in (*loaded, *(past for past in decoder.get("past", ()) if past["name"] in MODELS)):
            there = http.get(f"/v1/models/{model['name']}/versions/{model['version']}")
            if not there.is_success or there.json()["digest"] != model["digest"]:
                yield f"{decoder['name']}: {model} is not in the registry: {there.text}"


def astray(http: httpx.Client, status: dict[str, Any]) -> Iterator[str]:
    """What follows an alias that points elsewhere."""
    for decoder in status["decoders"]:
        if decoder["loaded"] and decoder["loaded"]["alias"]:
            meant = http.get(f"/v1/models/{decoder['model']['name']}/aliases/{decoder['loaded']['alias']}").json()
            if meant["version"] != decoder["model"]["version"]:
                yield f"{decoder['name']}: {decoder['model']} follows {decoder['loaded']}: {meant['version']}"


def point_aliases(http: httpx.Client, weights: bytes) -> None:
    """Let every alias of every model point to a version of its own, and those who follow one be there."""
    for model in MODELS:
        for alias in ALIASES:
            version = http.post(f"/v1/models/{model}/versions", content=weights).raise_for_status().json()["version"]
            http.put(f"/v1/models/{model}/aliases/{alias}", json={"version": version}).raise_for_status()


def let_shadows_go(http: httpx.Client) -> None:
    """Let every name that rivals can ask for have been there: one that never was is not found, whoever else asks."""
    path = f"/v1/sessions/{SESSION}/decoder"
    for model in MODELS:
        load = {"model": model, "alias": ALIASES[0], "role": "shadow"}
        http.put(path, json=load).raise_for_status()
        http.delete(f"{path}/{model}").raise_for_status()


def measure(folder: Path, seconds: float, rivals: int = 2) -> Outcome:
    """Race in a server of its own, whose folder this is."""
    name = f"races-{uuid.uuid4().hex[:8]}"
    session = {"name": SESSION, "stream": {"source_id": name}, "front_end": {"kind": "counts"}, "window": 5}
    session |= {"classes": ["a", "b"], "outlets": {"enabled": False}}
    config = write_config(folder, sessions=[session])
    weights = files()
    verify = (sys.executable, "-m", "neuroloop", "registry", "verify", str(config))
    with (
        counts(name),
        serving(config) as (url, _),
        httpx.Client(base_url=url, timeout=70) as http,
        Client(url) as client,
    ):
        status = f"/v1/sessions/{SESSION}/status"
        wait_until(lambda: http.get(status).json().get("bins", 0) > 10, "bins")
        point_aliases(http, weights[0])
        let_shadows_go(http)
        with subscribed(client, SESSION) as seqs, ThreadPoolExecutor(rivals) as pool:
            wait_until(lambda: seqs, "a prediction")
            racing = [Rival(http, SESSION, weights, seed) for seed in range(rivals)]
            list(pool.map(lambda rival: rival.change_everything(seconds), racing))
            unmet = list(deleted(http, http.get(status).json()))
            point_aliases(http, weights[0])
            list(pool.map(lambda rival: rival.follow_aliases(seconds / 4), racing))
            last = http.get(status).json()
            unmet += astray(http, last)
            wait_until(lambda: seqs[-1] >= last["seq"], "the last bins")
        verified = subprocess.run(verify, capture_output=True, text=True, check=False)
        return Outcome([rival.told for rival in racing], seqs, last, unmet, verified)


def table(answers: Counter[tuple[str, int]]) -> str:
    """A row an operation, a column a status."""
    statuses = sorted({status for _, status in answers})
    operations = sorted({operation for operation, _ in answers})
    width = max(map(len, operations))
    lines = [f"{'operation':{width}}" + "".join(f"{status:>7}" for status in statuses)]
    lines += [f"{name:{width}}" + "".join(f"{answers[name, status]:7}" for status in statuses) for name in operations]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks races", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60.0)
    options = parser.parse_args(sys.argv[2:])
    with tempfile.TemporaryDirectory() as folder:
        outcome = measure(Path(folder), options.seconds)
    print(table(outcome.answers))
    print(f"answers {outcome.answers.total()}   faults {len(outcome.faults)}   unmet {len(outcome.unmet)}")
    print(f"bins {len(outcome.seqs)}   holes {outcome.holes}   missed_bins {outcome.status['missed_bins']}")
    print(outcome.verified.stdout + outcome.verified.stderr, end="")
    print("\n".join((*outcome.faults, *outcome.unmet)))


if __name__ == "__main__":
    main()
