import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from neuroloop_client import Client, NeuroloopClientError

SESSION = {"stream": {"type": "EEG"}, "classes": ["rest", "move"], "bin_ms": 10, "autostart": False}


@pytest.fixture
def client(server_url: str) -> Iterator[Client]:
    with Client(server_url + "/") as client:
        yield client


@pytest.fixture
def session(client: Client, unique_name: str) -> Iterator[str]:
    """A running session of the test's own."""
    client.create(SESSION | {"name": unique_name})
    end = time.monotonic() + 10
    while client.session(unique_name)["state"] != "stopped":
        assert time.monotonic() < end, "the session did not come up"
    client.start(unique_name)
    yield unique_name
    client.delete(unique_name)


def test_the_server_tells_its_version_clock_and_sessions(client: Client) -> None:
    assert client.info()["version"] == "0.1.0"
    assert client.info()["clock"] < client.info()["clock"]
    assert "demo" in [session["name"] for session in client.sessions()]
    assert client.streams(timeout=0.1) == []


def test_a_session_is_created_stopped_and_deleted(client: Client, unique_name: str) -> None:
    created = client.create(SESSION | {"name": unique_name})
    assert created["settings"]["classes"] == ["rest", "move"]
    client.delete(unique_name)
    with pytest.raises(NeuroloopClientError, match=unique_name) as refusal:
        client.status(unique_name)
    assert refusal.value.status == 404
    assert refusal.value.problem["title"] == "Not found"


def test_a_session_stops_and_says_so_in_its_events(client: Client, session: str) -> None:
    assert client.status(session)["state"] == "running"
    assert client.stop(session) == {"state": "stopped"}
    assert client.events(session, limit=1)[0]["event"] == "session_stopped"


def test_labels_are_taken_or_refused_with_the_reason(client: Client) -> None:
    assert client.label("demo", "left", start=1.0, end=2.0)["end"] == 2.0
    with pytest.raises(NeuroloopClientError, match="'up' is no class") as refusal:
        client.label("demo", "up")
    assert refusal.value.status == 422


def test_predictions_are_read_on_from_the_last_that_is_known(client: Client) -> None:
    known = client.history("demo", limit=2)
    more = client.history("demo", since=known[-1]["seq"], limit=2)
    assert [p["seq"] for p in known + more] == list(range(known[0]["seq"], known[0]["seq"] + 4))
    assert client.latest("demo", model="decoder")["seq"] >= more[-1]["seq"]


def test_weights_are_uploaded_downloaded_and_fitted(client: Client, session: str) -> None:
    assert client.put_rereference(session, b"0,0.5\n0.25,0\n")["version"] == 1
    assert client.rereference_weights(session, version=1) == b"0.0,0.5\n0.25,0.0\n"
    assert client.patch_rereference(session, mode="forgetting", half_life_s=3.0)["half_life_s"] == 3.0
    assert client.rereference(session)["mode"] == "forgetting"
    fit = client.fit_rereference(session, seconds=1000)["fit"]
    assert client.rereference_fit(session, fit)["state"] == "running"
    with pytest.raises(NeuroloopClientError, match=r"expected \(2, 2\)"):
        client.put_rereference(session, b"0,0,0\n")


@pytest.mark.parametrize("format", ["json", "msgpack"])
def test_a_stream_is_an_iterator_that_takes_labels(client: Client, format: str) -> None:
    with client.stream("demo", topics=["predictions", "rates"], format=format) as stream:
        stream.send_label("right", start=1.0, id="mine")
        seen = {}
        for message in stream:
            seen.setdefault(message["type"], message)
            if len(seen) == 3:
                break
    assert seen.keys() == {"prediction", "rates", "label_accepted"}
    assert seen["label_accepted"]["id"] == "mine"


def test_a_stream_ends_with_its_session(client: Client, unique_name: str) -> None:
    client.create(SESSION | {"name": unique_name})
    with client.stream(unique_name) as stream:
        client.delete(unique_name)
        assert list(stream) == []
        assert stream.receive() is None


def test_waiting_for_a_message_has_an_end(client: Client) -> None:
    with client.stream("demo", topics=["events"]) as stream, pytest.raises(TimeoutError):
        stream.receive(timeout=0.05)


def test_a_stream_that_cannot_be_is_refused_with_the_reason(client: Client) -> None:
    with pytest.raises(NeuroloopClientError, match="unknown topic 'moods'") as refusal:
        client.stream("demo", topics=["moods"])
    assert refusal.value.status == 400


def test_a_server_that_is_not_there_is_an_error_of_the_client() -> None:
    with Client("http://127.0.0.1:1") as client:
        with pytest.raises(NeuroloopClientError, match="does not answer") as silence:
            client.info()
        with pytest.raises(NeuroloopClientError, match="does not answer"):
            client.stream("demo")
    assert silence.value.status is None


def test_the_client_imports_neither_torch_nor_numpy() -> None:
    program = "import sys, neuroloop_client; print(sorted({'torch', 'numpy', 'neuroloop'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
