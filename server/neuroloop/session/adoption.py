"""How a session outlives the API process that started it, and how the next one finds it.

A server holds a lock on a file of its run folder, which the kernel lets go of however the server ends. A session whose
server has gone watches that lock: when somebody holds it again the session has been found, and if nobody does for long
enough it ends. Beside the lock lies a record of each session process, by which the next server connects to it.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from neuroloop.errors import Conflict

LOOK_EVERY_S = 0.1
LOCK_PATIENCE_S = 2.0


class Record(BaseModel):
    """What is needed to find a session process again. started: clock ticks after boot, so that no other process that
    got its number is taken for it. directory: of its sockets and its log. run: its life's name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pid: int
    started: int
    directory: Path
    run: str
    settings: dict[str, Any]

    def is_alive(self) -> bool:
        return started(self.pid) == self.started


def started(pid: int) -> int | None:
    """When a process was started, in clock ticks after boot; None if it has ended."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


class RunFolder:
    """The folder of one server's lock and records. Holding it is being that server."""

    def __init__(self, folder: Path) -> None:
        """Raises Conflict if another process is that server."""
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.lock = folder / "lock"
        self._handle = os.open(self.lock, os.O_RDWR | os.O_CREAT, 0o600)
        end = time.monotonic() + LOCK_PATIENCE_S
        while not _try_lock(self._handle, fcntl.LOCK_EX):  # a session that looks at it holds it for a moment
            if time.monotonic() > end:
                os.close(self._handle)
                raise Conflict(f"another server holds {self.lock}; end it first or choose another port")
            time.sleep(0.01)

    def close(self) -> None:
        os.close(self._handle)

    def write(self, name: str, record: Record) -> None:
        path = self._path(name)
        fresh = path.with_suffix(".new")
        fresh.write_text(record.model_dump_json())
        os.replace(fresh, path)

    def forget(self, name: str) -> None:
        self._path(name).unlink(missing_ok=True)

    def checkpoint(self, name: str) -> Path:
        """Where the session of this name keeps what it knows; other files lie beside it, with longer names."""
        return self._folder / "checkpoints" / f"{name}.safetensors"

    def forget_checkpoint(self, name: str) -> None:
        path = self.checkpoint(name)
        for one in path.parent.glob(f"{name}.safetensors*"):
            one.unlink(missing_ok=True)

    def records(self) -> Iterator[Record]:
        """The sessions that a server before this one left running; records of others are removed."""
        for path in sorted(self._folder.glob("*.json")):
            record = None
            with contextlib.suppress(ValidationError):
                record = Record.model_validate_json(path.read_bytes())
            if record is not None and record.is_alive():
                yield record
            else:
                path.unlink()

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.json"


def outlive(lock: Path, patience_s: float) -> None:
    """In a session whose server has gone: return when no server has held the lock for so many seconds."""
    if not lock.exists():
        return  # the folder has gone with the server, as in a demo
    handle = os.open(lock, os.O_RDONLY)
    end = time.monotonic() + patience_s
    while time.monotonic() < end:
        if _try_lock(handle, fcntl.LOCK_SH):
            fcntl.flock(handle, fcntl.LOCK_UN)
            time.sleep(min(LOOK_EVERY_S, patience_s))
            continue
        fcntl.flock(handle, fcntl.LOCK_SH)  # until that server has gone, too
        fcntl.flock(handle, fcntl.LOCK_UN)
        end = time.monotonic() + patience_s
    os.close(handle)


def _try_lock(handle: int, kind: int) -> bool:
    try:
        fcntl.flock(handle, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class AdoptedProcess:
    """A process that another one started, as far as `asyncio.subprocess.Process` would be used of it.

    returncode: None while it runs; -1 after it, for only its parent learns more.
    """

    def __init__(self, pid: int) -> None:
        """Raises ProcessLookupError if it has ended."""
        self.pid = pid
        self.returncode: int | None = None
        self._handle = os.pidfd_open(pid)
        self._ended = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._handle, self._note_end)

    def _note_end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._handle)
        os.close(self._handle)
        self.returncode = -1
        self._ended.set()

    async def wait(self) -> int:
        await self._ended.wait()
        assert self.returncode is not None
        return self.returncode

    def terminate(self) -> None:
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.returncode is not None:
            raise ProcessLookupError(self.pid)
        signal.pidfd_send_signal(self._handle, number)
