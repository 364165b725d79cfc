import json
import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.processes import wait_until
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

Serve = Callable[..., Any]


def children(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def has_ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_and_its_sessions_cleanly(
    running_server: Serve, session_settings: Serve, end: signal.Signals
) -> None:
    with running_server(session_settings("a"), session_settings("b", autostart=False)) as (url, process):
        wait_until(lambda: httpx.get(f"{url}/readyz").is_success)
        sessions = children(process.pid)
        with connect(f"ws{url.removeprefix('http')}/v1/sessions/a/stream") as stream:
            process.send_signal(end)
            assert process.wait(10) == 0
            with pytest.raises(ConnectionClosed):
                deque(stream, maxlen=0)
        assert "Traceback" not in process.stderr.read()
    assert len(sessions) == 2
    assert all(has_ended(pid) for pid in sessions)


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)


def predictions(url: str, count: int, query: str = "") -> list[dict[str, Any]]:
    with connect(f"ws{url.removeprefix('http')}/v1/sessions/a/stream{query}") as stream:
        return [json.loads(stream.recv(timeout=10)) for _ in range(count)]


def test_sessions_go_on_when_the_server_is_killed_and_the_next_one_finds_them(
    running_server: Serve, session_settings: Serve, tmp_path: Path
) -> None:
    settings: dict[str, Any] = {"folder": str(tmp_path), "outlive_s": 30}
    with running_server(session_settings("a"), **settings) as (url, process):
        wait_until(lambda: httpx.get(f"{url}/readyz").is_success)
        [session] = children(process.pid)
        before = predictions(url, 5)[-1]["seq"]
        run = httpx.get(f"{url}/v1/sessions/a").json()["run"]
        kill(process)
    port = int(url.rpartition(":")[2])
    with running_server(session_settings("a", bin_ms=50), port=port, **settings) as (url, process):
        wait_until(lambda: httpx.get(f"{url}/readyz").is_success)
        assert not has_ended(session)
        assert children(process.pid) == []
        assert httpx.get(f"{url}/v1/sessions/a").json()["settings"]["bin_ms"] == 10
        seqs = [prediction["seq"] for prediction in predictions(url, 40) if prediction["role"] == "active"]
        assert seqs == list(range(seqs[0], seqs[-1] + 1))
        assert seqs[0] > before
        resumed = predictions(url, 3, f"?resume_from={before}&run={run}")
        assert resumed[0]["missed"] == resumed[0]["oldest_seq"] - before
        assert resumed[1]["seq"] == resumed[0]["oldest_seq"]
        assert httpx.post(f"{url}/v1/sessions/a/stop").json()["state"] == "stopped"
        kill(process)
    with running_server(port=port, **settings) as (url, process):
        wait_until(lambda: httpx.get(f"{url}/readyz").is_success)
        wait_until(lambda: httpx.get(f"{url}/v1/sessions/a").json()["state"] == "stopped")
        assert httpx.delete(f"{url}/v1/sessions/a").status_code == 204
        wait_until(lambda: has_ended(session))
        process.terminate()
        assert process.wait(10) == 0
    assert [path.name for path in (tmp_path / "servers" / f"127.0.0.1-{port}").iterdir()] == ["lock"]


def test_a_session_that_was_found_and_dies_is_reported(
    running_server: Serve, session_settings: Serve, tmp_path: Path
) -> None:
    with running_server(session_settings("a"), folder=str(tmp_path)) as (url, process):
        wait_until(lambda: httpx.get(f"{url}/readyz").is_success)
        kill(process)
    with running_server(port=int(url.rpartition(":")[2]), folder=str(tmp_path)) as (url, _):
        wait_until(lambda: httpx.get(f"{url}/v1/sessions/a").json()["state"] == "running")
        httpx.post(f"{url}/v1/sessions/a/labels", json={"label": "die"})
        wait_until(lambda: httpx.get(f"{url}/v1/sessions/a").json()["state"] == "failed")
        assert "no more samples" in httpx.get(f"{url}/v1/sessions/a").json()["detail"]


def test_sessions_end_when_no_server_comes(running_server: Serve, session_settings: Serve, tmp_path: Path) -> None:
    with running_server(session_settings("a"), folder=str(tmp_path), outlive_s=0.2) as (url, process):
        wait_until(lambda: httpx.get(f"{url}/readyz").is_success)
        [session] = children(process.pid)
        kill(process)
        wait_until(lambda: has_ended(session))
    with running_server(port=int(url.rpartition(":")[2]), folder=str(tmp_path)) as (url, _):
        assert httpx.get(f"{url}/v1/sessions").json() == []


def test_a_port_in_use_is_one_clear_line(running_server: Serve, server_url: str) -> None:
    port = int(server_url.rpartition(":")[2])
    with running_server(port=port) as (url, process):
        assert process.wait(10) != 0
        error = process.stderr.read()
    assert url == ""
    assert error.count("\n") == 1
    assert f"port {port} of 127.0.0.1 is in use" in error


def test_the_server_is_ready_only_when_every_autostarted_session_answers(
    running_server: Serve, session_settings: Serve
) -> None:
    with running_server(session_settings("a")) as (url, _):
        reasons = httpx.get(f"{url}/readyz").json()
        wait_until(lambda: httpx.get(f"{url}/readyz").is_success)
        assert httpx.get(f"{url}/v1/sessions/a/status").json()["stream"]["state"] == "searching"
    assert reasons.get("reasons", ["session 'a' is starting"]) == ["session 'a' is starting"]


def test_clients_that_go_away_leave_no_trace_in_the_log(running_server: Serve, session_settings: Serve) -> None:
    with running_server(session_settings("a")) as (url, process):
        wait_until(lambda: httpx.get(f"{url}/readyz").is_success)
        for _ in range(5):
            with connect(f"ws{url.removeprefix('http')}/v1/sessions/a/stream") as stream:
                stream.recv(timeout=10)
                stream.socket.shutdown(socket.SHUT_RDWR)
        with connect(f"ws{url.removeprefix('http')}/v1/sessions/a/stream") as stream:
            received = [stream.recv(timeout=10) for _ in range(20)]
        process.terminate()
        assert process.wait(10) == 0
        assert process.stderr.read() == ""
    assert len(received) == 20


def test_the_api_imports_neither_torch_nor_numba() -> None:
    program = "import sys, neuroloop.api.server; print(sorted({'torch', 'numba', 'scipy'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
