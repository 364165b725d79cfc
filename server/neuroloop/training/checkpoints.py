"""The checkpoint of a fit: the states of its training loops and what was told of it, one safetensors file in the job's
folder.

It is written whole or not at all, at most every `EVERY_S` seconds, and read by the process that resumes the fit. A
state that no loop has any more, because the loop is through, is part of it: on resuming, that loop has nothing to do.
The values that are no tensors are JSON in the file's metadata; nothing is unpickled.
"""

from __future__ import annotations

import hashlib
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import structlog
from safetensors import SafetensorError

from neuroloop import __version__
from neuroloop.models.kept import Kept, State
from neuroloop.training.fitted import Tell
from neuroloop.training.job import CHECKPOINT, write_whole
from neuroloop.training.request import FitRequest

log = structlog.get_logger(__name__)

EVERY_S = 5.0
KEY = "neuroloop.checkpoint"  # of the file's metadata


class Checkpoint:
    """Of one fit. told: (progress, loss) of everything that the fit said until then."""

    def __init__(self, folder: Path, digest: str) -> None:
        """digest: of what is fitted to what; a file of another one is not used."""
        self._path, self._digest = folder / CHECKPOINT, digest
        self._written: float | None = None
        self._states: dict[str, State] = {}
        self.told: list[tuple[float, float | None]] = []

    def read(self) -> bool:
        """Go on from the file; whether there is one of this fit."""
        try:
            content = self._path.read_bytes()
        except OSError:
            return False
        from safetensors.torch import load  # and PyTorch, which most kinds do without

        try:
            header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
            document = json.loads(header["__metadata__"][KEY])
            if document["digest"] != self._digest:
                return False
            tensors = load(content)
            states = {name: _unpacked(packed, tensors) for name, packed in document["states"].items()}
            told = [(progress, loss) for progress, loss in document["told"]]
        except (SafetensorError, ValueError, TypeError, KeyError) as error:
            log.warning("checkpoint_not_read", path=str(self._path), error=str(error))
            return False
        self._states, self.told = states, told
        return True

    def noting(self, tell: Tell) -> Tell:
        """Tells the same, and notes it."""

        def noted(progress: float, loss: float | None) -> None:
            self.told.append((progress, loss))
            tell(progress, loss)

        return noted

    def stage(self, name: str) -> Kept:
        """Where the training loop of this name keeps its state."""
        return Kept(partial(self._states.get, name), partial(self._save, name))

    def reading(self, name: str) -> Kept:
        """The same, for a process of a shared fit that is not to write the file: another one does."""
        return Kept(partial(self._states.get, name))

    def _save(self, name: str, state: State) -> None:
        self._states[name] = _copy(state)
        now = time.monotonic()
        if self._written is not None and now < self._written + EVERY_S:
            return
        try:
            write_whole(self._path, self._content())
        except OSError as error:  # the fit goes on without it
            log.warning("checkpoint_not_written", path=str(self._path), error=str(error))
        self._written = time.monotonic()

    def _content(self) -> bytes:
        from safetensors.torch import save

        tensors: dict[str, Any] = {}
        states = {name: _packed(state, tensors) for name, state in self._states.items()}
        document = {"digest": self._digest, "told": self.told, "states": states}
        return save(tensors, {KEY: json.dumps(document)})


def digest_of(request: FitRequest, data: str) -> str:
    """Of the request, the data, known by their digest, and this version, whose loops have states of their own."""
    asked = request.model_dump_json(by_alias=True)
    return hashlib.sha256(f"{__version__}\n{data}\n{asked}".encode()).hexdigest()


def _copy(value: Any) -> Any:
    """With tensors of its own, on the CPU."""
    import torch

    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True).contiguous()
    if isinstance(value, dict):
        return {key: _copy(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_copy(one) for one in value)
    return value


def _packed(value: Any, tensors: dict[str, Any]) -> Any:
    """As JSON has it, the tensors apart, by number. Maps may have keys that are no strings."""
    import torch

    if isinstance(value, torch.Tensor):
        name = str(len(tensors))
        tensors[name] = value
        return {"tensor": name}
    if isinstance(value, dict):
        return {"map": [[key, _packed(one, tensors)] for key, one in value.items()]}
    if isinstance(value, tuple):
        return {"tuple": [_packed(one, tensors) for one in value]}
    if isinstance(value, list):
        return [_packed(one, tensors) for one in value]
    return value


def _unpacked(value: Any, tensors: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_unpacked(one, tensors) for one in value]
    if not isinstance(value, dict):
        return value
    ((form, content),) = value.items()
    if form == "tensor":
        return tensors[content]
    if form == "tuple":
        return tuple(_unpacked(one, tensors) for one in content)
    if form == "map":
        return {key: _unpacked(one, tensors) for key, one in content}
    raise ValueError(f"expected a tensor, tuple or map, got {form!r}")
