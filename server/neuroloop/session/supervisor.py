"""The API's side of one session process: its life, its commands and its results.

Bounds: at most `IN_FLIGHT_LIMIT` commands wait for an answer, a further one is refused at once. Results that the event
loop doesn't fetch wait in ZeroMQ's queue (1000 messages), which then drops the newest; `seq` shows the hole.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgpack
import zmq

from neuroloop import tracing
from neuroloop.config import LslSettings, SessionSettings
from neuroloop.errors import Conflict, Deleted, NeuroloopError, Unavailable
from neuroloop.logs import current_request
from neuroloop.server_config import SupervisionSettings
from neuroloop.session.adoption import AdoptedProcess, Record, RunFolder, started
from neuroloop.session.curve import identify
from neuroloop.session.launching import Launched, Launcher, LocalLauncher, LocalSession, Lost, adopted
from neuroloop.session.loop_socket import LoopSocket
from neuroloop.session.supervision import Cause, Overseer, Restarts, how_it_ended

IN_FLIGHT_LIMIT = 64
RESULT_WAIT_S = 0.05
ASK_AGAIN_S = 5.0
COMPILING = ("decoder_load", "encoder_load")  # of a kind that was never used here

ERRORS = {error.__name__: error for error in (*NeuroloopError.__subclasses__(), Deleted)}


@dataclass(frozen=True)
class Failure:
    """How a session process ended that nobody had told to end."""

    detail: str
    exit_code: int | None
    stderr: list[str]


@dataclass(frozen=True)
class Restart:
    """Why a session process is replaced. checkpoint_age_s: None where there is no checkpoint."""

    cause: Cause
    detail: str
    exit_code: int
    delay_s: float
    checkpoint_age_s: float | None
    stderr: list[str]


class SessionProcess:
    """One session process, from its start, or from when it was found again, to its end.

    One that died, hung or grew too large is replaced, as `starting`, from its last checkpoint and as often as
    `supervision` allows; one that was lost with its node is launched anew. It runs if that one ran, and counts bins
    from where `on_loss` or `on_restart` says; `losses` counts both. One that died before it ever answered has failed.

    on_message: called in the event loop with the topic and the packed map of every result.
    on_failure: called once if the process ends by itself, and is not replaced. on_loss: called with the reason when it
    was lost. on_restart: called when it is replaced. launcher: starts the process; by default on this machine.
    run_folder: where it is recorded, so that a server after this one finds it; without one it ends with this process.
    outlive_s: how long it goes on without a server. recordings: the folder for its own.
    """

    def __init__(
        self,
        settings: SessionSettings,
        lsl: LslSettings,
        on_message: Callable[[str, bytes], None],
        on_failure: Callable[[Failure], None],
        launcher: Launcher | None = None,
        run_folder: RunFolder | None = None,
        outlive_s: float = 0.0,
        on_loss: Callable[[str], int] = lambda reason: 0,
        recordings: Path | None = None,
        supervision: SupervisionSettings | None = None,
        on_restart: Callable[[Restart], int] = lambda restart: 0,
    ) -> None:
        self.name = settings.name
        self.run = uuid.uuid4().hex  # of this life of the session; in another one, bins are counted anew
        self.state: Literal["starting", "ready", "failed", "ended"] = "starting"
        self.failure: Failure | None = None
        self.ready = asyncio.Event()
        self.losses = 0
        self._status_came = asyncio.Event()
        self._told_until = -math.inf  # LSL time of the last status among the results
        self._run_folder = run_folder
        self._settings = settings.model_dump(mode="json")
        self._first_line = {
            "session": self._settings,
            "lsl": lsl.model_dump(mode="json"),
            "lock": None if run_folder is None else str(run_folder.lock),
            "outlive_s": outlive_s,
            "recordings": None if recordings is None else str(recordings),
            "checkpoint": None if run_folder is None else str(run_folder.checkpoint(settings.name)),
        }
        self._on_message = on_message
        self._on_failure = on_failure
        self._on_loss = on_loss
        self._on_restart = on_restart
        self._supervision = supervision
        self._restarts = None if supervision is None else Restarts(supervision)
        self._overseer: Overseer | None = None
        self._has_answered = False
        self._is_ending = asyncio.Event()
        self._launcher = LocalLauncher() if launcher is None else launcher
        self._launched: Launched | None = None
        self._told_state: str | None = None
        self._commands: LoopSocket | None = None
        self._results: LoopSocket | None = None
        self._wanted: set[bytes] = set()
        self._pending: dict[bytes, asyncio.Future[Any]] = {}
        self._request_count = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._changing = asyncio.Lock()

    @property
    def was_found(self) -> bool:
        """Whether a server before this one started it, so that it may be anywhere in its life."""
        return isinstance(self._launched, LocalSession) and isinstance(self._launched.process, AdoptedProcess)

    @property
    def node(self) -> str | None:
        """Where the process runs, if that is known and not this machine."""
        return None if self._launched is None else self._launched.node

    @property
    def waiting(self) -> int:
        """Commands that wait for their answers."""
        return len(self._pending)

    async def start(self) -> None:
        """Start the process; `ready` is set when it answers and its results arrive. One that can't start has failed."""
        async with self._changing:
            if self.state == "starting":
                await self._start()

    async def adopt(self, record: Record) -> None:
        """Connect to the process that a server before this one left running; `ready` is set as by `start`."""
        async with self._changing:
            if self.state == "starting":
                self.run = record.run
                self._watch(adopted(record))

    async def _start(self) -> None:
        try:
            launched = await self._launcher.launch(self._first_line)
        except OSError as error:
            self._fail(Failure(f"session {self.name!r}: its process can't be started: {error}", None, []))
            return
        if isinstance(launched, LocalSession) and self._run_folder is not None:
            self._record(launched, self._run_folder)
        if self.state == "ended":  # told to while it was launched in the place of another
            self._launched = launched
            launched.process.kill()
            await launched.process.wait()
            return
        self._watch(launched)

    def _record(self, local: LocalSession, folder: RunFolder) -> None:
        began = started(local.pid)
        if began is not None:
            record = Record(
                pid=local.pid, started=began, directory=local.directory, run=self.run, settings=self._settings
            )
            folder.write(self.name, record)

    def _watch(self, launched: Launched) -> None:
        self._launched = launched
        self._tasks = [
            asyncio.create_task(self._await_exit(launched), name=f"{self.name}: exit"),
            asyncio.create_task(self._await_ready(launched), name=f"{self.name}: ready"),
        ]
        if self._supervision is not None:
            pid = launched.pid if isinstance(launched, LocalSession) else None
            self._overseer = Overseer(self._supervision, pid, launched.process.kill, self.name)
            self._tasks.append(asyncio.create_task(self._overseer.watch(), name=f"{self.name}: overseer"))

    async def command(self, name: str, /, *, timeout: float = 5.0, **arguments: Any) -> Any:
        """The result of a command. Raises the error that the session process answers with, Unavailable
        without its process, or Conflict until it has started."""
        if self.failure is not None:
            raise Unavailable(self.failure.detail)
        if self.state != "ready":
            raise Conflict(f"session {self.name!r} is {self.state}; try again when /readyz says so")
        if self._overseer is not None and name in COMPILING:
            self._overseer.be_patient(timeout)
        with tracing.command(self.name, name):
            return await self._request({"command": name, **arguments, **current_request()}, timeout)

    async def stop(self, grace: float = 5.0) -> None:
        """End the process: ask if it listens, after `grace` seconds terminate, after two more kill."""
        async with self._changing:
            answers = self.state == "ready"
            self.state = "ended"
            self._is_ending.set()
            if self._overseer is not None:
                self._overseer.end()
            process = None if self._launched is None else self._launched.process
            if process is not None and process.returncode is None:
                if answers:
                    assert self._commands is not None
                    with contextlib.suppress(zmq.Again):
                        self._commands.send([b"shutdown", msgpack.packb({"command": "shutdown"})])
                for wait, force in ((grace if answers else 0.0, process.terminate), (2.0, process.kill)):
                    with contextlib.suppress(TimeoutError, Lost):
                        await asyncio.wait_for(process.wait(), wait)
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

    def want(self, topic: str, is_wanted: bool) -> None:
        """Have the process publish a topic that costs something, or no longer."""
        name = topic.encode()
        if is_wanted == (name in self._wanted):
            return
        (self._wanted.add if is_wanted else self._wanted.discard)(name)
        if self._results is not None:
            self._results.subscribe(name, is_wanted)

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
        if self._overseer is not None:
            self._overseer.heard(topic)
        if topic == b"status":
            status = msgpack.unpackb(payload)
            self._told_until, self._told_state = status["time"], status["state"]
            self._status_came.set()
        self._on_message(topic.decode(), payload)

    async def _await_ready(self, launched: Launched) -> None:
        endpoints = await launched.endpoints()
        if endpoints is None or self.state != "starting":
            return
        context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
        key = endpoints.server_key
        self._results = LoopSocket(_connect(context.socket(zmq.SUB), endpoints.results, key), self._receive_result)
        for topic in self._wanted:
            self._results.subscribe(topic, True)
        self._commands = LoopSocket(_connect(context.socket(zmq.DEALER), endpoints.commands, key), self._receive_reply)
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
            self.state, self._has_answered = "ready", True
            self._on_message("status", msgpack.packb(status))
            self.ready.set()

    async def _await_exit(self, launched: Launched) -> None:
        log = launched.log
        follow = asyncio.create_task(log.follow(), name=f"{self.name}: log")
        try:
            exit_code = await launched.process.wait()
        except Lost as lost:
            if self.state in ("starting", "ready"):
                await self._launch_anew(str(lost))
            return
        finally:
            follow.cancel()
        log.read()
        reason = f": {log.lines[-1]}" if log.lines else ""
        if self.state in ("starting", "ready") and self._has_answered:
            delay_s = None if self._restarts is None else self._restarts.delay_s(time.monotonic())
            if delay_s is not None:
                await self._replace(launched, exit_code, delay_s)
                return
            if self._supervision is not None and self._supervision.restarts:
                limit = f"{self._supervision.restarts} restarts within {self._supervision.within_s:g} s"
                reason += f"; it is not started again, after {limit}"
        detail = f"session {self.name!r}: its process ended with exit code {exit_code}{reason}"
        self._fail(Failure(detail, exit_code, log.lines))

    async def _launch_anew(self, reason: str) -> None:
        """In the place of a process that was lost; nothing that it still says is heard."""
        self._begin_anew(reason)
        self._first_line["seq"] = self._on_loss(reason)
        await self._start()

    async def _replace(self, launched: Launched, exit_code: int, delay_s: float) -> None:
        """A process that has ended, by another that goes on from its checkpoint."""
        overseer = self._overseer
        cause, words = how_it_ended(exit_code)
        if overseer is not None and overseer.cause is not None:
            cause, words = overseer.cause, overseer.detail
        if self._results is not None:
            self._results.take_all()  # what it had said last
        reason = f"session {self.name!r}: its process {words}"
        self._begin_anew(reason)
        age_s = None if self._run_folder is None else _age_s(self._run_folder.checkpoint(self.name))
        seq = self._on_restart(Restart(cause, reason, exit_code, delay_s, age_s, list(launched.log.lines)))
        self._first_line |= {"seq": seq, "goes_on": True}
        if isinstance(launched, LocalSession):
            shutil.rmtree(launched.directory, ignore_errors=True)
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._is_ending.wait(), delay_s)
        if self.state == "starting":  # not told to end meanwhile
            await self._start()

    def _begin_anew(self, reason: str) -> None:
        for task in self._tasks[1:]:
            task.cancel()
        self._disconnect(reason)
        self.state, self._told_until = "starting", -math.inf
        self.ready.clear()
        self.losses += 1
        runs = self._settings["autostart"] if self._told_state is None else self._told_state == "running"
        self._first_line["session"] = self._settings | {"autostart": runs}

    def _fail(self, failure: Failure) -> None:
        self._status_came.set()
        self._refuse_pending(failure.detail)
        if self.state != "ended":
            self.state = "failed"
            self.failure = failure
            self._on_failure(failure)

    def _refuse_pending(self, detail: str) -> None:
        for reply in self._pending.values():
            if not reply.done():
                reply.set_exception(Unavailable(detail))

    def _disconnect(self, detail: str) -> None:
        self._refuse_pending(detail)
        for socket in (self._commands, self._results):
            if socket is not None:
                socket.close()
        self._commands = self._results = None

    def _close(self) -> None:
        self._disconnect(f"session {self.name!r} has ended")
        if self._run_folder is not None:
            self._run_folder.forget(self.name)
            self._run_folder.forget_checkpoint(self.name)
        if isinstance(self._launched, LocalSession):
            shutil.rmtree(self._launched.directory, ignore_errors=True)


def _age_s(path: Path) -> float | None:
    """Of a file; None where there is none."""
    return round(max(0.0, time.time() - path.stat().st_mtime), 3) if path.exists() else None


def _connect(socket: zmq.Socket[bytes], endpoint: str, server_key: str | None) -> zmq.Socket[bytes]:
    identify(socket, server_key)
    socket.setsockopt(zmq.RECONNECT_IVL, 20)  # ms; the process binds when it is ready, long after this
    if socket.type == zmq.SUB:
        socket.subscribe(b"")
    socket.connect(endpoint)
    return socket
