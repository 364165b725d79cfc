import asyncio
import socket

import pytest

from neuroloop import notify


@pytest.fixture
def systemd(tmp_path, monkeypatch):
    path = str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(path)
        heard.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", path)
        yield heard


def test_the_server_says_that_it_is_ready_to_whoever_listens(systemd):
    assert notify.tell(notify.READY)
    assert systemd.recv(100) == b"READY=1"


def test_without_systemd_nobody_is_told(monkeypatch):
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    assert not notify.tell(notify.READY)
    monkeypatch.setenv("NOTIFY_SOCKET", "/nonexistent/socket")
    assert not notify.tell(notify.READY)


def test_the_watchdog_hears_twice_in_its_time(systemd, monkeypatch):
    monkeypatch.setenv("WATCHDOG_USEC", "40000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    assert notify.watchdog_s() == 0.02

    async def run():
        alive = asyncio.create_task(notify.keep_alive())
        await asyncio.sleep(0.1)
        alive.cancel()

    asyncio.run(run())
    assert [systemd.recv(100) for _ in range(3)] == [b"WATCHDOG=1"] * 3
    monkeypatch.setenv("WATCHDOG_PID", "1")
    assert notify.watchdog_s() is None
