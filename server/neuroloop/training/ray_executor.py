"""Runs fits as tasks of a Ray cluster: a job's files go to a node; messages come back while it runs, then the result.

A fit that loses its node begins anew on another one, `max_retries` times. Ray's own retries would repeat the messages
of a task without saying so; here the job is told.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import ray
import structlog
from ray import exceptions

from neuroloop.config import RayFitSettings
from neuroloop.errors import Unavailable
from neuroloop.training import ray_fit
from neuroloop.training.executor import GRACE_S, OnMessage, OnStart
from neuroloop.training.job import FILE, INPUT, RECORDING, RESULT, WEIGHTS, write_whole
from neuroloop.training.messages import Progress
from neuroloop.training.ray_fit import Ended, Placed

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


class RayExecutor:
    """A Ray task for each fit; see `ray_fit`."""

    def __init__(self, settings: RayFitSettings, program: Sequence[str] | None = None) -> None:
        """program: the command line of a fit process, without the job's folder; by default that of the node."""
        self._settings = settings
        self._program = program

    async def run(self, folder: Path, on_start: OnStart, on_message: OnMessage) -> None:
        """As `Executor.run`. Raises Unavailable that names the node where it was lost once too often."""
        left = self._settings.max_retries
        while True:
            files = await asyncio.to_thread(_put, folder)
            try:
                made = await self._run_once(folder.name, files, (WEIGHTS, RESULT), on_start, on_message)
                break
            except Lost as lost:
                log.warning("fit_lost_its_node", fit=folder.name, detail=str(lost), retries_left=left)
                if not left:
                    raise Unavailable(f"fit: {lost}; ray.fit.max_retries: {self._settings.max_retries}") from lost
                left -= 1
        for name in (WEIGHTS, RESULT):
            await asyncio.to_thread(write_whole, folder / name, (await made[name]).tobytes())

    async def _run_once(
        self, name: str, files: dict[str, Any], wanted: Sequence[str], on_start: OnStart, on_message: OnMessage
    ) -> dict[str, Any]:
        """References to the wanted files. Raises Lost."""
        options = {
            "num_cpus": self._settings.num_cpus,
            "num_gpus": self._settings.num_gpus,
            "max_retries": 0,
            "num_returns": "streaming",
            "name": f"fit {name}",
        }
        task = ray.remote(ray_fit.run).options(**options).remote(self._program, files, wanted)
        node = "a node that it had not reached"
        try:
            async for reference in task:
                said = await reference
                if isinstance(said, Placed):
                    node = said.node
                    on_start(said.pid, node)
                elif isinstance(said, Progress):
                    on_message(said)
                elif isinstance(said, Ended):
                    if said.error is not None:
                        raise said.error
                    return {file: await anext(task) for file in said.files}
        except LOSSES as error:
            raise Lost(f"node {node} was lost during the fit ({type(error).__name__})") from error
        finally:
            await _end(task)
        raise Lost(f"node {node} ended the fit without a result")


def _put(folder: Path) -> dict[str, Any]:
    """References to what a job's folder holds; a link to a recording is followed."""
    paths = [folder / FILE, folder / INPUT, *folder.glob(f"{RECORDING}.*")]
    return {path.name: ray.put(np.fromfile(path, np.uint8)) for path in paths if path.exists()}


async def _end(task: Any) -> None:
    """Return when the task has ended: interrupted, and after twice the fit process' own grace killed."""
    for force in (False, True):
        ended = task.completed()
        ray.cancel(task, force=force)
        with suppress(TimeoutError):
            with suppress(exceptions.RayError):
                await asyncio.wait_for(ended, 2 * GRACE_S + 1.0)
            return
