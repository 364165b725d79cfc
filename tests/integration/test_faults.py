"""Every fault of the harness against a session that records and has a shadow: it goes on, and everything adds up."""

import json
import subprocess
import sys

import numpy as np
import pytest
from tests.integration.conftest import streaming
from tests.integration.test_recording import RECORDING, path_of

from neuroloop.recording.verification import verify
from neuroloop_sources import Recording, play
from neuroloop_sources.faults.account import settle
from neuroloop_sources.faults.kinds import KINDS
from neuroloop_sources.faults.line import Sent

RATE = 1000.0
DECODERS = [{"name": "active", "kind": "maxrate"}, {"name": "shadow", "kind": "poisson", "role": "shadow"}]


def source(name):
    """An array's counts, without end."""
    counts = np.random.default_rng(0).poisson(0.1, (1000, 4)).astype(np.float32)
    channels = tuple(f"c{number}" for number in range(4))
    facts = {"channels": channels, "units": ("",) * 4, "format": "float32", "read": lambda *part: counts[slice(*part)]}
    recording = Recording(name, "Test", RATE, 1000, **facts)
    return lambda stop: play(recording, stop=stop, loop=True)


@pytest.mark.slow
def test_after_every_fault_the_session_goes_on_and_every_sample_is_accounted_for(start_counts, unique_name):
    session = start_counts({"name": unique_name}, decoders=DECODERS, recording=RECORDING)
    with streaming(source(f"{unique_name}-source")):
        options = ["--from", f"{unique_name}-source", "--to", unique_name, "--rounds=1", "--seed=1", "--every=0.5"]
        command = [sys.executable, "-m", "neuroloop_sources", "faults", "--wait", *options]
        lines = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, timeout=90).stdout.splitlines()
    ready, *told, ended = [json.loads(line) for line in lines]
    assert ready == {"ready": True, "name": unique_name, "channel_count": 4, "nominal_srate": RATE}
    sent = Sent(**{key: value for key, value in ended.items() if key != "ended"})
    session.receive()
    status = session.command("status")
    account = settle(sent, RATE, session.predictions(), session.messages["events"], status["stream"]["samples"])
    assert sorted(fault["fault"] for fault in told) == sorted(KINDS)
    assert (account.wrong, account.overrun) == ([], 0), told
    assert min(account.missing, account.surplus, account.nonfinite, account.lost) > 0
    session.until(lambda: len(session.predictions("shadow")) == status["bins"], "the last answer of the shadow")
    assert [b["seq"] for b in session.predictions("shadow")] == list(range(status["bins"]))
    session.command("recording_stop")
    verdict = verify(path_of(session))
    assert (verdict.first, verdict.is_identical) == (None, True)
