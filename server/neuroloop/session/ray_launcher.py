"""Starts session processes on nodes of a Ray cluster: an actor each, placed by resources; see `ray_session`.

Actors belong to the server's connection to the cluster, so they end with the server however it ends: such sessions do
not outlive it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import ray
import structlog
from ray import exceptions

from neuroloop.server_config import RaySessionSettings
from neuroloop.session.curve import new_keys
from neuroloop.session.launching import Endpoints, Lost
from neuroloop.session.ray_session import Ended, Placed, SessionActor

log = structlog.get_logger(__name__)

ASK_AGAIN_S = 1.0
FAILED = 1  # exit code of a process that could not be started


class RayLog:
    """The last lines of a session process, known when it has ended; until then they are in Ray's log."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def read(self) -> None:
        """There is nothing to pass on."""

    async def follow(self) -> None:
        """There is nothing to pass on."""


class RayProcess:
    """The session process behind an actor."""

    def __init__(self, name: str, actor: Any, placing: Any, server_key: str) -> None:
        """placing: reference to what the actor's `start` gives. server_key: see `Endpoints`."""
        self.returncode: int | None = None
        self.node: str | None = None
        self.log = RayLog()
        self.process = self
        self._name = name
        self._actor = actor
        self._server_key = server_key
        self._placed: asyncio.Future[Placed | None] = asyncio.get_running_loop().create_future()
        self._end = asyncio.create_task(self._follow(placing), name=f"{name}: actor")

    async def _follow(self, placing: Any) -> int:
        try:
            placed: Placed = await placing
            self.node = placed.node
            if placed.niceness > 0:
                advice = "start Ray on its node with RAY_worker_niceness=0"
                log.warning("session_has_low_priority", session=self._name, niceness=placed.niceness, advice=advice)
            self._placed.set_result(placed)
            ended = await self._ended()
        except exceptions.RayActorError as error:
            where = "before it had a node" if self.node is None else f"with its node {self.node}"
            raise Lost(f"session {self._name!r}: its process was lost {where} ({type(error).__name__})") from error
        except exceptions.RayError as error:  # of the actor's own code
            ended = Ended(FAILED, str(error).splitlines())
        finally:
            if not self._placed.done():
                self._placed.set_result(None)
            ray.kill(self._actor)
        self.log.lines = ended.lines
        self.returncode = ended.exit_code
        return ended.exit_code

    async def _ended(self) -> Ended:
        while True:
            try:
                ended: Ended = await self._actor.wait.remote()
                return ended
            except exceptions.ActorUnavailableError:  # it may be back; if not, Ray says that it died
                await asyncio.sleep(ASK_AGAIN_S)

    async def endpoints(self) -> Endpoints | None:
        placed = await asyncio.shield(self._placed)
        if placed is None or placed.endpoints is None:
            return None
        return placed.endpoints._replace(server_key=self._server_key)

    async def wait(self) -> int:
        """The exit code. Raises Lost where the actor has gone, and the process with it."""
        return await asyncio.shield(self._end)

    def terminate(self) -> None:
        if self.node is None:
            self.kill()
        else:
            self._actor.terminate.remote()

    def kill(self) -> None:
        ray.kill(self._actor)


class RayLauncher:
    """An actor for each session. One for which no node has room waits, and the session is starting."""

    def __init__(self, settings: RaySessionSettings, arguments: Sequence[str] = ()) -> None:
        """arguments: of the session process, beside its endpoints."""
        self._settings = settings
        self._arguments = arguments

    async def launch(self, first_line: dict[str, Any]) -> RayProcess:
        name = first_line["session"]["name"]
        wanted = self._settings
        actor = (
            ray.remote(SessionActor)
            .options(num_cpus=wanted.num_cpus, num_gpus=wanted.num_gpus, resources=wanted.resources, max_restarts=0)
            .remote()
        )
        keys = new_keys()
        told = first_line | {"lock": None, "keys": keys}  # the lock is a file of the server's machine
        return RayProcess(name, actor, actor.start.remote(self._arguments, told), keys.public)
