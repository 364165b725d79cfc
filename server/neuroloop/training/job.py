"""One fit job as it is known, and as it lies on disk: a folder with `job.json`, its input and its result.

    queued -> running -> done
       |         +-----> failed, cancelled, interrupted
       +---------------> failed, cancelled, interrupted

A job that was interrupted, or whose process died, keeps its data and can be queued again: it is resumed.

`job.json` is replaced atomically, so that it is whole whenever the server dies. Servers may share a folder of jobs: the
one that works on a job holds a lock on the file `owner` in its folder, which the system lets go of when it dies.
"""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from neuroloop.errors import Conflict
from neuroloop.training.request import Activation, FitRequest

State = Literal["queued", "running", "done", "failed", "cancelled", "interrupted"]

FILE, OWNER, INPUT, RESULT, WEIGHTS = "job.json", "owner", "input.npz", "result.json", "weights.safetensors"
CHECKPOINT = "checkpoint.safetensors"
CANDIDATE = "candidate"
RECORDING = "recording"  # a link to it, with its suffix
NEXT: dict[State, tuple[State, ...]] = {
    "queued": ("running", "failed", "cancelled", "interrupted"),
    "running": ("done", "failed", "cancelled", "interrupted"),
}
CURVE_LENGTH = 1000


def link_name(index: int, suffix: str = "") -> str:
    """Of the link to one of several recordings."""
    return f"{RECORDING}-{index:04}{suffix}"


def part_name(index: int) -> str:
    """Of the file with what one of several recordings comes to; see `covariances`."""
    return f"part-{index:04}.npz"


def candidate_name(index: int) -> str:
    """Of the file with what one of the candidates of a search came to; see `search`."""
    return f"{CANDIDATE}-{index:04}.npz"


def now() -> datetime:
    return datetime.now(UTC)


class Job(BaseModel):
    """curve: (progress, loss) of each report that had a loss. version: of the model, when it is registered.

    has_data: whether the data lie in the folder. activate, session: who is to use the result, as what; activation: what
    became of that. detail: why there is no result. pid, node: of its process; no node is this machine. died: whether
    its process did, which says nothing against the request. resumed: for each time that it was resumed, or
    moved to another node, the progress that it went on from; 0 where it began anew.
    """

    model_config = ConfigDict(extra="forbid", validate_assignment=True)

    id: str
    request: FitRequest
    activate: Activation = "none"
    session: str | None = None
    by: str | None = None
    state: State = "queued"
    has_data: bool = False
    created: datetime = Field(default_factory=now)
    started: datetime | None = None
    ended: datetime | None = None
    pid: int | None = None
    node: str | None = None
    progress: float = Field(0.0, ge=0, le=1)
    curve: list[tuple[float, float]] = Field(default_factory=list)
    metrics: dict[str, float | None] = Field(default_factory=dict)
    result: dict[str, Any] | None = None
    version: int | None = None
    activation: str | None = None
    detail: str | None = None
    died: bool = False
    resumed: list[float] = Field(default_factory=list)

    @property
    def ended_already(self) -> bool:
        return self.state not in NEXT

    def turn(self, state: State, detail: str | None = None) -> None:
        """Go on to another state. Raises Conflict where there is no way from this one."""
        if state not in NEXT.get(self.state, ()):
            raise Conflict(f"fit {self.id!r} is {self.state} already, so it cannot be {state}")
        self.state, self.detail = state, detail
        if state == "running":
            self.started = now()
            return
        self.ended, self.pid = now(), None
        if state == "done":
            self.progress = 1.0

    @property
    def is_resumable(self) -> bool:
        return self.has_data and (self.state == "interrupted" or (self.state == "failed" and self.died))

    def wait_again(self) -> None:
        """Be resumed: go back to the queue. Raises Conflict that says why not."""
        if self.state not in ("interrupted", "failed"):
            raise Conflict(f"fit {self.id!r} is {self.state}; only one that was interrupted can be resumed")
        if self.state == "failed" and not self.died:
            raise Conflict(f"fit {self.id!r} failed, and would again: {self.detail}; change it, and ask for it anew")
        if not self.has_data:
            raise Conflict(f"fit {self.id!r} has no data any more, or had none yet; ask for it anew")
        self.state, self.detail, self.died = "queued", None, False
        self.started = self.ended = None
        self.resumed.append(0.0)

    def go_on(self, progress: float) -> None:
        """Its process has found a checkpoint."""
        if self.resumed:
            self.resumed[-1] = progress

    def move(self) -> None:
        """Its node was lost, and it is on another."""
        self.resumed.append(0.0)

    def begin(self, pid: int, node: str | None) -> None:
        """Its process has started, perhaps again on another node."""
        self.pid, self.node = pid, node
        self.progress = 0.0
        self.curve.clear()

    def advance(self, progress: float, loss: float | None) -> None:
        """A report of the fit process. Of a long curve every second point is kept."""
        self.progress = max(self.progress, progress)
        if loss is None:
            return
        self.curve.append((progress, loss))
        if len(self.curve) > CURVE_LENGTH:
            del self.curve[1:-1:2]

    def below_gate(self) -> str | None:
        """Why the result is not good enough to be used, or None."""
        wanted, name = self.request.min_metric, self.request.gate
        if wanted is None:
            return None
        reached = self.metrics.get(name)
        if reached is not None and reached >= wanted:
            return None
        return f"{name} {'unknown' if reached is None else f'{reached:.4g}'} < {wanted:g}"

    def save(self, folder: Path) -> None:
        """Write the file in the job's folder."""
        write_whole(folder / FILE, self.model_dump_json(by_alias=True).encode())


def load(folder: Path) -> Job | None:
    """The job of a folder; None where there is none that can be read, as after a crash before it was first saved."""
    try:
        return Job.model_validate_json((folder / FILE).read_bytes())
    except (OSError, ValidationError):
        return None


def own(folder: Path) -> int | None:
    """Take a job for this server; returns the descriptor that holds it, or None where another server has it."""
    descriptor = os.open(folder / OWNER, os.O_CREAT | os.O_RDWR, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    return descriptor


def write_whole(path: Path, content: bytes) -> None:
    """Put a file there, whole or not at all."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)
