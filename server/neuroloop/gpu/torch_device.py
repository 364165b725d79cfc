"""Where the stages in PyTorch run: a device, a CUDA stream of the chain's own, pinned memory, captured graphs.

All CUDA is in this file. A step is a function without arguments that reads and writes tensors which stay in place; on a
GPU it is captured once as a graph and replayed, on a CPU it is simply called, so the stages are the same code and
are tested without a GPU. A graph costs one launch whatever is in it: the chain of a block is some 180 small
kernels, which launched one by one would take longer than they run.

Products are taken in full float32. TensorFloat-32 keeps 10 bits of the mantissa: rereferencing subtracts what
channels have in common, so an error of 1e-3 of the common part would be as large as the spikes that are left.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Step = Callable[[], object]

new_stream: Callable[..., torch.cuda.Stream] = torch.cuda.Stream  # PyTorch leaves these two without types
new_event: Callable[..., torch.cuda.Event] = torch.cuda.Event

WARM_UPS = 3  # runs before a capture, as PyTorch asks for: libraries set themselves up, the allocator fills


@contextmanager
def full_float32() -> Iterator[None]:
    """Float32 products as float32, whatever the process has chosen; a captured graph keeps the kernels chosen here."""
    chosen = torch.get_float32_matmul_precision()
    if chosen == "highest":
        yield
        return
    torch.set_float32_matmul_precision("highest")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(chosen)


class TorchDevice:
    """One device, as one chain uses it. Work of the loop goes in order through `queue`, uploads go `beside` it."""

    def __init__(self, device: str | torch.device = "cuda") -> None:
        self.device = torch.device(device)
        self.is_cuda = self.device.type == "cuda"
        self.capture_error: str | None = None
        self.graph_bytes = 0
        self._stream = new_stream(self.device) if self.is_cuda else None
        self._side = new_stream(self.device) if self.is_cuda else None

    @contextmanager
    def queue(self) -> Iterator[None]:
        """What is asked for in here runs on the device, in this order, after all that was asked for before."""
        with full_float32(), torch.cuda.stream(self._stream):
            yield

    def zeros(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """A tensor on the device."""
        with self.queue():
            return torch.zeros(shape, dtype=dtype, device=self.device)

    def constant(self, values: Any, dtype: torch.dtype) -> Tensor:
        """Values on the device. As scalars of a captured `where` they cost no kernel to fill them in each time."""
        with self.queue():
            return torch.as_tensor(values, dtype=dtype).to(self.device)

    def pinned(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """Memory of the host that the device reads and writes by itself, while the host goes on."""
        return torch.zeros(shape, dtype=dtype, pin_memory=self.is_cuda)

    def event(self) -> torch.cuda.Event | None:
        """A mark in the queue that the host can wait for; None where nothing runs behind the host's back."""
        return new_event() if self.is_cuda else None

    def upload_beside(self, arrays: Iterable[NDArray[Any]]) -> tuple[tuple[Tensor, ...], torch.cuda.Event | None]:
        """Copies on the device, made beside the queue, and the event after which they are there. For any thread."""
        tensors = [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]
        if self._side is None:
            return tuple(tensors), None
        with torch.cuda.stream(self._side):
            copies = tuple(tensor.pin_memory().to(self.device, non_blocking=True) for tensor in tensors)
            ready = new_event()
            ready.record(self._side)
        return copies, ready

    def take_over(self, tensors: Iterable[Tensor], ready: torch.cuda.Event | None) -> None:
        """Have the queue wait for copies made beside it; the host does not wait."""
        if self._stream is None or ready is None:
            return
        self._stream.wait_event(ready)
        for tensor in tensors:
            tensor.record_stream(self._stream)  # the allocator of the other stream must not reuse it before

    def download_beside(self, tensors: Iterable[Tensor]) -> tuple[tuple[Tensor, ...], torch.cuda.Event | None]:
        """Copies on the host of how the tensors stand now in the queue, and the event after which they are there.

        The queue is held up by a copy within the device only; the way to the host is beside it.
        """
        with self.queue():
            copies = [tensor.clone() for tensor in tensors]
            if self._side is None:
                return tuple(copies), None
            cloned = new_event()
            cloned.record()
        with torch.cuda.stream(self._side):
            self._side.wait_event(cloned)
            hosts = tuple(torch.empty_like(copy, device="cpu", pin_memory=True) for copy in copies)
            for host, copy in zip(hosts, copies, strict=True):
                host.copy_(copy, non_blocking=True)
                copy.record_stream(self._side)
            ready = new_event()
            ready.record(self._side)
        return hosts, ready

    def compile(self, step: Step) -> Step:
        """The step as a captured graph, or as it is on a CPU, or where the capture fails; see `capture_error`.

        The step is run to warm it up: what it changed is to be reset afterwards.
        """
        if not self.is_cuda:
            with self.queue():
                step()
            return step
        reserved = torch.cuda.memory_reserved(self.device)
        with self.queue():
            for _ in range(WARM_UPS):
                step()
        graph = torch.cuda.CUDAGraph()
        try:
            with full_float32(), torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                step()
        except RuntimeError as error:
            self.capture_error = str(error)
            return step
        self.graph_bytes += max(0, torch.cuda.memory_reserved(self.device) - reserved)
        return graph.replay


def tensor_bytes(*owners: object) -> int:
    """Bytes of all tensors that these objects hold as attributes, in lists, tuples and dictionaries too."""
    storages: dict[int, int] = {}
    waiting: list[object] = [value for owner in owners for value in vars(owner).values()]
    while waiting:
        value = waiting.pop()
        if isinstance(value, Tensor):
            storages[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
    return sum(storages.values())
