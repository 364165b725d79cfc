"""The lock of a registry's folder, between threads, processes and, where the file system passes it on, machines.

Shared while a version is added, from its blob to its row; exclusive while blobs without a row are collected, or tables
are made. So nobody removes a blob whose row is about to come.
"""

from __future__ import annotations

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class FolderLock:
    """flock on a file. Every holder opens it anew, so that threads of one process exclude each other too."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._held(fcntl.LOCK_SH):
            yield

    @contextmanager
    def exclusive(self) -> Iterator[None]:
        with self._held(fcntl.LOCK_EX):
            yield

    @contextmanager
    def _held(self, how: int) -> Iterator[None]:
        with self._path.open("ab") as file:  # closing it lets go, and so does the end of the process
            fcntl.flock(file, how)
            yield
