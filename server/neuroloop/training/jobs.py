"""The fit jobs of a server: at most so many run, the others wait in the order in which they came.

A job is a folder; see `job`. One asyncio task takes it from its data to its registered version; cancelling the task
is how a job is cancelled. Ended jobs lose their input unless they can be resumed, and the oldest of them
their folder when there are too many.
"""

from __future__ import annotations

import asyncio
import json
import os
import secrets
import shutil
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import structlog

from neuroloop.errors import Conflict, NeuroloopError, NotFound, Unavailable
from neuroloop.training.executor import Died, Executor, LocalExecutor, NodeLost
from neuroloop.training.job import CANDIDATE, CHECKPOINT, INPUT, RECORDING, RESULT, WEIGHTS, Job, State, load, now, own
from neuroloop.training.messages import Message, Moved, Progress, Resumed
from neuroloop.training.request import Activation, FitRequest

log = structlog.get_logger(__name__)

KEPT = 200  # ended jobs that can still be asked about
INTERRUPTED = "the server ended while the fit was under way; resume it"
EARLY = "the server ended before the fit had its data; ask for it again"

# Makes a version of a model out of weights and what is known of them; returns its number. Called in a thread.
Register = Callable[[str, bytes, dict[str, Any]], int]
# Puts the data of a job into its folder.
Gather = Callable[[Path], Awaitable[None]]
# Has a session use a version of a job's model.
Activate = Callable[[Job], Awaitable[str]]


class FitJobs:
    """All fit jobs.

    folder: theirs alone. register, activate: what is done with a result. executor: what runs them, by default this
    machine. running: how many at a time. waiting: how many more are taken.
    """

    def __init__(
        self,
        folder: Path,
        register: Register,
        activate: Activate,
        executor: Executor | None = None,
        *,
        running: int = 1,
        waiting: int = 32,
    ) -> None:
        self._folder = folder
        self._register = register
        self._activate = activate
        self._executor = LocalExecutor() if executor is None else executor
        self._slots = asyncio.Semaphore(running)
        self._limit = running + waiting
        self._jobs: dict[str, Job] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._cancelled: set[str] = set()
        self._finishing: set[str] = set()  # have their result, and are not cancelled any more
        self._owned: dict[str, int] = {}
        self._disk = ThreadPoolExecutor(
            1, thread_name_prefix="fits"
        )  # one: what is saved later replaces what was before

    async def open(self) -> None:
        """Find the jobs of the last time: those that were running are interrupted, those that waited wait again.

        Jobs on which another server works are left to it.
        """
        for job in await asyncio.to_thread(self._load):
            self._jobs[job.id] = job
            if job.state == "queued" and job.has_data:
                self._begin(job, None)
            elif not job.ended_already:
                job.turn("interrupted", INTERRUPTED if job.has_data else EARLY)
                await self._save(job)
                self._release(job)

    async def submit(
        self,
        request: FitRequest,
        gather: Gather,
        *,
        beforehand: bool,
        activate: Activation = "none",
        session: str | None = None,
        by: str | None = None,
    ) -> Job:
        """A new job. beforehand: whether the data are at hand, and are gathered before this returns.

        Raises ModelError for what the executor cannot do, Conflict where too many jobs wait, Unavailable where the
        folder can't be written, and for data at hand what `gather` raises.
        """
        self._executor.check(request)
        self._check_room()
        created = now()
        identifier = f"{created:%Y%m%dT%H%M%S%f}-{secrets.token_hex(3)}"
        job = Job(id=identifier, request=request, activate=activate, session=session, by=by, created=created)
        folder = self._path(job)
        try:
            await asyncio.to_thread(self._make, job)
            if beforehand:
                await gather(folder)
                job.has_data = True
                self._check_room()
            await self._save(job)
        except OSError as error:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            self._release(job)
            raise _unwritable(self._folder, error) from error
        except BaseException:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
            self._release(job)
            raise
        self._jobs[job.id] = job
        self._begin(job, None if beforehand else gather)
        return job

    def __getitem__(self, identifier: str) -> Job:
        if identifier not in self._jobs:
            raise NotFound(f"no fit {identifier!r}; GET /v1/fits lists them")
        return self._jobs[identifier]

    def all(self) -> list[Job]:
        """Oldest first."""
        return list(self._jobs.values())

    async def cancel(self, identifier: str) -> Job:
        """End a job; returns when its process has ended. Raises Conflict for one that has ended already."""
        job = self[identifier]
        if job.ended_already:
            raise Conflict(f"fit {identifier!r} is {job.state} already; there is nothing to cancel")
        if identifier in self._finishing:
            raise Conflict(f"fit {identifier!r} has its result and is being registered; delete the version afterwards")
        self._cancelled.add(identifier)
        await self._stop(identifier)
        return self[identifier]

    async def resume(self, identifier: str) -> Job:
        """Have a job that was interrupted, or whose process died, wait again; it goes on from its checkpoint.

        Raises Conflict that says why not, Unavailable where the folder can't be written.
        """
        self[identifier].model_copy(deep=True).wait_again()  # which says at once whether it can
        if identifier in self._tasks:
            await asyncio.wait([self._tasks[identifier]])  # it has ended, and tidies up
        self._check_room()
        folder = self._path(self[identifier])
        job = await asyncio.to_thread(self._retake, folder)
        try:
            job.wait_again()
            await self._save(job)
        except BaseException:
            self._release(job)
            raise
        self._jobs[job.id] = job
        self._begin(job, None)
        return job

    async def close(self) -> None:
        """End what runs, as interrupted; what waits goes on when the server is back."""
        await asyncio.gather(*(self._stop(identifier) for identifier in list(self._tasks)))
        self._disk.shutdown(wait=False)

    def _check_room(self) -> None:
        if len(self._tasks) >= self._limit:
            raise Conflict(f"{self._limit} fits run or wait already; cancel one, or ask again later")

    def _path(self, job: Job) -> Path:
        return self._folder / job.id

    def _begin(self, job: Job, gather: Gather | None) -> None:
        task = asyncio.create_task(self._carry_out(job, gather), name=f"fit {job.id}")
        self._tasks[job.id] = task
        task.add_done_callback(lambda _: self._tasks.pop(job.id, None))

    async def _stop(self, identifier: str) -> None:
        task = self._tasks.get(identifier)
        if task is not None:
            if identifier not in self._finishing:
                task.cancel()
            await asyncio.wait([task])

    async def _carry_out(self, job: Job, gather: Gather | None) -> None:
        state, detail = await self._outcome(job, gather)
        self._finishing.add(job.id)
        if state != "queued":
            settled = job.model_copy()
            settled.turn(state, detail)
            settled.has_data = settled.is_resumable
            with suppress(Unavailable):  # a full disk: known to this server, interrupted to the next
                await self._save(settled)  # before anybody is told: what is said to be done is done after a crash, too
            if not settled.has_data:
                await asyncio.to_thread(_drop_data, self._path(job))
            self._jobs[job.id] = settled
        self._release(job)
        await self._forget_oldest()
        self._finishing.discard(job.id)
        self._cancelled.discard(job.id)

    async def _outcome(self, job: Job, gather: Gather | None) -> tuple[State, str | None]:
        """How the job ended, and why; `queued` where it is to wait for the server's next life."""
        try:
            if gather is not None:
                await gather(self._path(job))
                job.has_data = True
                await self._save(job)
            async with self._slots:
                job.turn("running")
                await self._fit(job)
            return "done", None
        except NeuroloopError as error:
            job.died = isinstance(error, Died | NodeLost)
            return "failed", str(error)
        except asyncio.CancelledError:
            if job.id in self._cancelled:
                return "cancelled", None
            if job.state == "queued" and job.has_data:
                return "queued", None
            return "interrupted", INTERRUPTED if job.has_data else EARLY
        except Exception:
            log.exception("fit_broke", fit=job.id)
            return "failed", "a fault of the server; its log has more"

    async def _fit(self, job: Job) -> None:
        """From the data of a job to a registered version, and to its use."""
        folder = self._path(job)

        def heard(message: Message) -> None:
            if isinstance(message, Progress):
                job.advance(message.progress, message.loss)
                return
            if isinstance(message, Moved):
                job.move()
            elif isinstance(message, Resumed):
                job.go_on(message.progress)
            self._disk.submit(job.model_copy(deep=True).save, folder)  # the next server is to know, too

        await self._save(job)
        await self._executor.run(folder, job.begin, heard)
        self._finishing.add(job.id)
        job.pid = None
        weights, result = await asyncio.to_thread(_result, folder)
        job.metrics = result["metrics"]
        job.result = result | {"parent": job.request.parent}
        job.version = await asyncio.to_thread(self._register, job.request.name, weights, self._document(job))
        if job.activate != "none":
            job.activation = await self._use(job)

    def _document(self, job: Job) -> dict[str, Any]:
        """What the registry is told beside the weights."""
        assert job.result is not None
        training = job.result["training"] | {"fit": job.id, "finished": now().isoformat(), "resumed": job.resumed}
        return job.result | {"training": training, "by": job.by}

    async def _use(self, job: Job) -> str:
        """Have the session use the version, if it is good enough; says what became of it. The version stays anyway."""
        fault = job.below_gate()
        if fault is not None:
            return f"not activated: {fault}"
        try:
            return await self._activate(job)
        except NeuroloopError as error:
            return f"not activated: {error}"

    async def _save(self, job: Job) -> None:
        """As it is now: a copy, because reports of its process come in meanwhile. Raises Unavailable."""
        copy = job.model_copy(deep=True)
        try:
            await asyncio.get_running_loop().run_in_executor(self._disk, copy.save, self._path(job))
        except OSError as error:
            raise _unwritable(self._folder, error) from error

    def _make(self, job: Job) -> None:
        """Make the folder of a job, ours from the start."""
        self._path(job).mkdir(parents=True)
        held = own(self._path(job))
        assert held is not None
        self._owned[job.id] = held

    def _retake(self, folder: Path) -> Job:
        """An ended job, as it lies on disk, for this server again. Raises Conflict where that cannot be."""
        try:
            held = own(folder)
        except OSError as error:
            raise _unwritable(self._folder, error) from error
        job = load(folder)
        if held is None or job is None:
            if held is not None:
                os.close(held)
            raise Conflict(f"fit {folder.name!r} is resumed just now, perhaps by another server")
        self._owned[job.id] = held
        return job

    def _release(self, job: Job) -> None:
        held = self._owned.pop(job.id, None)
        if held is not None:
            os.close(held)

    def _load(self) -> list[Job]:
        """The jobs on disk, those that have not ended taken for this server."""
        if not self._folder.is_dir():
            return []
        found = []
        for folder in sorted(self._folder.iterdir()):
            job = load(folder)
            if job is None or job.ended_already:
                found.append(job)
                continue
            held = own(folder)
            job = load(folder)  # it may have ended just before
            if held is not None and job is not None:
                self._owned[job.id] = held
                found.append(job)
        return [job for job in found if job is not None]

    async def _forget_oldest(self) -> None:
        ended = [job for job in self._jobs.values() if job.ended_already]
        for job in ended[: max(0, len(ended) - KEPT)]:
            del self._jobs[job.id]
            await asyncio.to_thread(shutil.rmtree, self._path(job), ignore_errors=True)


def _unwritable(folder: Path, error: OSError) -> Unavailable:
    return Unavailable(f"fits: {folder} can't be written: {error.strerror}; make room, and ask again")


def _drop_data(folder: Path) -> None:
    for pattern in (INPUT, f"{RECORDING}*", f"{CHECKPOINT}*", f"{CANDIDATE}-*"):
        for path in folder.glob(pattern):
            path.unlink(missing_ok=True)


def _result(folder: Path) -> tuple[bytes, dict[str, Any]]:
    return (folder / WEIGHTS).read_bytes(), json.loads((folder / RESULT).read_bytes())
