"""Real session processes and real LSL outlets."""

import json
import os
import subprocess
import sys
import textwrap
import time
from collections import defaultdict

import msgpack
import numpy as np
import pylsl
import pytest
import zmq
from tests.integration.ray_cluster import cluster_of

from neuroloop.config import parse_session

PATIENCE_S = 60.0


COUNTS = {"kind": "counts"}
ALL = ["a", "b"]


def ones(samples, channels=4):
    return np.ones((samples, channels), np.float32)


def with_broken_decoder(folder, body):
    """The environment of a process that has a decoder kind `broken`, with this class body."""
    text = textwrap.indent(textwrap.dedent(body), "    ")
    (folder / "broken.py").write_text(
        f"from neuroloop.models.maxrate import MaxRate\nclass Broken(MaxRate):\n    kind = 'broken'\n{text}\n"
    )
    package = folder / "broken-1.dist-info"
    package.mkdir()
    (package / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 1\n")
    (package / "entry_points.txt").write_text("[neuroloop.models]\nbroken = broken:Broken\n")
    return {"PYTHONPATH": os.pathsep.join(part for part in (str(folder), os.environ.get("PYTHONPATH")) if part)}


class Refused(Exception):
    """A command that the session refused: (class, detail)."""


class RunningSession:
    """A session process, driven over ZeroMQ as the API drives it."""

    def __init__(self, settings, folder, environment, given):
        """given: what the process is told beside the settings, as `checkpoint` and `goes_on`."""
        self.settings = parse_session(settings)
        self.messages = defaultdict(list)
        self._log = (folder / "session.log").open("w+")
        endpoints = {name: f"ipc://{folder}/{name}" for name in ("commands", "results")}
        arguments = [part for name, endpoint in endpoints.items() for part in (f"--{name}", endpoint)]
        self.process = subprocess.Popen(
            [sys.executable, "-m", "neuroloop.session", *arguments],
            stdin=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=os.environ | environment,
        )
        self._context = zmq.Context()
        self._results = self._context.socket(zmq.SUB)
        self._results.setsockopt(zmq.RCVHWM, 0)
        self._results.subscribe(b"")
        self._results.connect(endpoints["results"])
        self._commands = self._context.socket(zmq.DEALER)
        self._commands.connect(endpoints["commands"])
        self.recordings = folder / "recordings"
        told = {"session": self.settings.model_dump(mode="json"), "lsl": {}, "recordings": str(self.recordings)}
        self.process.stdin.write(json.dumps(told | given) + "\n")
        self.process.stdin.flush()
        self.command("status")

    def command(self, name, /, patience_s=PATIENCE_S, **arguments):
        self.ask(name, **arguments)
        return self.answer(name, patience_s)

    def ask(self, name, /, **arguments):
        """Send a command, and do not wait for its answer."""
        self._commands.send_multipart([name.encode(), msgpack.packb({"command": name, **arguments})])

    def answer(self, name, patience_s=PATIENCE_S):
        """The answer to a command that was asked; answers to others that come before it are dropped."""
        asked = None
        while asked != name.encode():
            assert self._commands.poll(1000 * patience_s), f"no answer to {name}"
            asked, body = self._commands.recv_multipart()
        answer = msgpack.unpackb(body)
        if not answer["ok"]:
            raise Refused(answer["error"], answer["detail"])
        return answer["result"]

    def receive(self, milliseconds=100):
        """Take in what has been published."""
        while self._results.poll(milliseconds):
            topic, body = self._results.recv_multipart()
            self.messages[topic.decode()].append(msgpack.unpackb(body))
            milliseconds = 0

    def until(self, condition, what="what the test waits for"):
        """Receive until the condition holds; returns what it returned."""
        deadline = time.monotonic() + PATIENCE_S
        while not (found := condition()):
            assert self.process.poll() is None, self.log()
            assert time.monotonic() < deadline, f"{what} did not come within {PATIENCE_S:g} s; {self.log()[-2000:]}"
            self.receive()
        return found

    def events(self, name):
        return [event for event in self.messages["events"] if event["event"] == name]

    def event(self, name, count=1):
        """The count-th event of this name, when it has come."""
        return self.until(lambda: len(self.events(name)) >= count and self.events(name)[count - 1], name)

    def predictions(self, role="active"):
        return [prediction for prediction in self.messages["predictions"] if prediction["role"] == role]

    def bins(self, count):
        """The predictions of the active decoder, when there are so many."""
        return self.until(lambda: len(self.predictions()) >= count and self.predictions(), f"{count} bins")

    def state(self, state):
        self.until(lambda: self.command("status")["stream"]["state"] == state, f"state {state}")

    def log(self):
        self._log.seek(0)
        return self._log.read()

    def end(self):
        if self.process.poll() is None:
            self.process.stdin.close()
            self.process.wait(10)
        self._context.destroy(linger=0)
        self._log.close()
        return self.process.returncode


@pytest.fixture(scope="session")
def cluster():
    """A Ray cluster of two nodes; see `ray_cluster`."""
    with cluster_of(2) as cluster:
        yield cluster


@pytest.fixture
def start_session(tmp_path_factory):
    """A function that starts a session process; all are ended with the test."""
    running, expected = [], []

    def start(environment=None, exit_code=0, given=None, **settings):
        folder = tmp_path_factory.mktemp("session")
        running.append(RunningSession(settings, folder, environment or {}, given or {}))
        expected.append(exit_code)
        return running[-1]

    yield start
    assert [session.end() for session in running] == expected


@pytest.fixture
def start_counts(start_session, unique_name):
    """A function that starts a session on counts from this stream, 20 ms a bin; it knows no rereference."""

    def start(stream, **settings):
        common = {"front_end": COUNTS, "window": 5, "classes": ALL, "outlets": {"enabled": False}}
        return start_session(name=unique_name, stream=stream, **common | settings)

    return start


@pytest.fixture
def counts(start_counts, unique_name):
    """Such a session; its stream has its name."""
    return start_counts({"name": unique_name})


class Source:
    """An LSL outlet of numbers whose timestamps are a grid, or whatever the test says."""

    def __init__(
        self, name, channel_count=4, nominal_srate=1000.0, format=pylsl.cf_float32, labels=None, source_id=None
    ):
        info = pylsl.StreamInfo(name, "Test", channel_count, nominal_srate, format, source_id or name)
        channels = info.desc().append_child("channels")
        for label in labels or [f"c{i}" for i in range(channel_count)]:
            channel = channels.append_child("channel")
            channel.append_child_value("label", label)
            channel.append_child_value("unit", "microvolts")
        self.nominal_srate = nominal_srate
        self.outlet = pylsl.StreamOutlet(info, max_buffered=60)
        self.start = None
        self.sent = 0

    def wait_for_consumers(self):
        assert self.outlet.wait_for_consumers(PATIENCE_S), "nobody receives"

    def push(self, samples, chunk=None, missing=0):
        """Push samples, (n, channels), in chunks; `missing` samples of time are skipped before them."""
        if self.start is None:
            self.start = pylsl.local_clock()
        self.sent += missing
        samples = np.ascontiguousarray(samples)
        chunk = chunk or len(samples)
        for first in range(0, len(samples), chunk):
            part = samples[first : first + chunk]
            last = self.sent + len(part) - 1
            self.outlet.push_chunk(part, self.start + last / self.nominal_srate)
            self.sent += len(part)

    def close(self):
        self.outlet = None


@pytest.fixture
def open_source():
    """A function that opens an outlet; all are closed with the test."""
    sources = []

    def make(*args, **kwargs):
        sources.append(Source(*args, **kwargs))
        return sources[-1]

    yield make
    for source in sources:
        source.close()
