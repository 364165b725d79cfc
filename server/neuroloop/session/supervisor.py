"""The API's side of one session process: its life, its commands and its results.

Bounds: at most `IN_FLIGHT_LIMIT` commands wait for an answer, a further one is refused at once. Results that the event
loop doesn't fetch wait in ZeroMQ's queue (1000 messages), which then drops the newest; `seq` shows the hole.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgpack
import zmq

from neuroloop.config import LslSettings, SessionSettings
from neuroloop.errors import Conflict, NeuroloopError, Unavailable
from neuroloop.session.adoption import AdoptedProcess, Record, RunFolder, started
from neuroloop.session.log_tail import LogTail
from neuroloop.session.loop_socket import LoopSocket

SESSION_PROGRAM = (sys.executable, "-m", "neuroloop.session")
IN_FLIGHT_LIMIT = 64
RESULT_WAIT_S = 0.05
ASK_AGAIN_S = 5.0
LOG = "stderr.log"

ERRORS = {error.__name__: error for error in NeuroloopError.__subclasses__()}


@dataclass(frozen=True)
class Failure:
    """How a session process ended that nobody had told to end."""

    detail: str
    exit_code: int | None
    stderr: list[str]


class SessionProcess:
    """One session process, from its start, or from when it was found again, to its end.

    A process that died is not started again.

    on_message: called in the event loop with the topic and the packed map of every result.
    on_failure: called once if the process ends by itself.
    run_folder: where it is recorded, so that a server after this one finds it; without one it ends with this process.
    outlive_s: how long it goes on without a server.
    """

    def __init__(
        self,
        settings: SessionSettings,
        lsl: LslSettings,
        on_message: Callable[[str, bytes], None],
        on_failure: Callable[[Failure], None],
        program: Sequence[str] = SESSION_PROGRAM,
        run_folder: RunFolder | None = None,
        outlive_s: float = 0.0,
    ) -> None:
        self.name = settings.name
        self.run = uuid.uuid4().hex  # of this life of the session; in another one, bins are counted anew
        self.state: Literal["starting", "ready", "failed", "ended"] = "starting"
        self.failure: Failure | None = None
        self.ready = asyncio.Event()
        self._status_came = asyncio.Event()
        self._told_until = -math.inf  # LSL time of the last status among the results
        self._run_folder = run_folder
        self._settings = settings.model_dump(mode="json")
        self._first_line = {
            "session": self._settings,
            "lsl": lsl.model_dump(mode="json"),
            "lock": None if run_folder is None else str(run_folder.lock),
            "outlive_s": outlive_s,
        }
        self._on_message = on_message
        self._on_failure = on_failure
        self._program = program
        self._process: asyncio.subprocess.Process | AdoptedProcess | None = None
        self._log: LogTail | None = None
        self._commands: LoopSocket | None = None
        self._results: LoopSocket | None = None
        self._pending: dict[bytes, asyncio.Future[Any]] = {}
        self._request_count = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._directory: Path | None = None
        self._changing = asyncio.Lock()

    @property
    def was_found(self) -> bool:
        """Whether a server before this one started it, so that it may be anywhere in its life."""
        return isinstance(self._process, AdoptedProcess)

    async def start(self) -> None:
        """Start the process; `ready` is set when it answers and its results arrive. One that can't start has failed."""
        async with self._changing:
            if self.state == "starting":
                await self._start()

    async def adopt(self, record: Record) -> None:
        """Connect to the process that a server before this one left running; `ready` is set as by `start`."""
        async with self._changing:
            if self.state == "starting":
                self._directory, self.run = record.directory, record.run
                self._watch(AdoptedProcess(record.pid), LogTail(record.directory / LOG, from_end=True))

    async def _start(self) -> None:
        self._directory = Path(tempfile.mkdtemp(prefix="neuroloop-"))
        log = self._directory / LOG
        try:
            with log.open("wb") as errors:
                process = await asyncio.create_subprocess_exec(
                    *self._program,
                    *("--commands", self._endpoint("commands"), "--results", self._endpoint("results")),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL,
                    stderr=errors,
                    start_new_session=True,  # Ctrl-C in the terminal is for the API, which then ends its sessions
                )
        except OSError as error:
            self._fail(Failure(f"session {self.name!r}: its process can't be started: {error}", None, []))
            return
        assert process.stdin is not None
        process.stdin.write(json.dumps(self._first_line).encode() + b"\n")
        began = started(process.pid)
        if self._run_folder is not None and began is not None:
            record = Record(
                pid=process.pid, started=began, directory=self._directory, run=self.run, settings=self._settings
            )
            self._run_folder.write(self.name, record)
        self._watch(process, LogTail(log))

    def _watch(self, process: asyncio.subprocess.Process | AdoptedProcess, log: LogTail) -> None:
        self._process, self._log = process, log
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        results = _connect(context.socket(zmq.SUB), self._endpoint("results"))
        commands = _connect(context.socket(zmq.DEALER), self._endpoint("commands"))
        self._results = LoopSocket(results, self._receive_result)
        self._commands = LoopSocket(commands, self._receive_reply)
        self._tasks = [
            asyncio.create_task(self._await_exit(process, log), name=f"{self.name}: exit"),
            asyncio.create_task(self._await_ready(), name=f"{self.name}: ready"),
        ]

    def _endpoint(self, part: str) -> str:
        return f"ipc://{self._directory}/{part}"

    async def command(self, name: str, /, *, timeout: float = 5.0, **arguments: Any) -> Any:
        """The result of a command. Raises the error that the session process answers with, Unavailable
        without its process, or Conflict until it has started."""
        if self.failure is not None:
            raise Unavailable(self.failure.detail)
        if self.state != "ready":
            raise Conflict(f"session {self.name!r} is {self.state}; try again when /readyz says so")
        return await self._request({"command": name, **arguments}, timeout)

    async def stop(self, grace: float = 5.0) -> None:
        """End the process: ask if it listens, after `grace` seconds terminate, after two more kill."""
        async with self._changing:
            answers = self.state == "ready"
            self.state = "ended"
            if self._process is not None and self._process.returncode is None:
                assert self._commands is not None
                if answers:
                    with contextlib.suppress(zmq.Again):
                        self._commands.send([b"shutdown", msgpack.packb({"command": "shutdown"})])
                for wait, force in ((grace if answers else 0.0, self._process.terminate), (2.0, self._process.kill)):
                    with contextlib.suppress(TimeoutError):
                        await asyncio.wait_for(self._process.wait(), wait)
                        break
                    with contextlib.suppress(ProcessLookupError):
                        force()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            self._close()

    async def _request(self, message: dict[str, Any], timeout: float) -> Any:
        if len(self._pending) >= IN_FLIGHT_LIMIT:
            raise Unavailable(f"session {self.name!r}: {IN_FLIGHT_LIMIT} commands wait for an answer; try again later")
        assert self._commands is not None
        self._request_count += 1
        request_id = self._request_count.to_bytes(8, "big")
        reply = self._pending[request_id] = asyncio.get_running_loop().create_future()
        try:
            self._commands.send([request_id, msgpack.packb(message)])
            async with asyncio.timeout(timeout):
                return await reply
        except (TimeoutError, zmq.Again) as error:
            raise Unavailable(
                f"session {self.name!r}: no answer to {message['command']!r} within {timeout:g} s"
            ) from error
        finally:
            del self._pending[request_id]

    def _receive_reply(self, frames: list[bytes]) -> None:
        request_id, payload = frames
        reply = self._pending.get(request_id)
        if reply is None or reply.done():
            return  # its caller has given up
        answer = msgpack.unpackb(payload)
        if answer["ok"]:
            reply.set_result(answer["result"])
        else:
            reply.set_exception(ERRORS.get(answer["error"], NeuroloopError)(answer["detail"]))

    def _receive_result(self, frames: list[bytes]) -> None:
        topic, payload = frames
        if topic == b"status":
            self._told_until = msgpack.unpackb(payload)["time"]
            self._status_came.set()
        self._on_message(topic.decode(), payload)

    async def _await_ready(self) -> None:
        until = math.inf  # the status that it answers first is published, too, after everything before it
        while self.state == "starting" and self._told_until < until:
            self._status_came.clear()
            try:
                status = await self._request({"command": "status"}, ASK_AGAIN_S)
            except Unavailable:  # it has ended, or takes long to start, or the question was lost with a connection
                await asyncio.sleep(RESULT_WAIT_S)
                continue
            until = min(until, status["time"])
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._status_came.wait(), RESULT_WAIT_S)
        if self.state == "starting":
            self.state = "ready"
            self._on_message("status", msgpack.packb(status))
            self.ready.set()

    async def _await_exit(self, process: asyncio.subprocess.Process | AdoptedProcess, log: LogTail) -> None:
        follow = asyncio.create_task(log.follow(), name=f"{self.name}: log")
        exit_code = await process.wait()
        follow.cancel()
        log.read()
        reason = f": {log.lines[-1]}" if log.lines else ""
        detail = f"session {self.name!r}: its process ended with exit code {exit_code}{reason}"
        self._fail(Failure(detail, exit_code, log.lines))

    def _fail(self, failure: Failure) -> None:
        self._status_came.set()
        for reply in self._pending.values():
            if not reply.done():
                reply.set_exception(Unavailable(failure.detail))
        if self.state != "ended":
            self.state = "failed"
            self.failure = failure
            self._on_failure(failure)

    def _close(self) -> None:
        for socket in (self._commands, self._results):
            if socket is not None:
                socket.close()
        self._commands = self._results = None
        if self._run_folder is not None:
            self._run_folder.forget(self.name)
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)


def _connect(socket: zmq.Socket[bytes], endpoint: str) -> zmq.Socket[bytes]:
    socket.setsockopt(zmq.RECONNECT_IVL, 20)  # ms; the process binds when it is ready, long after this
    if socket.type == zmq.SUB:
        socket.subscribe(b"")
    socket.connect(endpoint)
    return socket
