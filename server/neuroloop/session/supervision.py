"""When a session process is to be ended and replaced: it died, says nothing, or takes too much memory.

`Restarts` is pure: it is told times and says how long to wait. `Overseer` looks at a process once in a while.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import structlog

from neuroloop.server_config import SupervisionSettings

log = structlog.get_logger(__name__)

LONGEST_BACKOFF_S = 10.0
LOOK_EVERY_S = 0.5
SETTLED_LATE_S = 1.0  # a look that is so late says that this process was held up itself
STARTING_S = 300.0  # until the first prediction: everything may have to be compiled
MB = 1024 * 1024

Cause = Literal["exit", "signal", "hang", "memory"]


class Restarts:
    """The restarts of one session."""

    def __init__(self, settings: SupervisionSettings) -> None:
        self.count = 0
        self._settings = settings
        self._recent: deque[float] = deque()

    def delay_s(self, now: float) -> float | None:
        """How long to wait before the next one, at this time in seconds; None for never."""
        settings, recent = self._settings, self._recent
        while recent and recent[0] <= now - settings.within_s:
            recent.popleft()
        if len(recent) >= settings.restarts:
            return None
        before = len(recent)
        recent.append(now)
        self.count += 1
        return 0.0 if before == 0 else min(LONGEST_BACKOFF_S, settings.backoff_s * 2.0 ** (before - 1))


class Overseer:
    """Watches one process, and ends it where it hangs or has grown too large; then `cause` says why."""

    def __init__(self, settings: SupervisionSettings, pid: int | None, kill: Callable[[], None], name: str) -> None:
        """pid: None for one of another machine, whose memory is not known."""
        self.cause: Cause | None = None
        self.detail = ""
        self._settings = settings
        self._pid = pid
        self._kill = kill
        self._name = name
        self._heard = time.monotonic()
        self._patient_until = self._heard + STARTING_S
        self._is_patient = True
        self._is_ended = False

    def heard(self, topic: bytes) -> None:
        """It has said something: about once a second its status, and predictions once it has everything compiled."""
        self._heard = time.monotonic()
        if topic == b"predictions" and self._is_patient:
            self._is_patient, self._patient_until = False, self._heard

    def be_patient(self, seconds: float) -> None:
        """It may have to compile for so long: that holds its interpreter's lock for seconds on end."""
        self._patient_until = max(self._patient_until, time.monotonic() + seconds)

    def end(self) -> None:
        """Somebody else ends the process."""
        self._is_ended = True

    async def watch(self) -> None:
        """Until it is told to end, or has ended the process."""
        before = time.monotonic()
        while self.cause is None:
            await asyncio.sleep(LOOK_EVERY_S)
            if self._is_ended:
                return
            now = time.monotonic()
            if now - before > LOOK_EVERY_S + SETTLED_LATE_S:
                self._heard = now  # what it said meanwhile is still to be read
            before = now
            self._look(now)

    def _look(self, now: float) -> None:
        silent_s, limit_mb = now - self._heard, self._settings.memory_mb
        if silent_s > self._settings.hang_s and now > self._patient_until:
            self._end("hang", f"said nothing for {silent_s:.1f} s")
        elif limit_mb is not None and self._pid is not None and (used := resident_mb(self._pid)) > limit_mb:
            self._end("memory", f"takes {used:.0f} MB of memory, more than supervision.memory_mb, {limit_mb:g}")

    def _end(self, cause: Cause, detail: str) -> None:
        self.cause, self.detail = cause, detail
        log.warning("session_process_ended", session=self._name, cause=cause, detail=detail)
        with contextlib.suppress(ProcessLookupError):
            self._kill()


def resident_mb(pid: int) -> float:
    """Resident memory of a process, by Linux; 0 where it has ended."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0.0
    return pages * os.sysconf("SC_PAGESIZE") / MB


def how_it_ended(exit_code: int) -> tuple[Cause, str]:
    """The cause, and words for a person. exit_code: negative for a signal."""
    if exit_code >= -1:  # -1: of a process that another server had started, which nobody knows more of
        return "exit", f"ended with exit code {exit_code}"
    try:
        name = signal.Signals(-exit_code).name
    except ValueError:
        name = f"signal {-exit_code}"
    return "signal", f"was ended by {name}"
