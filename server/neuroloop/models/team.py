"""Training that several processes share: each takes a part of the samples of every step, and all take the same step.

    loss of a step = sum over the processes of what their parts add to it

so the sum of their gradients is the gradient of the whole batch, and a fit by many is the fit by one, but for the order
in which floating-point numbers are added. A mean over samples is divided by the size of the whole batch. What looks at
the batch as a whole (the Barlow Twins loss, the correlations of pathways) is not left to the parts, which would make it
another loss, that of a smaller batch: each process gathers what it needs of the others' samples (`gathered`), as
constants, for their gradient is theirs to add. No network here has batch norm, whose statistics would need the same.

Processors round in their own ways; so all take over the parameters of the first before each epoch (`follow`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from neuroloop.errors import ModelError


def _leave(_values: Tensor) -> None:
    return None


@dataclass(frozen=True)
class Team:
    """One of the processes, by default alone.

    add_up: replaces the values by their sum over all processes. take_first: by those of the first.
    """

    rank: int = 0
    size: int = 1
    add_up: Callable[[Tensor], None] = _leave
    take_first: Callable[[Tensor], None] = _leave

    def own(self, count: int) -> slice:
        """Which of so many samples are this process's; parts are of even size."""
        return slice(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def gathered(self, rows: Tensor, count: int, dim: int = 0) -> Tensor:
        """The rows of all processes, `count` along `dim`, of which these are the own; the others' are constants."""
        if self.size == 1:
            return rows
        own, shape = self.own(count), list(rows.shape)
        shape[dim] = count
        whole = rows.new_zeros(shape)
        whole.narrow(dim, own.start, own.stop - own.start).copy_(rows.detach())
        self.add_up(whole)
        parts = whole.narrow(dim, 0, own.start), rows, whole.narrow(dim, own.stop, count - own.stop)
        return torch.cat(parts, dim)

    def add_up_gradients(self, parameters: Iterable[nn.Parameter]) -> None:
        """To be called between the backward pass and the step."""
        gradients = [one.grad for one in parameters if one.grad is not None]
        if self.size == 1 or not gradients:
            return
        whole = torch.cat([one.reshape(-1) for one in gradients])
        self.add_up(whole)
        for one, part in zip(gradients, torch.split(whole, [one.numel() for one in gradients]), strict=True):
            one.copy_(part.view_as(one))

    def total(self, value: float) -> float:
        """Of what all processes have."""
        values = torch.tensor([value], dtype=torch.float64)
        self.add_up(values)
        return values.item()

    def follow(self, module: nn.Module) -> None:
        """Take over parameters and buffers of the first."""
        if self.size > 1:
            for values in module.state_dict().values():
                self.take_first(values)

    def check(self, samples: int) -> None:
        """Raise ModelError where a process would have nothing to do."""
        if samples < self.size:
            raise ModelError(f"training.workers: expected at most {samples}, the samples of an epoch; got {self.size}")


ALONE = Team()
