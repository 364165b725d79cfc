"""A headset's session of minutes with labels, a shadow and three swaps, killed in the middle: is all of it replayed?

A real recording of a Muse headset (NEUROLOOP_DATA) is streamed again and again. The process that is killed with -9
leaves one recording, the one that takes its place makes another; every prediction of both must be replayed the same.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import uuid
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
from tests.benchmarks.replay import STATES
from tests.benchmarks.swaps import session_pid
from tests.processes import serving, wait_until, write_config

from neuroloop.logs import configure_log
from neuroloop.models.decoder_files import of, write
from neuroloop.models.maxrate import MaxRate
from neuroloop.recording.verification import verify
from neuroloop_client import Client, NeuroloopClientError
from neuroloop_sources.faults.witness import Witness, witnessing

SESSION, MODEL = "headset", "reach"
BANDS = {"low": [19.0, 21.0], "high": [29.0, 31.0]}
CLASSES = ["a", "b"]
BINS_PER_S = 8.0
LABEL_BINS = 32


def session(source_id: str) -> dict[str, Any]:
    return {
        "name": SESSION,
        "stream": {"source_id": source_id},
        "bin_ms": 1000 / BINS_PER_S,
        "window": 8,
        "classes": CLASSES,
        "front_end": {"kind": "bandpower", "bands": BANDS, "order": 2},
        "decoders": [{"name": "active", "kind": "maxrate"}, {"name": "shadow", "kind": "poisson", "role": "shadow"}],
        "recording": {"automatic": True},
        "outlets": {"enabled": False},
    }


def weights(features: int) -> bytes:
    random, decoder = np.random.default_rng(0), MaxRate(CLASSES, features)
    for label in range(20):
        decoder.learn(random.gamma(2.0, 5.0, features).astype(np.float32), label % 2)
    return write(of(decoder, features))


def drive(client: Client, pid: int, bins: int) -> None:
    """Labels every few seconds, three swaps, and in the middle a kill."""
    swaps, kill_at = {bins * (number + 1) // 5: state for number, state in enumerate(STATES)}, bins // 2
    for number in range(LABEL_BINS, bins, LABEL_BINS):
        wait_until(lambda number=number: client.latest(SESSION)["seq"] >= number, f"bin {number}")
        if kill_at and number >= kill_at:
            kill_at = 0
            os.kill(pid, signal.SIGKILL)
            wait_until(lambda: client.session(SESSION)["state"] == "running", "the process in its place")
            continue
        with suppress(NeuroloopClientError):  # a window with bins of the time between
            client.label(SESSION, CLASSES[number // LABEL_BINS % 2])
        for place in [place for place in swaps if place <= number]:
            client.put_decoder(SESSION, MODEL, version=1, state=swaps.pop(place))


def measure(folder: Path, data: Path, minutes: float) -> dict[str, Any]:
    source_id = f"headset-{uuid.uuid4().hex[:8]}"
    config = write_config(folder, sessions=[session(source_id)])
    play = [sys.executable, "-m", "neuroloop", "play", str(data / "muse_ssvep_subject1.npz"), "--run", "0", "--loop"]
    with ExitStack() as stack:
        url, server = stack.enter_context(serving(config))
        client = stack.enter_context(Client(url, timeout=30))
        wait_until(lambda: client.session(SESSION)["state"] == "running", "the session")
        witness = stack.enter_context(witnessing(client, SESSION))
        names = ["--name", source_id, "--source-id", source_id]
        player = stack.enter_context(subprocess.Popen([*play, *names], stdout=subprocess.DEVNULL))
        stack.callback(player.terminate)
        wait_until(lambda: witness.predictions, "a bin")
        channels = client.status(SESSION)["stream"]["channel_count"]
        client.upload_model(MODEL, weights(channels * len(BANDS)))
        drive(client, session_pid(server.pid), round(60 * minutes * BINS_PER_S))
        client.stop_recording(SESSION)
    files = sorted((folder / "data" / "recordings").glob("*.xdf"))
    return {"seen": seen(witness), "replayed": [verify(path).plain() for path in files]}


def seen(witness: Witness) -> dict[str, Any]:
    """What a subscriber was told."""
    seqs = [message["seq"] for message in witness.predictions]
    events = [event["event"] for event in witness.events]
    counted = ("session_restarted", "decoder_swapped", "label_learned", "label_refused")
    told = {name: events.count(name) for name in counted}
    return {"bins": len(seqs), "seq_skipped": seqs[-1] - seqs[0] + 1 - len(seqs)} | told


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks headset", description=__doc__)
    parser.add_argument("--minutes", type=float, default=5.0)
    options = parser.parse_args(sys.argv[2:])
    configure_log("warning")
    with tempfile.TemporaryDirectory() as folder:
        told = measure(Path(folder), Path(os.environ["NEUROLOOP_DATA"]), options.minutes)
    print(json.dumps(told, indent=1))
    raise SystemExit(0 if all(one["is_identical"] for one in told["replayed"]) else 1)
