"""A launcher that keeps one process ready: everything loaded, waiting to be told which session it is.

Starting one takes 1 to 2 s, most of it to load libraries and compiled code. The next spare is started a while after the
last launch, so that it takes nothing from what has just begun. It ends with the server, whose end closes its standard
input.
"""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from typing import Any

import structlog

from neuroloop.session.launching import LocalLauncher, LocalSession, give

log = structlog.get_logger(__name__)

AFTER_S = 3.0
READY = "ready"


class SpareLauncher:
    """For sessions on this machine."""

    def __init__(self, launcher: LocalLauncher) -> None:
        self._launcher = launcher
        self._spare: LocalSession | None = None
        self._next: asyncio.Task[None] | None = None
        self._is_closed = False

    @property
    def is_ready(self) -> bool:
        """Whether the next launch takes a process that is there."""
        spare = self._spare
        return spare is not None and spare.process.returncode is None and (spare.directory / READY).exists()

    async def launch(self, first_line: dict[str, Any]) -> LocalSession:
        """Raises OSError where no process can be started."""
        if self.is_ready:
            launched, self._spare = self._spare, None
            assert launched is not None
            give(launched.process, first_line)
        else:
            launched = await self._launcher.launch(first_line)
        if self._next is not None:
            self._next.cancel()
        if not self._is_closed:
            self._next = asyncio.create_task(self._prepare(first_line["session"]), name="spare session")
        return launched

    async def _prepare(self, session: dict[str, Any]) -> None:
        """session: what the spare is to have loaded; the last one's settings are the best guess."""
        await asyncio.sleep(AFTER_S)
        if self._spare is not None and self._spare.process.returncode is None:
            return
        try:
            self._spare = await self._launcher.prepare(READY)
        except OSError as error:
            log.warning("no_spare_session", detail=str(error))
            return
        give(self._spare.process, {"warm": session})

    async def close(self) -> None:
        """End the spare."""
        self._is_closed = True
        if self._next is not None:
            self._next.cancel()
            await asyncio.gather(self._next, return_exceptions=True)
        if self._spare is not None:
            with contextlib.suppress(ProcessLookupError):
                self._spare.process.kill()
            await self._spare.process.wait()
            shutil.rmtree(self._spare.directory, ignore_errors=True)
            self._spare = None
