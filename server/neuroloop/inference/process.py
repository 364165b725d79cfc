"""Models that answer requests, in one process of their own: neither a session nor the API waits for them.

The process starts with the first model. If it dies (a model that takes all memory, say), the request under way is
answered with an error, and the next one starts it anew with the models that were loaded.
"""

from __future__ import annotations

import asyncio
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from neuroloop.errors import Conflict, NotFound, Unavailable
from neuroloop.inference.signature import Signature

MODEL_LIMIT = 64
QUEUE_LIMIT = 64


@dataclass(frozen=True)
class Loaded:
    """A model that answers. number: of its version."""

    model: str
    number: int
    kind: str
    weights: bytes
    signature: Signature

    @property
    def key(self) -> str:
        return _key(self.model, self.number)


class Inference:
    """The models that are loaded; used by one event loop."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._loaded: dict[str, Loaded] = {}  # in the order in which they were loaded
        self._waiting = 0
        self._changing = asyncio.Lock()

    def find(self, model: str, number: int | None = None) -> Loaded:
        """A loaded version; without a number the one loaded last. Raises Conflict where none is."""
        for loaded in reversed(self._loaded.values()):
            if loaded.model == model and number in (None, loaded.number):
                return loaded
        which = model if number is None else _key(model, number)
        raise Conflict(f"model {which} is not loaded; POST /v2/repository/models/{model}/load first")

    def is_loaded(self, model: str, number: int) -> bool:
        return _key(model, number) in self._loaded

    async def load(self, model: str, number: int, kind: str, weights: bytes) -> Loaded:
        """Let a version answer. weights: its file. Raises ModelError, Conflict when too many are loaded."""
        key = _key(model, number)
        if key not in self._loaded and len(self._loaded) >= MODEL_LIMIT:
            raise Conflict(f"{MODEL_LIMIT} models are loaded; unload one first")
        signature = await self._call("load", key, kind, weights)
        self._loaded.pop(key, None)
        self._loaded[key] = loaded = Loaded(model, number, kind, weights, signature)
        return loaded

    async def unload(self, model: str) -> None:
        """Let every version of a model go. Raises NotFound where none is loaded."""
        found = [loaded for loaded in self._loaded.values() if loaded.model == model]
        if not found:
            raise NotFound(f"model {model} is not loaded")
        for loaded in found:
            self._loaded.pop(loaded.key, None)
            await self._call("unload", loaded.key)

    async def infer(self, loaded: Loaded, inputs: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """The outputs for a batch. Raises ModelError for another shape, Unavailable if the process ends."""
        outputs: dict[str, NDArray[Any]] = await self._call("infer", loaded.key, inputs)
        return outputs

    async def close(self) -> None:
        """End the process."""
        if self._pool is not None:
            await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    async def _call(self, name: str, *arguments: Any) -> Any:
        if self._waiting >= QUEUE_LIMIT:
            raise Unavailable(f"{QUEUE_LIMIT} requests wait for their answers; try again later")
        self._waiting += 1
        try:
            pool = await self._started()
            return await asyncio.wrap_future(pool.submit(_in_worker, name, *arguments))
        except BrokenProcessPool as error:
            self._pool = None
            raise Unavailable("the inference process has ended; the next request starts it anew") from error
        finally:
            self._waiting -= 1

    async def _started(self) -> ProcessPoolExecutor:
        async with self._changing:
            if self._pool is None:
                pool = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _in_worker, ("begin",))
                for key, loaded in self._loaded.items():
                    await asyncio.wrap_future(pool.submit(_in_worker, "load", key, loaded.kind, loaded.weights))
                self._pool = pool
            return self._pool


def _key(model: str, number: int) -> str:
    return f"{model}/{number}"


def _in_worker(name: str, *arguments: Any) -> Any:
    """Call a function of the worker, in its process. Imported there only: the API's process has no compiler."""
    from neuroloop.inference import worker

    return getattr(worker, name)(*arguments)
