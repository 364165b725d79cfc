"""Sessions on a real Ray cluster of two nodes on this machine, driven through a real server."""

import contextlib
import json
import os
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from tests import processes
from tests.integration.conftest import ALL, COUNTS
from tests.integration.ray_cluster import gone
from tests.processes import wait_until
from websockets.sync.client import connect

pytest.importorskip("ray")
pytestmark = pytest.mark.slow


@contextmanager
def serving(folder, cluster):
    config = processes.write_config(folder, engine="ray", ray={"address": cluster.address, "fit": {"num_cpus": 0.5}})
    with processes.serving(config) as (url, process), httpx.Client(base_url=url, timeout=30) as http:
        yield http, process


def settings_of(name):
    return {"name": name, "stream": {"name": name}, "front_end": COUNTS, "classes": ALL, "outlets": {"enabled": False}}


def bins(http, name):
    return http.get(f"/v1/sessions/{name}/status").json().get("seq", 0)


def test_a_session_whose_node_is_killed_goes_on_elsewhere_and_seq_with_it(cluster, tmp_path, open_source, unique_name):
    source = open_source(unique_name)
    with serving(tmp_path, cluster) as (http, process), ExitStack() as connections:
        assert http.get("/v1/info").json()["engine"] == "ray"
        path = http.post("/v1/sessions", json=settings_of(unique_name)).headers["Location"]
        address = f"ws://{http.base_url.netloc.decode()}{path}/stream?topics=predictions,events"
        live = connections.enter_context(connect(address, close_timeout=0.2))
        source.wait_for_consumers()
        heard = []

        def until(condition, what):
            """Reads meanwhile: a client that leaves messages lying hears no pong either, and gives up after 40 s."""
            wait_until(lambda: heard.extend(arrived(live)) or condition(), what)

        def push_until(seq):
            until(lambda: source.push(np.ones((20, 4), np.float32)) or bins(http, unique_name) >= seq, "bins")

        push_until(50)
        first = http.get(path).json()
        orphans = sessions_on_nodes()
        cluster.kill(first["node"])
        until(lambda: http.get(path).json()["node"] not in (None, first["node"]), "another node")
        until(lambda: http.get(path).json()["state"] == "running", "the session on another node")
        second = http.get(path).json()
        assert [gone(pid) for pid in orphans] == [True]
        assert second["run"] == first["run"]
        push_until(bins(http, unique_name) + 50)
        last = http.get(f"{path}/predictions/latest").json()["seq"]
        assert last >= 99
        until(lambda: max(seqs_of(heard)) >= last, "the last prediction")
        seqs = seqs_of(heard)
        assert seqs == list(range(seqs[0], seqs[-1] + 1))
        (gap,) = [message for message in heard if message.get("event") == "gap" and "first_seq" in message]
        assert first["node"] in gap["detail"]
        assert 50 <= gap["first_seq"] < last
        assert http.delete(path).status_code == 204
    assert process.returncode == 0


def test_sessions_end_with_their_server_also_one_that_is_killed(cluster, tmp_path, unique_name):
    with serving(tmp_path, cluster) as (http, process):
        path = http.post("/v1/sessions", json=settings_of(unique_name)).headers["Location"]
        wait_until(lambda: http.get(path).json()["state"] == "running", "the session")
        wait_until(lambda: len(sessions_on_nodes()) == 1, "its process alone")
        (pid,) = sessions_on_nodes()
        assert os.getpriority(os.PRIO_PROCESS, pid) <= 0  # whatever Ray gives its workers
        process.kill()
        process.wait()
    assert gone(pid)


def seqs_of(messages):
    return [message["seq"] for message in messages if message["type"] == "prediction"]


def arrived(live):
    """The messages that wait to be read."""
    with contextlib.suppress(TimeoutError):
        while True:
            yield json.loads(live.recv(0))


def sessions_on_nodes():
    """The session processes of this cluster: endpoints on TCP, and its folder for temporary files."""
    own, found = f"TMPDIR={os.environ['TMPDIR']}".encode(), []
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (path / "cmdline").read_text()
            is_own = own in (path / "environ").read_bytes().split(b"\0")
            if "neuroloop.session" in command and "tcp://127.0.0.1" in command and is_own:
                found.append(int(path.name))
    return found
