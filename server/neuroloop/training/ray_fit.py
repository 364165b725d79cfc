"""A fit on a node of a Ray cluster: a Ray task that runs the fit process there as `engine: local` runs it here.

The task is a generator: where the process was placed, then what it says, and at last the content of the files that it
made. Ray interrupts a task that is cancelled; the fit process then ends as by `LocalExecutor`. One whose task is
killed, or whose node's Ray has gone, finds its standard input closed and ends by itself.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import ray

from neuroloop.errors import NeuroloopError
from neuroloop.ray_nodes import here
from neuroloop.training.executor import FIT_PROGRAM, LocalExecutor
from neuroloop.training.messages import Message

LOOK_EVERY_S = 0.1  # whether the task is cancelled


@dataclass(frozen=True)
class Placed:
    """Where the fit process runs."""

    node: str
    pid: int


@dataclass(frozen=True)
class Ended:
    """How it ended: files: their content comes next, one by one; error: why there are none."""

    files: tuple[str, ...] = ()
    error: NeuroloopError | None = None


Said = Placed | Message | Ended


def run(
    program: Sequence[str] | None, arguments: Sequence[str], files: Mapping[str, Any], wanted: Sequence[str]
) -> Iterator[Any]:
    """Yields `Said`, and after `Ended` the bytes of its files as arrays of uint8.

    program: as of `LocalExecutor`; by default that of this node. arguments: more of it. files: what lies in the job's
    folder, as references to such arrays. wanted: the files that the fit is to make.
    """
    with TemporaryDirectory(prefix="neuroloop-fit-") as name:
        folder, said = Path(name), queue.SimpleQueue[Said]()
        for file, content in files.items():
            (folder / file).write_bytes(memoryview(ray.get(content)))
        with _running(LocalExecutor((*(program or FIT_PROGRAM), *arguments)), folder, said):
            while not isinstance(item := _next(said), Ended):
                yield item
        if item.error is not None:
            yield item
            return
        yield Ended(tuple(wanted))
        for file in wanted:
            yield np.fromfile(folder / file, np.uint8)


def _next(said: queue.SimpleQueue[Said]) -> Said:
    while True:
        with suppress(queue.Empty):
            return said.get(timeout=LOOK_EVERY_S)


@contextmanager
def _running(executor: LocalExecutor, folder: Path, said: queue.SimpleQueue[Said]) -> Iterator[None]:
    """The fit process, driven by a thread; it has ended after the block."""
    loop = asyncio.new_event_loop()
    task = loop.create_task(_carry_out(executor, folder, said))
    thread = threading.Thread(target=_drive, args=(loop, task), name="fit")
    thread.start()
    try:
        yield
    finally:
        loop.call_soon_threadsafe(task.cancel)
        thread.join()
        loop.close()


def _drive(loop: asyncio.AbstractEventLoop, task: asyncio.Task[None]) -> None:
    with suppress(asyncio.CancelledError):
        loop.run_until_complete(task)


async def _carry_out(executor: LocalExecutor, folder: Path, said: queue.SimpleQueue[Said]) -> None:
    node = here()
    try:
        await executor.run(folder, lambda pid, _: said.put(Placed(node, pid)), said.put)
    except NeuroloopError as error:
        said.put(Ended(error=error))
    else:
        said.put(Ended())
