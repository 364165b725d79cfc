"""The server over real session processes and real LSL: every interface, and every kind of bad input."""

import io
import json
import os
import pickle
import signal
import threading
import time
import uuid
from pathlib import Path

import httpx
import msgpack
import numpy as np
import pytest
from jsonschema import Draft202012Validator
from tests.integration.conftest import Source
from tests.processes import serving, wait_until, write_config
from websockets.sync.client import connect

from neuroloop_client import Client, NeuroloopClientError

PATIENCE_S = 30.0
SRATE = 250.0
BANDPOWER = {
    "front_end": {"kind": "bandpower", "bands": {"alpha": [8, 13]}},
    "bin_ms": 40,
    "window": 5,
    "classes": ["left", "right"],
    "rereference": {"mode": "frozen"},
    "outlets": {"enabled": False},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """A server without sessions: its address and its process."""
    with serving(write_config(tmp_path_factory.mktemp("server"))) as (url, process):
        assert url.startswith("http://127.0.0.1:")
        yield url, process
    assert process.returncode == 0


@pytest.fixture(scope="module")
def server_url(server):
    return server[0]


@pytest.fixture
def server_process(server):
    return server[1]


@pytest.fixture(scope="module")
def client(server_url):
    with Client(server_url, timeout=30) as client:
        yield client


def create_session(client, name, stream):
    """Create a session; its process answers when this returns."""
    client.create(BANDPOWER | {"name": name, "stream": {"name": stream}})
    wait_until(lambda: client.session(name)["state"] == "running", f"session {name}")
    return name


@pytest.fixture
def create(client):
    """Creates sessions that are deleted with the test."""
    names = []

    def make(name, stream):
        names.append(create_session(client, name, stream))
        return name

    yield make
    for name in names:
        client.delete(name)


class LiveSource:
    """Pushes alpha waves in real time from a thread; `amplitudes`, one per channel, may change at any time."""

    def __init__(self, source):
        self.amplitudes = np.ones(4)
        self.spoil = False
        self.name = source.outlet.get_info().name()
        self._source = source
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="source")
        self._thread.start()

    def _run(self):
        noise = np.random.default_rng(1)
        start = time.monotonic()
        while not self._ended.wait(max(0, start + self._source.sent / SRATE - time.monotonic())):
            times = (self._source.sent + np.arange(10)) / SRATE
            samples = np.sin(2 * np.pi * 10 * times)[:, None] * self.amplitudes + 0.1 * noise.normal(size=(10, 4))
            if self.spoil:
                samples[4, 2], self.spoil = np.nan, False
            self._source.push(samples.astype(np.float32))

    def end(self):
        self._ended.set()
        self._thread.join()


@pytest.fixture(scope="module")
def source():
    live = LiveSource(Source(f"api-{uuid.uuid4().hex}", nominal_srate=SRATE, labels=["C3", "C4", "Cz", "Oz"]))
    yield live
    live.end()


@pytest.fixture(scope="module")
def session(client, source):
    """A session that has found its stream, and whose filters have settled."""
    name = create_session(client, source.name, source.name)
    wait_until(
        lambda: any(str(p["reason"]).startswith("untrained") for p in client.history(name)), "the first good bin"
    )
    return name


def test_a_session_learns_from_labels_and_says_what_it_decodes(client, session, source):
    with client.stream(session) as stream:
        for label, amplitudes in [("left", [3, 3, 1, 1]), ("right", [1, 1, 3, 3])] * 2:
            source.amplitudes = np.array(amplitudes)
            seen = [next(stream) for _ in range(30)]
            stream.send_label(label, seen[10]["time"], seen[-1]["time"], id=label)
            answer = next(message for message in stream if message["type"] == "label_accepted")
            assert (answer["id"], answer["state"], answer["bins"]) == (label, "learned", 19)
        source.amplitudes = np.array([3, 3, 1, 1])
        decoded = [next(stream) for _ in range(40)][-1]
    assert decoded["label"] == "left"
    assert decoded["model"]["version"] == 4
    assert decoded["confidence"] > 0.5
    assert client.label(session, "left")["state"] == "learned"
    learned = client.status(session)["decoders"][0]["learned"]
    assert learned == {"left": 3, "right": 2}


def test_every_bin_is_in_the_stream_and_in_the_history_alike(client, session):
    with client.stream(session, format="json") as stream:
        streamed = [next(stream) for _ in range(25)]
    seqs = [message["seq"] for message in streamed]
    assert seqs == list(range(seqs[0], seqs[0] + 25))
    assert client.history(session, since=seqs[0] - 1, limit=25) == streamed
    assert client.latest(session)["seq"] >= seqs[-1]


@pytest.mark.parametrize("format", ["json", "msgpack"])
def test_every_message_of_a_running_session_is_of_the_schema(client, session, server_url, format):
    validator = Draft202012Validator(httpx.get(f"{server_url}/v1/schema/messages.json").json())
    url = f"ws{server_url.removeprefix('http')}/v1/sessions/{session}/stream?format={format}&resume_from=0"
    wanted = {"prediction", "rates", "signals", "status", "event", "label_accepted", "pong", "error"}
    with connect(f"{url}&topics=predictions,rates,encoders,signals,events,status") as stream:
        for request in ({"type": "label", "label": "left", "id": 3}, {"type": "ping"}, {"type": "mood"}):
            stream.send(json.dumps(request))
        kinds, messages = set(), 0
        while wanted - kinds or messages < 200:
            received = stream.recv(timeout=10)
            message = json.loads(received) if format == "json" else msgpack.unpackb(received)
            validator.validate(message)
            kinds.add(message["type"])
            messages += 1
    assert kinds == wanted


def test_a_stream_tells_its_labels_and_units(client, session):
    found = {stream["name"]: stream for stream in client.streams(timeout=2.0)}[session]
    assert found["channels"] == ["C3", "C4", "Cz", "Oz"]
    assert found["units"] == ["microvolts"] * 4
    assert (found["nominal_srate"], found["format"], found["source_id"]) == (SRATE, "float32", session)


W = np.array([[0, 0.5, 0, 0], [0.5, 0, 0, 0], [0, 0, 0, 0.25], [0, 0, 0.25, 0]])


def as_csv(matrix):
    buffer = io.BytesIO()
    np.savetxt(buffer, matrix, delimiter=",")
    return buffer.getvalue()


def test_uploaded_weights_are_used_and_named_by_every_prediction_from_their_bin_on(client, session):
    loaded = client.put_rereference(session, as_csv(W))
    state = client.rereference(session)
    assert (state["version"], state["mode"], state["source"]) == (loaded["version"], "frozen", "upload")
    wait_until(lambda: client.latest(session)["seq"] > loaded["bin"], "a bin after the swap")
    versions = {p["rereference"] for p in client.history(session, since=loaded["bin"])}
    assert versions == {loaded["version"]}
    archive = np.load(io.BytesIO(client.rereference_weights(session, "npz", loaded["version"])))
    assert np.array_equal(archive["W"], W)
    assert archive["channels"].tolist() == ["C3", "C4", "Cz", "Oz"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (as_csv(np.zeros((5, 4))), "expected (4, 4) for 4 channels, got (5, 4); upload W, not the affine form"),
        (as_csv(np.where(W == 0.5, np.nan, W)), "2 values are not finite"),
        (as_csv(np.eye(4) - W), "upload W"),
        (pickle.dumps(W), "pickles are not read"),
        (b"", "no numbers"),
    ],
    ids=["shape", "nan", "i-minus-w", "pickle", "empty"],
)
def test_weights_that_cannot_be_used_are_refused_and_nothing_changes(client, session, data, words):
    before = client.rereference(session)["version"]
    with pytest.raises(NeuroloopClientError) as refusal:
        client.put_rereference(session, data)
    assert refusal.value.status == 422
    assert words in str(refusal.value)
    assert client.rereference(session)["version"] == before
    seq = client.latest(session)["seq"]
    wait_until(lambda: client.latest(session)["seq"] > seq + 5, "the next bins")


def test_weights_are_fitted_from_live_data(client, session):
    fit = client.fit_rereference(session, seconds=1.0)["fit"]
    assert client.rereference_fit(session, fit)["state"] == "running"
    done = wait_until(lambda: (f := client.rereference_fit(session, fit))["state"] != "running" and f, "the fit")
    assert (done["state"], done["version"]) == ("done", client.rereference(session)["version"])


@pytest.mark.parametrize(
    ("message", "status", "words"),
    [
        ("{", 400, "not JSON"),
        (b"\xc1", 400, "not MessagePack"),
        (b"\x85\xa4type", 400, "not MessagePack"),
        ('{"type": "label", "label": "up"}', 422, "'up' is no class of this session; its classes are left, right"),
        ('{"type": "label", "label": "left", "start": 1, "end": 2}', 422, "rates are kept from"),
    ],
    ids=["json", "msgpack", "half-a-map", "no-class", "too-old"],
)
def test_a_bad_message_is_answered_and_neither_stream_nor_loop_ends(server_url, session, message, status, words):
    url = f"ws{server_url.removeprefix('http')}/v1/sessions/{session}/stream"
    with connect(url) as stream:
        stream.send(message)
        received = []
        while not received or received[-1]["type"] != "error":
            received.append(json.loads(stream.recv(timeout=10)))
        received += [json.loads(stream.recv(timeout=10)) for _ in range(5)]
    [error] = [m for m in received if m["type"] == "error"]
    assert error["status"] == status
    assert words in error["detail"]
    seqs = [m["seq"] for m in received if m["type"] == "prediction"]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))


def test_a_sample_that_is_not_a_number_is_an_event_and_the_loop_goes_on(client, session, source):
    with client.stream(session, topics=["events", "predictions"]) as stream:
        source.spoil = True
        event = next(m for m in stream if m.get("event") == "nonfinite")
        after = next(m for m in stream if m["type"] == "prediction" and not m["gap"])
    assert event["channels"] == {"Cz": 1}
    assert after["seq"] >= event["seq"]
    assert client.status(session)["nonfinite_samples"] == 1


def test_two_sessions_may_share_a_stream_but_not_a_name(client, create, session):
    with pytest.raises(NeuroloopClientError, match="exists already") as refusal:
        create(session, session)
    assert refusal.value.status == 409
    second = create(f"{session}-second", session)
    wait_until(lambda: client.history(second), "bins of the second session")
    assert client.status(session)["stream"]["name"] == client.status(second)["stream"]["name"]


def test_a_session_whose_stream_never_appears_searches_and_the_server_is_ready(client, create, unique_name):
    create(unique_name, unique_name)
    assert client.status(unique_name)["stream"]["state"] == "searching"
    client.check_ready()
    for call, status in [(client.latest, 404), (client.rereference, 409)]:
        with pytest.raises(NeuroloopClientError) as refusal:
            call(unique_name)
        assert refusal.value.status == status
    assert client.stop(unique_name) == {"state": "stopped"}


def test_a_session_process_that_is_killed_is_replaced_and_harms_no_other(client, create, server_process, session):
    before = set(children(server_process.pid))
    victim = create(f"{session}-victim", session)
    [process] = set(children(server_process.pid)) - before
    with client.stream(victim, topics=["events"]) as stream:
        os.kill(process, signal.SIGKILL)
        event = next(m for m in stream if m["event"] == "session_restarted")
    assert event["exit_code"] == -signal.SIGKILL
    assert set(children(server_process.pid)) - before != {process}
    seq = client.latest(session)["seq"]
    wait_until(lambda: client.latest(session)["seq"] > seq + 5, "bins of the other session")
    wait_until(lambda: client.status(victim)["state"] == "running", "the session in a new process")
    client.check_ready()


def children(pid):
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
