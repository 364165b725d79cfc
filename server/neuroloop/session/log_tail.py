"""A session's own words: its error output goes to a file, which outlives the API process, and from there to ours."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path

LOOK_EVERY_S = 0.2
FILE_BYTES = 2**20  # then it is emptied: what was in it has been passed on
KEPT_BYTES = 8192
KEPT_LINES = 20


class LogTail:
    """Passes on what is written to a file, and keeps the end of it."""

    def __init__(self, path: Path, from_end: bool = False) -> None:
        """from_end: what is in the file already has been passed on by somebody else."""
        self._path = path
        self._offset = path.stat().st_size if from_end and path.exists() else 0
        self._kept = b""

    async def follow(self) -> None:
        """Until cancelled."""
        while True:
            self.read()
            await asyncio.sleep(LOOK_EVERY_S)

    def read(self) -> None:
        """Pass on what is new."""
        with open(self._path, "rb") as file:
            file.seek(self._offset)
            fresh = file.read()
        if not fresh:
            return
        self._offset += len(fresh)
        self._kept = (self._kept + fresh)[-KEPT_BYTES:]
        sys.stderr.write(fresh.decode(errors="replace"))
        if self._offset > FILE_BYTES:
            os.truncate(self._path, 0)
            self._offset = 0

    @property
    def lines(self) -> list[str]:
        """The last lines."""
        return self._kept.decode(errors="replace").splitlines()[-KEPT_LINES:]
