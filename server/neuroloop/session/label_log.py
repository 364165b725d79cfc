"""What became of each label since the last checkpoint, on the disk before it is acknowledged.

Written by a thread of its own, which the loop never waits for: a checkpoint may be on its way to a slow disk meanwhile.
A record is with the system when it is acknowledged, so it outlives the process, though not the machine. One that was
being written when the process ended is left out.
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from io import FileIO
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import msgpack

from neuroloop.session.priority import Level, step_back

LONG_BYTES = 1 << 20

Record = dict[str, Any]


class LabelLog:
    """One file. All public methods may be called by any thread, and none of them waits."""

    def __init__(self, path: Path, number: int, records: Sequence[Record] = ()) -> None:
        """number: of the last record that was written before. records: those that are still needed."""
        self.number = number
        self._path = path
        self._kept = deque((record["number"], msgpack.packb(record)) for record in records)
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
        file = self._written_anew()  # without a record that was cut off
        while (item := self._queue.get()) is not None:
            if isinstance(item, dict):
                self._kept.append((item["number"], msgpack.packb(item)))
                with suppress(OSError):  # a full disk; the checkpoint's thread says so
                    file.write(self._kept[-1][1])
            elif callable(item):
                item()
            elif self._is_long_without(item):
                file.close()
                file = self._written_anew()
        file.close()

    def _is_long_without(self, number: int) -> bool:
        """Whether the file is to be written anew; forgets the records up to this number."""
        before = len(self._kept)
        while self._kept and self._kept[0][0] <= number:
            self._kept.popleft()
        if not self._kept:
            return before > 0
        needed = sum(len(record) for _, record in self._kept)
        return self._path.stat().st_size > 2 * needed + LONG_BYTES

    def _written_anew(self) -> FileIO:
        """With the records that are needed."""
        fresh = self._path.with_name(f"{self._path.name}.new")
        with suppress(OSError):
            fresh.write_bytes(b"".join(record for _, record in self._kept))
            os.replace(fresh, self._path)
        return self._path.open("ab", buffering=0)


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
