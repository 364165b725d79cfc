"""The processes of the demo: a server and a source. They end with the demo, whatever ends it."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from tempfile import TemporaryFile
from types import TracebackType
from typing import Any

from neuroloop.errors import Unavailable

READY_S = 90.0  # the very first start compiles
GRACE_S = 8.0
PYTHON = (sys.executable, "-m")


class Process:
    """`python -m MODULE ARGUMENTS`, in a process group of its own, so that Ctrl-C reaches the demo alone."""

    def __init__(self, module: str, arguments: Sequence[str], program: Sequence[str] = PYTHON) -> None:
        """program: what runs the module."""
        self.name = module
        self._errors = TemporaryFile()  # noqa: SIM115 - closed with the process
        self._process = subprocess.Popen(
            [*program, module, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            bufsize=0,  # what `select` does not see must not hold a line
            start_new_session=True,
        )

    def __enter__(self) -> Process:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it: first kindly, so that it ends what it started itself."""
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            self._process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._errors.close()

    def line(self, starts: str) -> str:
        """The first line of its output that starts so. Raises Unavailable if it ends, or is silent for too long."""
        output = self._process.stdout
        if output is None:
            raise Unavailable(f"{self.name}: its output is not connected")
        deadline = time.monotonic() + READY_S
        while time.monotonic() < deadline:
            if not select.select([output], [], [], 0.2)[0]:
                self.check()
                continue
            text = output.readline().decode()
            if text.startswith(starts):
                return text
            if not text:
                self._process.wait(GRACE_S)
                self.check()
        raise Unavailable(f"{self.name}: was not ready within {READY_S:g} s")

    def json_line(self) -> dict[str, Any]:
        """The first line of its output that is a JSON map."""
        found: dict[str, Any] = json.loads(self.line("{"))
        return found

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def check(self) -> None:
        """Raises Unavailable with the last line of its error output if it has ended."""
        if self.running:
            return
        self._errors.seek(0)
        lines = self._errors.read().decode(errors="replace").strip().splitlines() or ["no word about why"]
        last = lines[-1].removeprefix("error: ").removeprefix("neuroloop: ")
        raise Unavailable(f"{self.name} ended with code {self._process.returncode}: {last}")
