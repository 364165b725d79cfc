import asyncio
import os

import pytest

from neuroloop.server_config import SupervisionSettings
from neuroloop.session.supervision import Overseer, Restarts, how_it_ended, resident_mb


def test_the_first_restart_is_at_once_and_each_further_one_waits_twice_as_long():
    restarts = Restarts(SupervisionSettings(restarts=8, backoff_s=1.0))
    assert [restarts.delay_s(0.0) for _ in range(8)] == [0.0, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0, 10.0]


def test_after_the_limit_there_is_none_until_the_oldest_is_long_ago():
    restarts = Restarts(SupervisionSettings(restarts=2, within_s=60.0))
    assert [restarts.delay_s(now) for now in (0.0, 30.0, 59.9)] == [0.0, 0.25, None]
    assert restarts.delay_s(60.0) == 0.25
    assert restarts.delay_s(95.0) == 0.25
    assert restarts.count == 4


def test_how_a_process_ended_is_told_by_the_name_of_the_signal():
    assert how_it_ended(-9) == ("signal", "was ended by SIGKILL")
    assert how_it_ended(3) == ("exit", "ended with exit code 3")
    assert how_it_ended(-1)[0] == "exit"


def watched(settings, use, monkeypatch):
    monkeypatch.setattr("neuroloop.session.supervision.LOOK_EVERY_S", 0.02)
    killed = []

    async def run():
        overseer = Overseer(SupervisionSettings(**settings), os.getpid(), lambda: killed.append(1), "demo")
        watching = asyncio.create_task(overseer.watch())
        await use(overseer)
        await asyncio.wait_for(watching, 10)
        return overseer

    return asyncio.run(run()), killed


def test_a_process_beyond_its_memory_is_ended(monkeypatch):
    async def use(overseer):
        return

    overseer, killed = watched({"memory_mb": resident_mb(os.getpid()) / 2}, use, monkeypatch)
    assert (overseer.cause, killed) == ("memory", [1])
    assert "supervision.memory_mb" in overseer.detail


@pytest.mark.parametrize("is_patient", [False, True])
def test_silence_ends_a_process_that_predicts_but_not_one_that_may_be_compiling(monkeypatch, is_patient):
    async def use(overseer):
        overseer.heard(b"status" if is_patient else b"predictions")
        await asyncio.sleep(1.3)
        if is_patient:
            overseer.end()

    overseer, killed = watched({"hang_s": 1.0}, use, monkeypatch)
    assert (overseer.cause, killed) == ((None, []) if is_patient else ("hang", [1]))
