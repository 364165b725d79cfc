"""A session on a node of a Ray cluster: an actor that starts the session process there and waits for its end.

The loop keeps a process of its own; results and commands go between it and the server over ZeroMQ, not through Ray.
When the actor ends, or its node's Ray, the process finds its standard input closed and ends by itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray

from neuroloop.ray_nodes import here
from neuroloop.session.launching import LOG, SESSION_PROGRAM, Endpoints, give, spawn
from neuroloop.session.log_tail import LogTail

PRIORITY = 0


@dataclass(frozen=True)
class Placed:
    """Where the session process runs. endpoints: None where it ended before it had any. niceness: 0 unless the node
    gives its processes a lower priority, and does not let them change it."""

    node: str
    endpoints: Endpoints | None
    niceness: int


@dataclass(frozen=True)
class Ended:
    """How the session process ended, and the last lines that it wrote."""

    exit_code: int
    lines: list[str]


class SessionActor:
    """The process of one session."""

    def __init__(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="neuroloop-"))
        self._process: asyncio.subprocess.Process | None = None

    async def start(self, arguments: Sequence[str], first_line: dict[str, Any]) -> Placed:
        """Returns when the process has bound its endpoints, on this node's address, or has ended."""
        with contextlib.suppress(PermissionError):
            os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)  # of this thread, and so of the process that it starts
        address = f"tcp://{ray.util.get_node_ip_address()}:*"
        program = (*SESSION_PROGRAM, *arguments)
        process = await spawn(program, Endpoints(address, address), self._directory / LOG, subprocess.PIPE)
        self._process = process
        give(process, first_line)
        assert process.stdout is not None
        line = await process.stdout.readline()
        endpoints = Endpoints(**json.loads(line)) if line else None
        return Placed(here(), endpoints, os.getpriority(os.PRIO_PROCESS, process.pid) if line else PRIORITY)

    async def wait(self) -> Ended:
        """Meanwhile, what the process writes goes to Ray's log of this actor."""
        assert self._process is not None
        log = LogTail(self._directory / LOG)
        follow = asyncio.create_task(log.follow())
        exit_code = await self._process.wait()
        follow.cancel()
        log.read()
        shutil.rmtree(self._directory, ignore_errors=True)
        return Ended(exit_code, log.lines)

    async def terminate(self) -> None:
        if self._process is not None and self._process.returncode is None:
            self._process.send_signal(signal.SIGTERM)
