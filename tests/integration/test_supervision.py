"""Session processes that are killed, hang, grow too large: replaced from their checkpoints, over a real server."""

import os
import signal
import threading
import time
from itertools import pairwise

import numpy as np
import pytest
from tests.integration.conftest import Source, with_broken_decoder
from tests.integration.models import trained, weights
from tests.integration.test_api import BANDPOWER, SRATE, children
from tests.processes import serving, wait_until, write_config

from neuroloop.session.checkpoint import before
from neuroloop_client import Client, NeuroloopClientError

QUICK = {"backoff_s": 0.01, "hang_s": 2.0, "restarts": 20}
LEAKS = """
leaked = []

def predict(self, rates):
    self.leaked.append(b"x" * (8 << 20))
    return super().predict(rates)
"""


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

    def more_bins(self):
        newest = self.client.latest(self.name)["seq"]
        wait_until(lambda: self.client.latest(self.name)["seq"] > newest, "bins")

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


def heard_until_it_answers(stream, end):
    """Every message from when `end` has ended the process to the first label of the one in its place."""
    end()
    heard = []
    while not (heard and heard[-1]["type"] == "prediction" and heard[-1]["label"] and restarted(heard)):
        heard.append(next(stream))
    return heard


def assert_goes_on(heard):
    """Neither `seq` nor time nor samples repeat or skip, and what was missed is bins that say so."""
    bins = [m for m in heard if m["type"] == "prediction"]
    assert [m["seq"] for m in bins] == list(range(bins[0]["seq"], bins[0]["seq"] + len(bins)))
    np.testing.assert_allclose(np.diff([m["time"] for m in bins]), 0.04, atol=0.005)
    assert all(after["samples"][0] == before["samples"][1] + 1 for before, after in pairwise(bins))
    first, gap = restarted(heard)["first_seq"], next(m for m in heard if m.get("event") == "gap")
    assert len([m for m in bins if m["seq"] >= first and m["gap"]]) >= gap["bins"] > 0


def test_a_killed_process_goes_on_with_what_it_had_learned_and_seq_without_a_hole(victim, source):
    source.start -= 500.0  # what the next process is to know, too
    teach(victim)
    known = decoder(victim)
    with victim.client.stream(victim.name, topics=["predictions", "events"]) as stream:
        heard = heard_until_it_answers(stream, lambda: os.kill(victim.pid, signal.SIGKILL))
    event = restarted(heard)
    assert (event["cause"], event["exit_code"]) == ("signal", -signal.SIGKILL)
    assert 0 <= event["checkpoint_age_s"] < 5
    assert "SIGKILL" in event["detail"]
    assert [m for m in heard if m.get("event") == "clock_step"] == []
    assert_goes_on(heard)
    now = decoder(victim)
    assert (now["learned"], now["digest"]) == (known["learned"], known["digest"])
    status = victim.client.status(victim.name)
    assert status["labels"]["learned"] == 2
    assert status["bins"] == status["seq"] > event["first_seq"]


def test_a_process_that_hangs_is_ended_and_replaced(victim):
    teach(victim)
    with victim.client.stream(victim.name, topics=["predictions", "events"]) as stream:
        heard = heard_until_it_answers(stream, lambda: os.kill(victim.pid, signal.SIGSTOP))
    assert restarted(heard)["cause"] == "hang"
    assert "said nothing for" in restarted(heard)["detail"]
    assert_goes_on(heard)


def test_a_swap_and_labels_that_were_acknowledged_just_before_the_kill_are_there_after_it(victim):
    client, name = victim.client, victim.name
    teach(victim)
    client.upload_model(name, weights(trained(("left", "right"))))
    client.put_decoder(name, name, version=1)
    for label in ("left", "right", "left"):
        assert client.label(name, label)["state"] == "learned"
    known = decoder(victim)
    os.kill(victim.pid, signal.SIGKILL)
    victim.event("session_restarted")
    victim.more_bins()
    now = decoder(victim)
    assert now["model"]["name"] == name
    assert (now["learned"], now["digest"]) == (known["learned"], known["digest"])
    assert client.status(name)["labels"]["learned"] == 5
    client.roll_back_decoder(name)
    assert decoder(victim)["learned"] == {"left": 1, "right": 1}


def test_a_session_that_was_being_recorded_still_is_and_one_that_was_not_is_not(victim):
    client, name = victim.client, victim.name
    begun = client.start_recording(name)["name"]
    os.kill(victim.pid, signal.SIGKILL)
    victim.event("session_restarted")
    victim.more_bins()
    goes_on = client.status(name)["recording"]
    assert (goes_on["state"], goes_on["name"] == begun) == ("recording", False)
    client.stop_recording(name)
    os.kill(victim.pid, signal.SIGKILL)
    victim.event("session_restarted", 2)
    victim.more_bins()
    assert client.status(name)["recording"] is None
    kept = [recording["name"] for recording in client.recordings()]
    assert sorted(one for one in kept if one.startswith(name)) == sorted([begun, goes_on["name"]])


@pytest.mark.parametrize("damaged", [1, 2])
def test_a_damaged_checkpoint_is_told_and_the_one_before_is_used_or_the_session_starts_cold(victim, folder, damaged):
    teach(victim)
    (newest,) = folder.rglob(f"{victim.name}.safetensors")
    wait_until(lambda: before(newest).exists(), "two checkpoints")
    pid = victim.pid
    os.kill(pid, signal.SIGSTOP)  # it writes no other
    for path in (newest, before(newest))[:damaged]:
        path.write_bytes(path.read_bytes()[:-1])
    os.kill(pid, signal.SIGKILL)
    victim.event("session_restarted")
    assert "expected a file that a session wrote" in victim.event("checkpoint_refused", damaged)["detail"]
    victim.event("session_restored" if damaged == 1 else "checkpoint_missing")
    victim.more_bins()
    assert victim.client.status(victim.name)["labels"]["learned"] == (2 if damaged == 1 else 0)


def test_a_process_that_takes_too_much_memory_is_replaced_and_at_the_limit_the_session_has_failed(
    tmp_path, monkeypatch, source, unique_name
):
    for name, value in with_broken_decoder(tmp_path, LEAKS).items():
        monkeypatch.setenv(name, value)
    config = write_config(tmp_path, supervision={"memory_mb": 700, "restarts": 1, "backoff_s": 0})
    with serving(config) as (url, process), Client(url, timeout=30) as client:
        decoders = [{"name": "main", "kind": "broken"}]
        victim = Victim(client, process, unique_name, decoders=decoders)
        event = victim.event("session_restarted")
        assert event["cause"] == "memory"
        assert "supervision.memory_mb, 700" in event["detail"]
        failed = victim.event("session_failed")
        assert "not started again, after 1 restarts within 60 s" in failed["detail"]
        assert client.session(unique_name)["state"] == "failed"
        with pytest.raises(NeuroloopClientError, match="not started again"):
            client.label(unique_name, "left")
        client.delete(unique_name)
