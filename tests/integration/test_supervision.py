"""Session processes that are killed, hang, grow too large: replaced from their checkpoints, over a real server."""

import os
import signal
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
from tests.integration.conftest import Source
from tests.integration.test_api import BANDPOWER, SRATE, children
from tests.processes import serving, wait_until, write_config

from neuroloop_client import Client

QUICK = {"spare": False, "backoff_s": 0.01, "hang_s": 3.0}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("supervised")


@pytest.fixture(scope="module")
def server(folder):
    with serving(write_config(folder, supervision=QUICK)) as (url, process), Client(url, timeout=30) as client:
        yield client, process
    assert process.returncode == 0


@pytest.fixture
def source(unique_name):
    """Samples in real time, without an end."""
    source, ended = Source(unique_name, 4, SRATE), threading.Event()
    noise = np.random.default_rng(0).standard_normal((1000, 4)).astype(np.float32)

    def push():
        while not ended.wait(0.02):
            count = int((time.monotonic() - began) * SRATE) - source.sent
            source.push(noise[:count]) if count > 0 else None

    began = time.monotonic()
    thread = threading.Thread(target=push)
    thread.start()
    yield source
    ended.set()
    thread.join()
    source.close()


class Victim:
    """A session whose process the test ends."""

    def __init__(self, client, server, name, **settings):
        self.client, self.name = client, name
        before = set(children(server.pid))
        decoders = [{"name": "main", "kind": "poisson"}]
        client.create(BANDPOWER | {"name": name, "stream": {"name": name}, "decoders": decoders} | settings)
        wait_until(lambda: client.session(name)["state"] == "running", f"session {name}")
        self._server, self._others = server, before

    @property
    def pid(self):
        """Of the process that runs it now."""
        return wait_until(lambda: set(children(self._server.pid)) - self._others, "its process").pop()

    def events(self, name):
        return [event for event in self.client.events(self.name) if event["event"] == name]

    def event(self, name, count=1):
        return wait_until(lambda: len(self.events(name)) >= count and self.events(name)[count - 1], name)

    def labelled(self):
        """The next prediction with a label."""
        newest = self.client.latest(self.name)["seq"]

        def found():
            latest = self.client.latest(self.name)
            return latest["seq"] > newest and latest["label"] and latest

        return wait_until(found, "a prediction")


@pytest.fixture
def victim(server, source, unique_name):
    client, process = server
    victim = Victim(client, process, unique_name)
    wait_until(lambda: client.history(unique_name), "bins")
    yield victim
    client.delete(unique_name)


def teach(victim):
    """Both classes, until the decoder answers."""
    wait_until(lambda: victim.client.latest(victim.name)["reason"] != "settling", "filters to settle")
    for label in ("left", "right"):
        seq = victim.client.latest(victim.name)["seq"]
        wait_until(lambda seq=seq: victim.client.latest(victim.name)["seq"] > seq + 6, "a window of its own")
        victim.client.label(victim.name, label)
    return victim.labelled()


def restarted(heard):
    return next((m for m in heard if m.get("event") == "session_restarted"), None)


def decoder(victim):
    return victim.client.status(victim.name)["decoders"][0]


def test_a_killed_process_goes_on_with_what_it_had_learned_and_seq_without_a_hole(victim):
    teach(victim)
    known = decoder(victim)
    with victim.client.stream(victim.name, topics=["predictions", "events"]) as stream:
        os.kill(victim.pid, signal.SIGKILL)
        heard = []
        while not (heard and heard[-1]["type"] == "prediction" and heard[-1]["label"] and restarted(heard)):
            heard.append(next(stream))
    event = restarted(heard)
    assert (event["cause"], event["exit_code"]) == ("signal", -signal.SIGKILL)
    assert 0 <= event["checkpoint_age_s"] < 5
    assert "SIGKILL" in event["detail"]
    seqs = [m["seq"] for m in heard if m["type"] == "prediction"]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    gap = next(m for m in heard if m.get("event") == "gap")
    missed = [m for m in heard if m["type"] == "prediction" and m["seq"] >= event["first_seq"] and m["gap"]]
    assert len(missed) >= gap["bins"] > 0
    times = [m["time"] for m in heard if m["type"] == "prediction"]
    np.testing.assert_allclose(np.diff(times), 0.04, atol=0.005)
    samples = [m["samples"] for m in heard if m["type"] == "prediction"]
    assert all(after[0] == before[1] + 1 for before, after in pairwise(samples))
    now = decoder(victim)
    assert (now["learned"], now["digest"]) == (known["learned"], known["digest"])
    assert victim.client.status(victim.name)["labels"]["learned"] == 2
