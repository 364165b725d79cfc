"""What runs fits, and the one that runs them on this machine: a process each, ended when the caller is cancelled."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from neuroloop.errors import ModelError, Unavailable
from neuroloop.training.messages import PARTED, Failed, Message, Parted, parse
from neuroloop.training.request import FitRequest
from neuroloop.training.settings import workers_of

FIT_PROGRAM = (sys.executable, "-m", "neuroloop.training")
GRACE_S = 2.0  # between SIGTERM and SIGKILL
STDERR_TAIL = 8192
STDERR_LINES = 12
LINE_LIMIT = 1 << 16


# Told the process' id and, where that is not this machine, its node.
OnStart = Callable[[int, str | None], None]
OnMessage = Callable[[Message], None]


class Died(ModelError):
    """The process of a fit was ended by a signal."""


class NodeLost(Unavailable):
    """So was the machine that it ran on."""


class Executor(Protocol):
    """Carries out the fit of a job's folder, wherever."""

    def check(self, request: FitRequest) -> None:
        """Raises ModelError for what it cannot do, whatever the data."""
        ...

    async def run(self, folder: Path, on_start: OnStart, on_message: OnMessage) -> None:
        """To its end: then weights and result lie in the folder.

        on_start: called again where the fit begins anew. Raises ModelError with what the fit says is wrong, or with
        the end of its standard error where it broke, Died where it was ended, NodeLost where its machine was;
        Unavailable where it cannot be carried out. Cancelled, it returns when the fit's process has ended.
        """
        ...


class LocalExecutor:
    """A process for each fit, on this machine."""

    def __init__(self, program: Sequence[str] = FIT_PROGRAM) -> None:
        """program: the command line of a fit process, without the job's folder."""
        self._program = program

    def check(self, request: FitRequest) -> None:
        """Raises ModelError where the fit is to be shared."""
        workers = workers_of(request)
        if workers > 1:
            raise ModelError(
                f"settings of {request.kind!r}: training.workers: {workers} share a fit on a Ray cluster alone "
                "(engine: ray); with engine: local leave it at 1, and give `threads`"
            )

    async def run(self, folder: Path, on_start: OnStart, on_message: OnMessage) -> None:
        """Cancelled, it ends the process: SIGTERM, and after `GRACE_S` SIGKILL."""
        try:
            process = await asyncio.create_subprocess_exec(
                *self._program,
                str(folder),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                start_new_session=True,  # Ctrl-C in the terminal is for the server, which then ends its fits
                limit=LINE_LIMIT,
            )
        except OSError as error:
            raise Unavailable(f"fit: its process can't be started: {error}") from error
        try:
            on_start(process.pid, None)
            assert process.stdout is not None
            assert process.stderr is not None
            failed, tail = await asyncio.gather(_hear(process.stdout, on_message), _tail(process.stderr))
            code = await process.wait()
        finally:
            await _end(process)
        if failed is not None:
            raise ModelError(failed)
        if code != 0:
            last = "\n".join(tail.decode(errors="replace").splitlines()[-STDERR_LINES:])
            text = f"fit: its process ended with exit code {code}" + (f":\n{last}" if last else "")
            if code == PARTED:
                raise Parted(text)
            raise ModelError(text) if code > 0 else Died(text)


async def _hear(stdout: asyncio.StreamReader, on_message: OnMessage) -> str | None:
    """Hand messages on; returns why the fit failed, if it said so. Lines that are no message are passed over."""
    failed = None
    while True:
        try:
            line = await stdout.readuntil()
        except asyncio.LimitOverrunError as overrun:
            await stdout.readexactly(overrun.consumed)
            continue
        except asyncio.IncompleteReadError:
            return failed
        message = parse(line)
        if isinstance(message, Failed):
            failed = message.detail
        elif message is not None:
            on_message(message)


async def _tail(stderr: asyncio.StreamReader) -> bytes:
    tail = b""
    while chunk := await stderr.read(65536):
        tail = (tail + chunk)[-STDERR_TAIL:]
    return tail


async def _end(process: asyncio.subprocess.Process) -> None:
    for force in (process.terminate, process.kill):
        if process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            force()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(process.wait(), GRACE_S)
