import asyncio
import sys
from pathlib import Path

import msgpack
import pytest

from neuroloop.config import LslSettings, SessionSettings
from neuroloop.errors import Unavailable
from neuroloop.session.launching import LocalLauncher, Lost
from neuroloop.session.supervisor import SessionProcess

FAKE = (sys.executable, str(Path(__file__).parents[1] / "api" / "fake_session.py"))


class Fragile:
    """A session process that can be lost."""

    def __init__(self, local):
        self.local, self.process, self.log = local, self, local.log
        self.node = f"node {local.pid}"
        self.lost = asyncio.Event()
        self.terminate, self.kill = local.process.terminate, local.process.kill
        self.endpoints = local.endpoints

    @property
    def returncode(self):
        return self.local.process.returncode

    async def wait(self):
        ended, lost = (asyncio.create_task(each.wait()) for each in (self.local.process, self.lost))
        await asyncio.wait([ended, lost], return_when=asyncio.FIRST_COMPLETED)
        if lost.done():
            ended.cancel()
            self.local.process.kill()
            raise Lost(f"{self.node} was lost")
        lost.cancel()
        return ended.result()


class Cluster:
    """Launches fragile processes, and keeps what it told them."""

    def __init__(self):
        self.told, self.launched = [], []

    async def launch(self, first_line):
        self.told.append(dict(first_line))
        self.launched.append(Fragile(await LocalLauncher(FAKE).launch(first_line)))
        return self.launched[-1]


def supervised(use, **settings):
    async def run():
        cluster, messages, losses = Cluster(), [], []

        def lose(reason):
            losses.append(reason)
            return 70

        session = {"name": "demo", "stream": {"name": "x"}, "classes": ["a", "b"], "bin_ms": 5, **settings}
        process = SessionProcess(
            SessionSettings.model_validate(session),
            LslSettings(),
            lambda topic, packed: messages.append((topic, msgpack.unpackb(packed))),
            lambda failure: messages.append(("failure", failure)),
            cluster,
            on_loss=lose,
        )
        await process.start()
        try:
            await asyncio.wait_for(process.ready.wait(), 10)
            await asyncio.wait_for(use(process, cluster, messages, losses), 20)
        finally:
            await process.stop()
            assert all(one.local.process.returncode is not None for one in cluster.launched)

    asyncio.run(run())


async def lose(process, cluster):
    cluster.launched[-1].lost.set()
    while not process.losses or process.state != "ready":
        await asyncio.sleep(0.005)


def test_a_process_that_is_lost_with_its_node_is_launched_anew_and_told_from_which_bin_to_go_on():
    async def use(process, cluster, messages, losses):
        run, node = process.run, process.node
        hanging = asyncio.create_task(process.command("label", label="hang"))
        await asyncio.sleep(0.05)
        await lose(process, cluster)
        with pytest.raises(Unavailable, match="was lost"):
            await hanging
        assert losses == [f"{node} was lost"]
        assert ("seq" in cluster.told[0], cluster.told[1]["seq"]) == (False, 70)
        assert (process.run, process.losses) == (run, 1)
        assert process.node != node
        assert (await process.command("status"))["state"] == "running"
        assert "failure" not in [topic for topic, _ in messages]

    supervised(use)


def test_a_session_that_was_stopped_stays_so_on_another_node():
    async def use(process, cluster, messages, _):
        await process.command("stop")
        told = len(messages)
        while not any(topic == "status" and status["state"] == "stopped" for topic, status in messages[told:]):
            await asyncio.sleep(0.01)
        await lose(process, cluster)
        assert cluster.told[1]["session"]["autostart"] is False
        assert (await process.command("status"))["state"] == "stopped"

    supervised(use)
