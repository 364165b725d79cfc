"""Live results over connections that break and servers that are killed: real sockets, real processes."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.processes import wait_until
from tests.unit.api.conftest import serve, settings_of

from neuroloop_client import AsyncClient, Client, LiveStream, NeuroloopClientError

pytestmark = pytest.mark.timeout(90)

TOPICS = ("predictions", "rates", "events")
EXAMPLES = Path(__file__).parents[3] / "clients" / "python" / "examples"


class Line:
    """A TCP line to a server that can be cut."""

    def __init__(self, url: str) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._server = host, int(port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                near, _ = self._listener.accept()
                far = socket.create_connection(self._server)
                self._sockets += [near, far]
                for source, sink in ((near, far), (far, near)):
                    threading.Thread(target=self._carry, args=(source, sink), daemon=True).start()

    @staticmethod
    def _carry(source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                sink.sendall(data)

    def cut(self) -> None:
        for one in self._sockets:
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
        self._sockets.clear()

    def close(self) -> None:
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread in `accept`
        self._listener.close()
        self.cut()


@pytest.fixture
def line(server_url: str) -> Iterator[Line]:
    line = Line(server_url)
    yield line
    line.close()


def kill(process: subprocess.Popen[str]) -> None:
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)


def port_of(url: str) -> int:
    return int(url.rpartition(":")[2])


def is_ready(url: str) -> Callable[[], bool]:
    return lambda: httpx.get(f"{url}/readyz").is_success


def receive(live: LiveStream, count: int) -> list[Any]:
    return [live.receive(20) for _ in range(count)]


def assert_complete(messages: list[Any]) -> None:
    """No message came twice; the bins that are missing are those that `lagged` told."""
    bins = [m for m in messages if m["type"] in ("prediction", "rates")]
    names = [(m["seq"], m["type"], m.get("decoder")) for m in bins]
    assert len(set(names)) == len(names)
    seqs = [m["seq"] for m in bins]
    assert seqs == sorted(seqs)
    told = sum(m["missed"] for m in messages if m["type"] == "lagged")
    assert seqs[-1] - seqs[0] + 1 - len(set(seqs)) == told


def test_a_line_that_is_cut_again_and_again_costs_no_message(line: Line) -> None:
    with Client(line.url) as client, client.live("demo", TOPICS) as live:
        messages: list[Any] = []
        for _ in range(6):
            messages += receive(live, 41)
            line.cut()
        messages += receive(live, 41)
    assert_complete(messages)
    assert {m["type"] for m in messages} <= {"prediction", "rates", "event"}


def test_a_server_that_is_killed_costs_what_it_says_while_the_session_goes_on(tmp_path: Path) -> None:
    options: dict[str, Any] = {"folder": str(tmp_path), "outlive_s": 30}
    with serve(settings_of("a"), **options) as (url, process):
        wait_until(is_ready(url))
        client = Client(url)
        live = client.live("a", TOPICS)
        messages, run = receive(live, 50), live.run
        kill(process)
    with serve(port=port_of(url), **options), client, live:
        messages += receive(live, 200)
        assert live.run == run
        client.delete("a")
    assert_complete(messages)


def test_a_session_that_was_started_anew_is_told_as_another_run(tmp_path: Path) -> None:
    with serve(settings_of("a"), folder=str(tmp_path / "one"), outlive_s=0.1) as (url, process):
        wait_until(is_ready(url))
        client = Client(url)
        live = client.live("a")
        before, run = receive(live, 20), live.run
        kill(process)
    with serve(settings_of("a"), port=port_of(url), folder=str(tmp_path / "two")), client, live:
        while (message := live.receive(20))["type"] == "prediction":  # what was on its way
            before.append(message)
        after = receive(live, 20)
    assert message == {"type": "new_run", "run": live.run, "previous_run": run}
    assert_complete(before)
    assert_complete(after)


def test_an_asynchronous_client_goes_on_over_the_same(tmp_path: Path) -> None:
    options: dict[str, Any] = {"folder": str(tmp_path), "outlive_s": 30}

    async def take(predictions: Any, count: int) -> list[Any]:
        return [await asyncio.wait_for(anext(predictions), 30) for _ in range(count)]

    async def run() -> list[Any]:
        with serve(settings_of("a"), **options) as (url, process):
            await asyncio.to_thread(wait_until, is_ready(url))
            client = AsyncClient(url)
            predictions = client.predictions("a", "other")
            messages = await take(predictions, 20)
            kill(process)
        with serve(port=port_of(url), **options):
            messages += await take(predictions, 20)
            await client.delete("a")
            messages += [message async for message in predictions]  # it ends with the session
            await client.close()
        return messages

    messages = asyncio.run(run())
    seqs = [message["seq"] for message in messages]
    assert seqs == sorted(set(seqs))
    assert {message["decoder"] for message in messages} == {"other"}


def test_patience_has_an_end(line: Line) -> None:
    with Client(line.url) as client, client.live("demo", patience_s=0.3) as live:
        receive(live, 3)
        line.close()
        with pytest.raises(NeuroloopClientError, match="does not answer"):
            receive(live, 1000)


def test_the_predictions_of_a_session_end_with_it(server_url: str, unique_name: str) -> None:
    with Client(server_url) as client:
        client.create({"name": unique_name, "stream": {"type": "EEG"}, "classes": ["a", "b"], "bin_ms": 10})
        predictions = client.predictions(unique_name)
        first = next(predictions)
        client.delete(unique_name)
        rest = list(predictions)
        assert [p["role"] for p in (first, *rest)] == ["active"] * (1 + len(rest))
        with pytest.raises(NeuroloopClientError, match=unique_name):
            next(client.predictions(unique_name))


def test_a_program_without_lsl_knows_its_time(server_url: str) -> None:
    async def asynchronous() -> float:
        async with AsyncClient(server_url) as client:
            return (await client.clock(3)).offset

    with Client(server_url) as client:
        clock = client.clock()
        before, server, after = clock.now(), client.info()["clock"], clock.now()
    assert before - clock.uncertainty <= server <= after + clock.uncertainty
    assert abs(asyncio.run(asynchronous()) - clock.offset) < 1.0


def test_the_game_of_the_examples_is_played(server_url: str) -> None:
    program = f"import game; print(game.play('demo', 3, {server_url!r}, 0.05))"
    result = subprocess.run([sys.executable, "-c", program], cwd=EXAMPLES, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("think: ") == 3
