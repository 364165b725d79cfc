"""What became of each label since the last checkpoint, on the disk before it is acknowledged.

Written by a thread of its own, which the loop never waits for: a checkpoint may be on its way to a slow disk meanwhile.
A record is with the system when it is acknowledged, so it outlives the process, though not the machine. One that was
being written when the process ended is left out.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import msgpack

from neuroloop.session.priority import Level, step_back

Record = dict[str, Any]


class LabelLog:
    """One file. All methods but `_run` may be called by any thread, and none of them waits."""

    def __init__(self, path: Path, number: int) -> None:
        """number: of the last record that was written before."""
        self.number = number
        self._path = path
        self._queue: SimpleQueue[Record | Callable[[], None] | int | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="label-log", daemon=True)
        self._thread.start()

    def put(self, record: Record) -> None:
        """Take a record in; it gets the next number."""
        self.number += 1
        self._queue.put({"number": self.number, **record})

    def when_written(self, done: Callable[[], None]) -> None:
        """Call this, in the log's thread, when all records so far are written, or can't be."""
        self._queue.put(done)

    def drop(self, number: int) -> None:
        """A checkpoint has the records up to this number."""
        self._queue.put(number)

    def end(self, patience_s: float) -> None:
        self._queue.put(None)
        self._thread.join(patience_s)

    def _run(self) -> None:
        step_back(Level.SESSION)
        last = 0
        with self._path.open("ab", buffering=0) as file:
            while (item := self._queue.get()) is not None:
                if isinstance(item, dict):
                    last = item["number"]
                    _write(file, msgpack.packb(item))
                elif callable(item):
                    item()
                elif last <= item:
                    file.truncate(0)


def _write(file: Any, packed: bytes) -> None:
    with suppress(OSError):  # a full disk; the checkpoint's thread says so
        file.write(packed)


def read(path: Path, after: int) -> list[Record]:
    """The records with numbers beyond `after`, in their order."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return []
    unpacker = msgpack.Unpacker()
    unpacker.feed(content)
    records: list[Record] = []
    with suppress(ValueError, msgpack.UnpackException):
        for record in unpacker:
            if isinstance(record, dict) and record.get("number", 0) > after:
                records.append(record)
    return records
