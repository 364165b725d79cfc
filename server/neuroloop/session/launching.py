"""Starting a session process, and what its supervisor knows of it then, wherever it runs.

`LocalLauncher` starts it on this machine; `ray_launcher` on a node of a Ray cluster.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from neuroloop.session.adoption import AdoptedProcess, Record
from neuroloop.session.log_tail import LogTail

SESSION_PROGRAM = (sys.executable, "-m", "neuroloop.session")
LOG = "stderr.log"


class Endpoints(NamedTuple):
    """ZeroMQ endpoints of a session process. server_key: what lets one in, of those that a network can reach."""

    commands: str
    results: str
    server_key: str | None = None


class Lost(Exception):
    """A session process that has gone with its node, so that nobody knows how it ended."""


class Process(Protocol):
    """As `asyncio.subprocess.Process`."""

    @property
    def returncode(self) -> int | None: ...

    async def wait(self) -> int:
        """Raises Lost."""
        ...

    def terminate(self) -> None: ...

    def kill(self) -> None: ...


class Log(Protocol):
    """The error output of a session process."""

    @property
    def lines(self) -> list[str]: ...

    def read(self) -> None: ...

    async def follow(self) -> None: ...


class Launched(Protocol):
    """A session process that has been started, or will be as soon as there is room for it."""

    @property
    def process(self) -> Process: ...

    @property
    def log(self) -> Log: ...

    @property
    def node(self) -> str | None:
        """Where it runs, if that is known and not this machine."""
        ...

    async def endpoints(self) -> Endpoints | None:
        """Where it will answer, as soon as that is known; None where it has ended before."""
        ...


class Launcher(Protocol):
    """Starts session processes."""

    async def launch(self, first_line: dict[str, Any]) -> Launched:
        """first_line: of its standard input. Raises OSError where it can't be started."""
        ...


@dataclass(frozen=True)
class LocalSession:
    """A session process of this machine. directory: of its sockets and its log."""

    process: asyncio.subprocess.Process | AdoptedProcess
    log: LogTail
    directory: Path
    node: None = None

    @property
    def pid(self) -> int:
        return self.process.pid

    async def endpoints(self) -> Endpoints:
        return _endpoints(self.directory)


class LocalLauncher:
    """Starts session processes on this machine."""

    def __init__(self, program: Sequence[str] = SESSION_PROGRAM) -> None:
        """program: the command line of a session process, without its endpoints."""
        self._program = program

    async def launch(self, first_line: dict[str, Any]) -> LocalSession:
        directory = Path(tempfile.mkdtemp(prefix="neuroloop-"))
        try:
            process = await spawn(self._program, _endpoints(directory), directory / LOG, subprocess.DEVNULL)
        except OSError:
            (directory / LOG).unlink(missing_ok=True)
            directory.rmdir()
            raise
        give(process, first_line)
        return LocalSession(process, LogTail(directory / LOG), directory)


def adopted(record: Record) -> LocalSession:
    """One that was started by a server before this one. Raises ProcessLookupError if it has ended."""
    log = LogTail(record.directory / LOG, from_end=True)
    return LocalSession(AdoptedProcess(record.pid), log, record.directory)


async def spawn(program: Sequence[str], endpoints: Endpoints, log: Path, stdout: int) -> asyncio.subprocess.Process:
    """Start a session process whose error output goes to this file. Raises OSError."""
    with log.open("ab") as errors:  # `LogTail` empties it now and then; others would go on where they were
        return await asyncio.create_subprocess_exec(
            *program,
            *("--commands", endpoints.commands, "--results", endpoints.results),
            stdin=subprocess.PIPE,
            stdout=stdout,
            stderr=errors,
            start_new_session=True,  # Ctrl-C in the terminal is for the API, which then ends its sessions
        )


def give(process: asyncio.subprocess.Process, first_line: dict[str, Any]) -> None:
    """Tell the process what it is to do."""
    assert process.stdin is not None
    process.stdin.write(json.dumps(first_line).encode() + b"\n")


def _endpoints(directory: Path) -> Endpoints:
    return Endpoints(f"ipc://{directory}/commands", f"ipc://{directory}/results")
