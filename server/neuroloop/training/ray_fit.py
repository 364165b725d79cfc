"""A fit on a node of a Ray cluster: a Ray task that runs the fit process there as `engine: local` runs it here.

The task is a generator: where the process was placed, then what it says, and at last the content of the files that it
made. A checkpoint that the process writes goes the same way while it runs, so that it is there when the node is not.
Ray interrupts a task that is cancelled; the fit process then ends as by `LocalExecutor`. One whose task is killed, or
whose node's Ray has gone, finds its standard input closed and ends by itself.
"""

from __future__ import annotations

import asyncio
import queue
import socket
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
from neuroloop.training.job import CHECKPOINT
from neuroloop.training.messages import Message

LOOK_EVERY_S = 0.1  # whether the task is cancelled, or there is a checkpoint


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


@dataclass(frozen=True)
class Kept:
    """It has written a checkpoint, whose content comes next."""


def meeting_place() -> str:
    """HOST:PORT on this node where the processes of a shared fit can meet."""
    address = ray.util.get_node_ip_address()
    with socket.create_server((address, 0)) as server:
        return f"{address}:{server.getsockname()[1]}"


Said = Placed | Message | Kept | Ended


def run(
    program: Sequence[str] | None, arguments: Sequence[str], files: Mapping[str, Any], wanted: Sequence[str]
) -> Iterator[Any]:
    """Yields `Said`; after `Ended` the bytes of its files as arrays of uint8, after `Kept` those of the checkpoint.

    program: as of `LocalExecutor`; by default that of this node. arguments: more of it. files: what lies in the job's
    folder, as references to such arrays. wanted: the files that the fit is to make.
    """
    with TemporaryDirectory(prefix="neuroloop-fit-") as name:
        folder, said = Path(name), queue.SimpleQueue[Said]()
        for file, content in files.items():
            (folder / file).write_bytes(memoryview(ray.get(content)))
        checkpoint = folder / CHECKPOINT
        known = _version(checkpoint)
        with _running(LocalExecutor((*(program or FIT_PROGRAM), *arguments)), folder, said):
            while not isinstance(item := _next(said), Ended):
                if item is not None:
                    yield item
                if (version := _version(checkpoint)) != known:
                    known = version
                    yield Kept()
                    yield np.fromfile(checkpoint, np.uint8)
        if item.error is not None:
            yield item
            return
        yield Ended(tuple(wanted))
        for file in wanted:
            yield np.fromfile(folder / file, np.uint8)


def _next(said: queue.SimpleQueue[Said]) -> Said | None:
    """None where nothing comes for a moment; Ray interrupts a cancelled task in between."""
    with suppress(queue.Empty):
        return said.get(timeout=LOOK_EVERY_S)
    return None


def _version(path: Path) -> int | None:
    """Another one for each time that the file was written."""
    with suppress(FileNotFoundError):
        return path.stat().st_mtime_ns
    return None


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
