"""What a model takes and gives, as the Open Inference Protocol describes tensors."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tensor:
    """shape: -1 for the batch, or time. datatype: FP32, FP64, INT64, BYTES."""

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """One input, and the outputs for it."""

    input: Tensor
    outputs: tuple[Tensor, ...]
