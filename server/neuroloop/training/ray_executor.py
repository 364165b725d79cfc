"""Runs fits as tasks of a Ray cluster: a job's files go to a node; messages come back while it runs, then the result.

A fit that loses its node goes on from its last checkpoint on another one, or begins anew where it writes none,
`max_retries` times. Ray's own retries would repeat the messages of a task without saying so; here the job is told.
No disk is shared: each checkpoint comes here through Ray's object store, is kept in the job's folder, and goes out with
the data.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import ray
import structlog
from numpy.typing import NDArray
from ray import exceptions

from neuroloop.server_config import RayFitSettings
from neuroloop.training import ray_fit
from neuroloop.training.executor import GRACE_S, NodeLost, OnMessage, OnStart
from neuroloop.training.job import CHECKPOINT, FILE, INPUT, RECORDING, RESULT, WEIGHTS, part_name, write_whole
from neuroloop.training.messages import Moved, Progress, Resumed
from neuroloop.training.ray_fit import Ended, Kept, Placed

log = structlog.get_logger(__name__)

LOSSES = (
    exceptions.WorkerCrashedError,
    exceptions.NodeDiedError,
    exceptions.LocalRayletDiedError,
    exceptions.OutOfMemoryError,
    exceptions.ObjectLostError,
)


class Lost(Exception):
    """The node of a fit, or its worker there, has gone."""


@dataclass(frozen=True)
class Work:
    """What one fit process is to do.

    arguments: of its command line. files: what it is given, as references. wanted: the files that it is to make.
    checkpoint: the file, here, that it goes on from; None for what is soon done again.
    """

    name: str
    arguments: tuple[str, ...]
    files: Mapping[str, Any]
    wanted: tuple[str, ...]
    checkpoint: Path | None = None


class RayExecutor:
    """A Ray task for each fit; see `ray_fit`."""

    def __init__(self, settings: RayFitSettings, program: Sequence[str] | None = None) -> None:
        """program: the command line of a fit process, without the job's folder; by default that of the node."""
        self._settings = settings
        self._program = program

    async def run(self, folder: Path, on_start: OnStart, on_message: OnMessage) -> None:
        """As `Executor.run`. Raises NodeLost that names the node where it was lost once too often."""
        given = [folder / FILE, folder / INPUT, *folder.glob(f"{RECORDING}.*")]
        files = {path.name: await asyncio.to_thread(_put, path) for path in given if path.exists()}
        files |= await self._measure(folder, files, on_start, on_message)
        work = Work(folder.name, (), files, (WEIGHTS, RESULT), folder / CHECKPOINT)
        made = await self._carry_out(work, on_start, on_message)
        for name in (WEIGHTS, RESULT):
            await asyncio.to_thread(write_whole, folder / name, (await made[name]).tobytes())

    async def _measure(
        self, folder: Path, files: dict[str, Any], on_start: OnStart, on_message: OnMessage
    ) -> dict[str, Any]:
        """The parts of a fit from several recordings, each measured by a task of its own."""
        links = sorted(folder.glob(f"{RECORDING}-*"))
        ready = 0
        room = asyncio.Semaphore(self._room())  # no more recordings than this wait in the cluster's memory

        def started(pid: int, node: str | None) -> None:
            on_start(pid, node)
            on_message(Progress(progress=ready / len(links)))

        async def measure(index: int, link: Path) -> tuple[str, Any]:
            nonlocal ready
            name = part_name(index)
            async with room:
                given = {FILE: files[FILE], link.name: await asyncio.to_thread(_put, link)}
                work = Work(f"{folder.name}, {link.name}", ("--only", str(index)), given, (name,))
                made = await self._carry_out(work, started, lambda _: None)
                kept = ray.put(await made[name])  # on the server's own node, which is there as long as the fit
            ready += 1
            on_message(Progress(progress=ready / len(links)))
            return name, kept

        tasks = [asyncio.create_task(measure(*numbered)) for numbered in enumerate(links)]
        try:
            return dict(await asyncio.gather(*tasks))
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def _room(self) -> int:
        cpus: float = ray.cluster_resources().get("CPU", 1.0)
        return max(1, round(2 * cpus / max(self._settings.num_cpus, 0.1)))

    async def _carry_out(self, work: Work, on_start: OnStart, on_message: OnMessage) -> dict[str, Any]:
        """References to the wanted files, made by the fit process, if need be by another one."""
        left = self._settings.max_retries
        while True:
            try:
                return await self._run_once(work, on_start, on_message)
            except Lost as lost:
                log.warning("fit_lost_its_node", fit=work.name, detail=str(lost), retries_left=left)
                if not left:
                    raise NodeLost(f"fit: {lost}; ray.fit.max_retries: {self._settings.max_retries}") from lost
                left -= 1
                on_message(Moved())

    async def _run_once(self, work: Work, on_start: OnStart, on_message: OnMessage) -> dict[str, Any]:
        """The same, once. Raises Lost."""
        options = {
            "num_cpus": self._settings.num_cpus,
            "num_gpus": self._settings.num_gpus,
            "max_retries": 0,
            "num_returns": "streaming",
            "name": f"fit {work.name}",
        }
        files = dict(work.files)
        if work.checkpoint is not None and work.checkpoint.exists():
            files[CHECKPOINT] = await asyncio.to_thread(_put, work.checkpoint)
        task = ray.remote(ray_fit.run).options(**options).remote(self._program, work.arguments, files, work.wanted)
        node = "a node that it had not reached"
        try:
            async for reference in task:
                said = await reference
                if isinstance(said, Placed):
                    node = said.node
                    on_start(said.pid, node)
                elif isinstance(said, Progress | Resumed):
                    on_message(said)
                elif isinstance(said, Kept):
                    content = await (await anext(task))
                    if work.checkpoint is not None:
                        await asyncio.to_thread(_keep, work.checkpoint, content)
                elif isinstance(said, Ended):
                    if said.error is not None:
                        raise said.error
                    return {file: await anext(task) for file in said.files}
        except LOSSES as error:
            raise Lost(f"node {node} was lost during the fit ({type(error).__name__})") from error
        finally:
            await _end(task)
        raise Lost(f"node {node} ended the fit without a result")


def _put(path: Path) -> Any:
    """A reference to the content of a file; a link is followed."""
    return ray.put(np.fromfile(path, np.uint8))


def _keep(path: Path, content: NDArray[np.uint8]) -> None:
    try:
        write_whole(path, content.tobytes())
    except OSError as error:  # the fit goes on without it
        log.warning("checkpoint_not_written", path=str(path), error=str(error))


async def _end(task: Any) -> None:
    """Return when the task has ended: interrupted, and after twice the fit process' own grace killed."""
    for force in (False, True):
        ended = task.completed()
        ray.cancel(task, force=force)
        with suppress(TimeoutError):
            with suppress(exceptions.RayError):
                await asyncio.wait_for(ended, 2 * GRACE_S + 1.0)
            return
