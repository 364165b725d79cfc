"""The commands that talk to a running server, as a user types them."""

import json
import subprocess
import sys
import threading

import numpy as np
import pytest
import yaml
from tests import commands
from tests.integration.conftest import COUNTS, ones
from tests.processes import serving, streaming, wait_until, write_config

from neuroloop.models import decoder_files
from neuroloop.models.maxrate import MaxRate

SRATE = 250.0


@pytest.fixture
def decoding(tmp_path, open_source, unique_name):
    """The address of a server without sessions, and the settings of one on a stream that is there."""
    source = open_source(unique_name, nominal_srate=SRATE)
    settings = {
        "name": "demo",
        "stream": {"name": unique_name},
        "front_end": COUNTS,
        "bin_ms": 40,
        "classes": ["left", "right"],
        "outlets": {"enabled": False},
    }

    def push(stop: threading.Event):
        while not stop.wait(10 / SRATE):
            source.push(ones(10))

    with streaming(push):
        with serving(write_config(tmp_path)) as (url, server):
            yield url, settings
        assert server.returncode == 0


def test_a_session_is_made_watched_taught_and_given_another_decoder(decoding, tmp_path):
    url, settings = decoding
    session, weights, copy = tmp_path / "session.yaml", tmp_path / "w.safetensors", tmp_path / "copy.safetensors"
    session.write_text(yaml.safe_dump(settings))
    decoder = MaxRate(["left", "right"], 4)
    decoder.learn_batch(np.random.default_rng(0).poisson(5.0, (20, 4)), np.arange(20) % 2)
    weights.write_bytes(decoder_files.write(decoder_files.of(decoder, 4)))

    def neuroloop(*arguments):
        return commands.neuroloop(*arguments, "--server", url)

    assert neuroloop("sessions", "create", str(session)).stdout == "demo\n"
    wait_until(lambda: neuroloop("sessions", "list").stdout == "demo\trunning\n", "the session")
    seen = neuroloop("labels", "watch", "demo", "--count", "30").stdout.splitlines()
    numbers = [int(line.split("\t")[0]) for line in seen]
    assert numbers == list(range(numbers[0], numbers[0] + 30))
    assert json.loads(neuroloop("labels", "send", "demo", "left").stdout)["label"] == "left"
    unknown = neuroloop("labels", "send", "demo", "up")
    assert unknown.exit_code == 1
    assert unknown.stderr.startswith("neuroloop: ")
    assert unknown.stderr.count("\n") == 1

    assert neuroloop("models", "upload", "reach", str(weights)).stdout == "1\n"
    neuroloop("models", "alias", "reach", "champion", "1")
    assert neuroloop("models", "list").stdout == "reach\t1\tchampion=1\n"
    receipt = json.loads(neuroloop("sessions", "swap", "demo", "reach", "--alias", "champion").stdout)
    assert (receipt["current"]["name"], receipt["current"]["version"], receipt["missed_bins"]) == ("reach", 1, 0)
    refused = neuroloop("models", "delete", "reach", "1")
    assert refused.exit_code == 1
    assert "demo" in refused.stderr or "champion" in refused.stderr
    assert json.loads(neuroloop("sessions", "rollback", "demo").stdout)["current"]["name"] != "reach"
    neuroloop("sessions", "swap", "demo", "reach", "--version", "1", "--role", "shadow")
    assert json.loads(neuroloop("sessions", "remove", "demo", "reach").stdout)["decoder"] == "reach"

    assert neuroloop("models", "download", "reach", "1", str(copy)).exit_code == 0
    assert copy.read_bytes() == weights.read_bytes()
    assert "cannot be written" in neuroloop("models", "download", "reach", "1", str(copy)).stderr
    assert neuroloop("sessions", "stop", "demo").exit_code == 0
    assert json.loads(neuroloop("sessions", "status", "demo").stdout)["state"] == "stopped"
    assert neuroloop("sessions", "delete", "demo").exit_code == 0
    assert neuroloop("sessions", "list").stdout == ""


def test_a_server_that_is_not_there_is_one_clear_line():
    command = [sys.executable, "-m", "neuroloop", "models", "list", "--server", "http://127.0.0.1:9"]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.returncode == 1
    assert ran.stderr.startswith("neuroloop: the server does not answer")
