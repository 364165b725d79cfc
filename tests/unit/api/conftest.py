"""A real server over fake session processes, for the tests of this folder."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.processes import wait_until
from websockets.sync.client import ClientConnection, connect

FAKE_SERVER = Path(__file__).with_name("fake_server.py")
Server = tuple[str, subprocess.Popen[str]]


def settings_of(name: str, **more: Any) -> dict[str, Any]:
    decoders = [{"name": "main"}, {"name": "other", "role": "shadow"}]
    stream = {"name": f"{name}-stream"}
    return {"name": name, "stream": stream, "classes": ["left", "right"], "decoders": decoders, "bin_ms": 10, **more}


@contextmanager
def serve(*sessions: dict[str, Any], port: int = 0, **more: Any) -> Iterator[Server]:
    settings = {"port": port, "sessions": sessions, "supervision": {"restarts": 0}, **more}
    command = [sys.executable, str(FAKE_SERVER), json.dumps(settings)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().rpartition(" ")[2].strip(), process
        finally:
            process.terminate()


@pytest.fixture
def session_settings() -> Callable[..., dict[str, Any]]:
    return settings_of


@pytest.fixture
def running_server() -> Callable[..., AbstractContextManager[Server]]:
    """Starts a server of the test's own: its address, empty if it did not come up, and its process."""
    return serve


@pytest.fixture(scope="module")
def server_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("server")  # not the default: there are the models of other tests' servers
    with serve(settings_of("demo"), folder=str(folder)) as (url, _), httpx.Client(base_url=url) as http:
        wait_until(lambda: http.get("/readyz").is_success)
        yield url


@pytest.fixture
def http(server_url: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server_url) as client:
        yield client


@pytest.fixture
def new_session(http: httpx.Client, unique_name: str) -> Iterator[str]:
    """The name of a session that only this test uses; its process answers."""
    assert http.post("/v1/sessions", json=settings_of(unique_name)).status_code == 201
    wait_until(lambda: http.get(f"/v1/sessions/{unique_name}").json()["state"] == "running")
    yield unique_name
    http.delete(f"/v1/sessions/{unique_name}")


@pytest.fixture
def open_stream(server_url: str) -> Iterator[Callable[..., ClientConnection]]:
    """Opens the stream of a session; the connections are closed at the end of the test."""
    with ExitStack() as connections:

        def open_one(session: str, query: str = "", **options: Any) -> ClientConnection:
            url = f"ws{server_url.removeprefix('http')}/v1/sessions/{session}/stream?{query}"
            return connections.enter_context(connect(url, close_timeout=0.2, **options))

        yield open_one
