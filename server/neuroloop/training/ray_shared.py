"""Fits that several processes share, over the nodes of a Ray cluster: placed together, ended together.

Plain tasks in a placement group, and PyTorch's gloo between them (`meeting`): Ray Train would bring pandas, pyarrow and
its own checkpoints, on a disk that all nodes share. A placement group is there as a whole or not at all, so two fits
never wait for each other's second half; its places are on different nodes where there are so many.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray import exceptions
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from neuroloop.server_config import RayFitSettings
from neuroloop.training import ray_fit
from neuroloop.training.executor import OnStart
from neuroloop.training.messages import Parted

REASON_S = 30.0  # that the loss of a node may be known later than that its processes have gone

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
    checkpoint: the file, here, that it goes on from; None for what is soon done again. workers: how many share it.
    """

    name: str
    arguments: tuple[str, ...]
    files: Mapping[str, Any]
    wanted: tuple[str, ...]
    checkpoint: Path | None = None
    workers: int = 1


# Runs one process: its work, whom to tell where it is, and its place.
RunOne = Callable[..., Awaitable[dict[str, Any]]]


@asynccontextmanager
async def together(settings: RayFitSettings, count: int) -> AsyncIterator[list[Any]]:
    """Places for so many processes, when there is room for all of them."""
    wanted = {"CPU": settings.num_cpus, "GPU": settings.num_gpus}
    bundle = {name: amount for name, amount in wanted.items() if amount} or {"CPU": 0.001}
    group = ray.util.placement_group([bundle] * count, strategy="SPREAD")
    try:
        await group.ready()
        yield [PlacementGroupSchedulingStrategy(group, number) for number in range(count)]
    except LOSSES as error:
        raise Lost(f"a node was lost before the fit began ({type(error).__name__})") from error
    finally:
        ray.util.remove_placement_group(group)


async def run_shared(run_one: RunOne, work: Work, places: list[Any], on_start: OnStart) -> dict[str, Any]:
    """What the first process makes. on_start: told its id, and the nodes of all. Raises what ended the fit, or Lost."""
    find = ray.remote(ray_fit.meeting_place).options(num_cpus=0, max_retries=0, scheduling_strategy=places[0])
    meeting = await find.remote()
    started: dict[int, tuple[int, str | None]] = {}

    def note(rank: int, pid: int, node: str | None) -> None:
        started[rank] = pid, node
        if len(started) == len(places):
            nodes = [str(started[number][1]) for number in range(len(places))]
            on_start(started[0][0], ", ".join(dict.fromkeys(nodes)))

    async def run(rank: int) -> dict[str, Any]:
        arguments = (*work.arguments, "--meet", meeting, "--rank", str(rank), "--of", str(len(places)))
        one = replace(work, arguments=arguments)
        if rank:
            one = replace(one, name=f"{work.name}, {rank}", wanted=(), checkpoint=None)
        return await run_one(one, lambda pid, node: note(rank, pid, node), place=places[rank])

    tasks = [asyncio.create_task(run(rank)) for rank in range(len(places))]
    try:
        while not tasks[0].done() and not _errors(tasks):
            await asyncio.wait([task for task in tasks if not task.done()], return_when=asyncio.FIRST_COMPLETED)
        if not (tasks[0].done() and tasks[0].exception() is None):  # if so, the others are not needed any more
            if any(isinstance(error, Parted) for error in _errors(tasks)):
                await asyncio.wait(tasks, timeout=REASON_S)
            raise_reason(_errors(tasks))
        return tasks[0].result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _errors(tasks: list[asyncio.Task[dict[str, Any]]]) -> list[BaseException]:
    return [error for task in tasks if task.done() and (error := task.exception()) is not None]


def raise_reason(errors: list[BaseException]) -> None:
    """Of those that made the processes of one fit end, the one that the others follow from."""
    for error in sorted(errors, key=lambda error: (isinstance(error, Parted), not isinstance(error, Lost))):
        if isinstance(error, Parted):
            raise Lost(f"its processes lost each other: {error}") from error
        raise error
