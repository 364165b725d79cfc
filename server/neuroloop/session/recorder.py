"""The thread that writes a recording: what inlets receive, what the session publishes, and notes for a replay.

It reads rings beside the loop and takes messages from a bounded queue; neither waits for it. What a slow disk did not
take is counted, told by the loop, and written into the recording when it can be. A thread beside it waits for the disk
(`fsync`) twice a second. Every chunk of the file is whole when it is written, so whatever ends the process leaves all
but the last moment.
"""

from __future__ import annotations

import os
import platform
import shutil
import threading
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import Future
from importlib import metadata
from pathlib import Path
from typing import Any, Literal

import structlog
from pylsl import local_clock

from neuroloop import __version__
from neuroloop.config import RecordingSettings
from neuroloop.errors import Conflict, NeuroloopError
from neuroloop.recording.writer import XdfWriter
from neuroloop.session.recorder_sources import Feed, RingSource, Sources
from neuroloop.session.recorder_streams import OwnStreams

log = structlog.get_logger(__name__)

TURN_S = 0.05
SYNC_S = 0.5
LOOK_S = 1.0
BOUNDARY_S = 10.0
BEHIND_S = 2.0
PACKAGES = ("numpy", "numba", "scipy", "pylsl")

State = Literal["starting", "recording", "stopped", "failed"]
MakeWriter = Callable[[Path], XdfWriter]


def made_by() -> dict[str, Any]:
    """What bits depend on: the packages and the machine."""
    packages = {"neuroloop": __version__} | {name: metadata.version(name) for name in PACKAGES}
    return {"python": platform.python_version(), "machine": platform.machine(), "packages": packages}


class Waiting:
    """Bytes of what waits for the disk; put and taken are counted by a thread each."""

    def __init__(self) -> None:
        self.put = self.taken = 0

    @property
    def size(self) -> int:
        return self.put - self.taken


class Recorder(threading.Thread):
    """One recording, from its first byte to its last.

    opened, closed: get a description as soon as the file is there, and when it is complete; or the error.
    """

    def __init__(
        self,
        session: str,
        path: Path,
        feeds: list[Feed],
        settings: RecordingSettings,
        make_writer: MakeWriter = XdfWriter,
    ) -> None:
        super().__init__(name=f"{session}-recorder", daemon=True)
        self.path = path
        self.state: State = "starting"
        self.detail = ""
        self.opened: Future[Any] = Future()
        self.closed: Future[Any] = Future()
        self.lost_messages: Counter[str] = Counter()
        self.bytes_on_disk = 0
        self._session = session
        self._settings = settings
        self._make_writer = make_writer
        self._queue: deque[tuple[str, float, Any, int]] = deque()
        self._messages, self._notes = Waiting(), Waiting()
        self._limit = int(settings.buffer_mb * (1 << 20))
        self._told: Counter[str] = Counter()
        self._began = self._turned = local_clock()
        self._sources = Sources(feeds)
        self._ending = threading.Event()
        self._writer: XdfWriter

    # For the loop; nothing waits

    def put(self, kind: str, payload: Any, size: int) -> None:
        """kind: the topic of a packed message, or `note`, or `annotation`. size: bytes, about.

        Messages have the room of `buffer_mb`. Notes, on which a replay depends, have as much of their own, and the last
        one that is taken may be larger: the weights of a model that was loaded are in one.
        """
        if self.state not in ("starting", "recording"):
            return
        waiting = self._waiting(kind)
        if waiting.size + (0 if kind == "note" else size) > self._limit:
            self.lost_messages[kind] += 1
            return
        waiting.put += size
        self._queue.append((kind, local_clock(), payload, size))

    def _waiting(self, kind: str) -> Waiting:
        return self._notes if kind == "note" else self._messages

    def end(self) -> None:
        """Write what is there, and close the file; `closed` says when."""
        self._ending.set()

    @property
    def is_behind(self) -> bool:
        """The disk has not taken anything for a while."""
        return self.state == "recording" and local_clock() - self._turned > BEHIND_S

    @property
    def lost_samples(self) -> int:
        """That this recording lacks, or will."""
        return self._sources.lost

    def describe(self) -> dict[str, Any]:
        """As the status has it; bytes: of the file on the disk."""
        return {
            "name": self.path.stem,
            "state": self.state,
            "detail": self.detail,
            "bytes": self.bytes_on_disk,
            "seconds": round(self._turned - self._began, 3),
            "lost_samples": self.lost_samples,
            "lost_messages": self.lost_messages.total(),
        }

    # The thread

    def run(self) -> None:
        try:
            self._open()
        except (OSError, NeuroloopError) as error:
            self.state, self.detail = "failed", str(error)
            refusal = error if isinstance(error, NeuroloopError) else Conflict(f"recording {self.path}: {error}")
            self.opened.set_exception(refusal)
            self.closed.set_exception(refusal)
            return
        syncing = threading.Thread(target=self._keep_synced, name=f"{self.name}-sync", daemon=True)
        syncing.start()
        try:
            self._record()
        except (OSError, NeuroloopError) as error:
            self._fail(f"{error}; what was written before can be read")
        finally:
            self._ending.set()
            syncing.join()
            self._close()

    def _open(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        free = self._free_mb()
        least = self._settings.least_free_mb
        if free < least:
            raise Conflict(
                f"recording: expected at least {least:g} MB of free space (recording.least_free_mb) in "
                f"{self.path.parent}, got {free:.0f} MB"
            )
        self._writer = self._make_writer(self.path)
        self._inode = self.path.stat().st_ino
        self._streams = OwnStreams(self._writer, self._session)
        self._streams.note(local_clock(), {"kind": "made_by", **made_by()})
        self.state = "recording"
        self.opened.set_result(self.describe())

    def _record(self) -> None:
        looked = marked = local_clock()
        is_last = False
        while not is_last:
            is_last = self._ending.wait(TURN_S)
            self._turn()
            now = self._turned
            if now - marked >= BOUNDARY_S:
                self._writer.boundary()
                marked = now
            if now - looked >= LOOK_S:
                looked = now
                self._look()

    def _turn(self) -> None:
        """Write what has come since the last one. Raises OSError."""
        waiting = len(self._queue)  # before the samples: a prediction is not written without those that it is of
        self._drain()
        for _ in range(waiting):
            kind, time, payload, size = self._queue.popleft()
            self._waiting(kind).taken += size
            match kind:
                case "note":
                    self._streams.note(time, payload, self._drain)
                case "annotation":
                    self._streams.annotation(*payload)
                case _:
                    self._streams.message(kind, payload)
        for kind, count in (self.lost_messages - self._told).items():
            self._streams.lost("messages", {"kind": kind, "count": count, "why": "the disk was too slow"})
            self._told[kind] += count
        self._streams.write()
        self.bytes_on_disk = self._writer.bytes_written
        self._turned = local_clock()

    def _drain(self) -> None:
        self._sources.drain(self._writer, self._streams.lost, self._begin_ring)

    def _begin_ring(self, source: RingSource) -> None:
        note = {"kind": "ring", "ring": source.ring.serial, "stream": source.stream, "first": source.at}
        self._streams.note(local_clock(), note)

    def _look(self) -> None:
        """Whether the file is still there, and room for it. Raises OSError."""
        try:
            found = self.path.stat()
        except FileNotFoundError as error:
            raise Conflict(f"{self.path} was deleted") from error
        if found.st_ino != self._inode:
            raise Conflict(f"{self.path} was replaced by another file")
        self.bytes_on_disk = found.st_size
        if self._free_mb() < self._settings.least_free_mb:
            self.detail = (
                f"stopped: less than {self._settings.least_free_mb:g} MB are free (recording.least_free_mb) in "
                f"{self.path.parent}"
            )
            self._ending.set()

    def _free_mb(self) -> float:
        return shutil.disk_usage(self.path.parent).free / (1 << 20)

    def _keep_synced(self) -> None:
        while not self._ending.wait(SYNC_S):
            try:
                self._writer.sync()
            except OSError as error:
                self._fail(f"fsync: {error}")

    def _fail(self, detail: str) -> None:
        self.state, self.detail = "failed", detail
        self._ending.set()

    def _close(self) -> None:
        try:
            self._writer.close()
        except OSError as error:
            self._fail(self.detail or f"{error}; the file has no footers: neuroloop recordings repair writes them")
        if self.state != "failed":
            self.state = "stopped"
        if self.path.exists():
            self.bytes_on_disk = os.path.getsize(self.path)
        self.closed.set_result(self.describe())
