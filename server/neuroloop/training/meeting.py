"""How the processes of a shared fit (`models.team`) meet, and what goes between them: sums, over PyTorch's gloo.

The first listens at the meeting place, HOST:PORT, an address of its node; the others find it there. All listen and talk
on the network that this address belongs to, whatever the names of the nodes say, and on no other.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any

import torch.distributed
from torch import Tensor

from neuroloop.models.team import Team
from neuroloop.training.messages import Parted

dist: Any = torch.distributed  # much of it has no types
TOGETHER = timedelta(minutes=10)  # that the slowest to start, or to compute, may take


@contextmanager
def met(rank: int, size: int, place: str) -> Iterator[Team]:
    """The team, when all have come. Its functions raise Parted."""
    host, _, port = place.rpartition(":")
    try:
        store = _store(rank, size, host, int(port))
        options = dist.ProcessGroupGloo._Options()
        options._devices = [dist.ProcessGroupGloo.create_device(hostname=_own_address(host, int(port)))]
        options._timeout = TOGETHER
        group = dist.ProcessGroupGloo(store, rank, size, options)
    except RuntimeError as error:
        raise Parted(f"the {size} processes of the fit did not meet at {place}: {error}") from error
    yield Team(rank, size, partial(_together, group.allreduce), partial(_together, partial(group.broadcast, root=0)))


def _store(rank: int, size: int, host: str, port: int) -> Any:
    if rank:
        return dist.TCPStore(host, port, size, False, TOGETHER)
    with socket.create_server((host, port)) as listener:  # on this address alone; by itself it listens on all
        return dist.TCPStore(host, port, size, True, TOGETHER, master_listen_fd=listener.detach())


def _own_address(host: str, port: int) -> str:
    """Of this machine, on the way to that host."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect((host, port))  # sends nothing
        address: str = probe.getsockname()[0]
        return address


def _together(operation: Callable[[Tensor], Any], values: Tensor) -> None:
    try:
        own = values.detach().cpu().contiguous()
        operation(own).wait()
        values.detach().copy_(own)
    except RuntimeError as error:
        raise Parted(f"a process of the fit has gone: {error}") from error
