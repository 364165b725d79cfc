"""Runs fits as tasks of a Ray cluster: a job's files go to a node; messages come back while it runs, then the result.

A fit that loses its node goes on from its last checkpoint on another one, or begins anew where it writes none,
`max_retries` times. Ray's own retries would repeat the messages of a task without saying so; here the job is told.
No disk is shared: each checkpoint comes here through Ray's object store, is kept in the job's folder, and goes out with
the data.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import ray
import structlog
from numpy.typing import NDArray
from ray import exceptions

from neuroloop.errors import ModelError
from neuroloop.server_config import RayFitSettings
from neuroloop.training import ray_fit, search
from neuroloop.training.executor import GRACE_S, NodeLost, OnMessage, OnStart
from neuroloop.training.job import (
    CHECKPOINT,
    FILE,
    INPUT,
    RECORDING,
    RESULT,
    WEIGHTS,
    candidate_name,
    load,
    part_name,
    write_whole,
)
from neuroloop.training.messages import Moved, Progress, Resumed
from neuroloop.training.ray_fit import Ended, Kept, Placed
from neuroloop.training.ray_shared import LOSSES, Lost, Work, run_shared, together
from neuroloop.training.request import FitRequest
from neuroloop.training.settings import workers_of

T = TypeVar("T")

log = structlog.get_logger(__name__)


class RayExecutor:
    """A Ray task for each fit; see `ray_fit`."""

    def __init__(self, settings: RayFitSettings, program: Sequence[str] | None = None) -> None:
        """program: the command line of a fit process, without the job's folder; by default that of the node."""
        self._settings = settings
        self._program = program

    def check(self, request: FitRequest) -> None:
        """Raises ModelError where the fit is to be shared by more processes than the cluster has room for."""
        workers, wanted = workers_of(request), self._settings.num_cpus
        cpus: float = ray.cluster_resources().get("CPU", 0.0)
        if workers > 1 and workers * wanted > cpus:
            raise ModelError(
                f"settings of {request.kind!r}: training.workers: {workers} of {wanted:g} CPUs each (ray.fit.num_cpus) "
                f"are more than the cluster's {cpus:g}"
            )

    async def run(self, folder: Path, on_start: OnStart, on_message: OnMessage) -> None:
        """As `Executor.run`. Raises NodeLost that names the node where it was lost once too often."""
        given = [folder / FILE, folder / INPUT, *folder.glob(f"{RECORDING}.*")]
        files = {path.name: await asyncio.to_thread(_put, path) for path in given if path.exists()}
        job = await asyncio.to_thread(load, folder)
        if job is not None and job.request.search is not None:
            await self._search(job.request, folder, files, on_start, on_message)
            return
        files |= await self._measure(folder, files, on_start, on_message)
        workers = 1 if job is None else workers_of(job.request)
        work = Work(folder.name, (), files, (WEIGHTS, RESULT), folder / CHECKPOINT, workers)
        made = await self._carry_out(work, on_start, on_message)
        for name in (WEIGHTS, RESULT):
            await asyncio.to_thread(write_whole, folder / name, (await made[name]).tobytes())

    async def _measure(
        self, folder: Path, files: dict[str, Any], on_start: OnStart, on_message: OnMessage
    ) -> dict[str, Any]:
        """The parts of a fit from several recordings, each measured by a task of its own."""
        links = sorted(folder.glob(f"{RECORDING}-*"))
        ready = 0

        def started(pid: int, node: str | None) -> None:
            on_start(pid, node)
            on_message(Progress(progress=ready / len(links)))

        async def measure(index: int, link: Path, room: asyncio.Semaphore) -> tuple[str, Any]:
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

        room = asyncio.Semaphore(self._room())  # no more recordings than this wait in the cluster's memory
        return dict(await _all(measure(*numbered, room) for numbered in enumerate(links)))

    async def _search(
        self, request: FitRequest, folder: Path, files: dict[str, Any], on_start: OnStart, on_message: OnMessage
    ) -> None:
        """Have every candidate that is not yet fitted by a task, or several that share it, and choose."""
        candidates, behind = request.candidates, search.done(request, folder)
        ready = len(behind)
        if behind:
            on_message(Resumed(progress=ready / len(candidates)))

        def started(pid: int, node: str | None) -> None:
            on_start(pid, node)
            on_message(Progress(progress=ready / len(candidates)))

        async def one(number: int, room: asyncio.Semaphore) -> None:
            nonlocal ready
            name, kept = candidate_name(number), folder / f"{CHECKPOINT}-{number:04}"
            only, workers = ("--only", str(number)), workers_of(candidates[number])
            async with room:
                work = Work(f"{folder.name}, {number}", only, files, (name,), kept, workers)
                made = await self._carry_out(work, started, lambda _: None)
                await asyncio.to_thread(write_whole, folder / name, (await made[name]).tobytes())
                await asyncio.to_thread(kept.unlink, missing_ok=True)
            ready += 1
            on_message(Progress(progress=ready / len(candidates)))

        room = asyncio.Semaphore(max(1, self._room() // workers_of(request)))
        await _all(one(number, room) for number in range(len(candidates)) if number not in behind)
        await asyncio.to_thread(search.settle, request, folder)

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
        if work.checkpoint is not None and work.checkpoint.exists():
            kept = await asyncio.to_thread(_put, work.checkpoint)
            work = replace(work, files={**work.files, CHECKPOINT: kept})
        if work.workers == 1:
            return await self._run_one(work, on_start, on_message)
        async with together(self._settings, work.workers) as places:
            return await run_shared(partial(self._run_one, on_message=on_message), work, places, on_start)

    async def _run_one(self, work: Work, on_start: OnStart, on_message: OnMessage, place: Any = None) -> dict[str, Any]:
        """One process. place: Ray's scheduling strategy, by default wherever there is room. Raises Lost."""
        options = {
            "num_cpus": self._settings.num_cpus,
            "num_gpus": self._settings.num_gpus,
            "max_retries": 0,
            "num_returns": "streaming",
            "name": f"fit {work.name}",
            "scheduling_strategy": place,
        }
        task = ray.remote(ray_fit.run).options(**options).remote(self._program, work.arguments, work.files, work.wanted)
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


async def _all(works: Iterable[Coroutine[Any, Any, T]]) -> list[T]:
    """What all of them give; with the first that fails, the others end."""
    tasks = [asyncio.create_task(work) for work in works]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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
