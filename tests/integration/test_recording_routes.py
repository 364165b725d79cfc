"""Recordings through a real server and the client."""

import uuid

import numpy as np
import pytest
from tests.integration.conftest import ALL, COUNTS, ones
from tests.processes import serving, wait_until, write_config

from neuroloop_client import Client, NeuroloopClientError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("recordings")


@pytest.fixture(scope="module")
def client(folder):
    """A client of a server with one session, whose name its stream has."""
    name = f"recorded-{uuid.uuid4().hex[:12]}"
    session = {
        "name": name,
        "stream": {"name": name},
        "front_end": COUNTS,
        "classes": ALL,
        "outlets": {"enabled": False},
        "recording": {"automatic": False, "least_free_mb": 1},
    }
    with serving(write_config(folder, sessions=[session])) as (url, _), Client(url) as client:

        def is_ready():
            try:
                client.check_ready()
            except NeuroloopClientError:
                return False
            return True

        wait_until(is_ready)
        yield client


def test_a_recording_is_started_annotated_stopped_described_fetched_by_range_and_deleted(client, open_source, folder):
    session = client.sessions()[0]["name"]
    source = open_source(session, labels=list("wxyz"))
    source.wait_for_consumers()
    name = client.start_recording(session)["name"]
    assert name.startswith(f"{session}-20")
    source.push(ones(200))
    wait_until(lambda: client.status(session)["bins"] == 10)
    (growing,) = client.recordings()
    assert (growing["name"], growing["recorded_by"]) == (name, session)
    with pytest.raises(NeuroloopClientError, match="stop it first"):
        client.delete_recording(name)
    assert client.annotate(session, "eyes closed", 12.5) == {
        "recording": name,
        "text": "eyes closed",
        "time": 12.5,
    }
    stopped = client.stop_recording(session)
    content = (folder / "data" / "recordings" / f"{name}.xdf").read_bytes()
    assert stopped["bytes"] == len(content)
    assert client.recording_bytes(name) == content
    assert client.recording_bytes(name, 0, 4) == b"XDF:"
    assert client.recording_bytes(name, 100, 300) == content[100:300]
    described = client.recording(name)
    (raw,) = (stream for stream in described["streams"] if stream["name"] == session)
    assert (raw["samples"], raw["format"], raw["channel_count"]) == (200, "float32", 4)
    assert np.isclose(raw["last"] - raw["first"], 0.199)
    assert (described["is_closed"], described["damage"], described["lost"]) == (True, [], [])
    assert described["session"]["name"] == session
    assert described["made_by"]["packages"]["numpy"] == np.__version__
    client.delete_recording(name)
    assert client.recordings() == []


@pytest.mark.parametrize("name", ["nothing", "../../server", "..%2f..%2fserver", "a\0b"])
def test_what_is_no_recording_is_not_found(client, name):
    for call in (client.recording, client.recording_bytes, client.delete_recording):
        with pytest.raises(NeuroloopClientError) as refusal:
            call(name)
        assert refusal.value.status == 404
    with pytest.raises(NeuroloopClientError, match="is not being recorded"):
        client.stop_recording(client.sessions()[0]["name"])
