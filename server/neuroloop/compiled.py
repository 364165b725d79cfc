"""How kernels are compiled: by Numba, without the interpreter's lock, once per version of the sources.

Numba keeps compiled code beside the source file and takes it for fresh while that one file is unchanged, although
functions of other files are compiled into it. Here it is fresh while no file of the folder has changed, by content.
And Numba looks only where it can write; here what `neuroloop compile` left in an installation that is only read, such
as a container's, is taken from there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from llvmlite import binding
from numba import njit
from numba.core.caching import CompileResultCacheImpl, FunctionCache, InTreeCacheLocator, NullCache


class _BesideSource(InTreeCacheLocator):
    @classmethod
    def from_function(cls, function: Callable[..., Any], file: str) -> _BesideSource:
        return cls(function, file)


class _ShippedImpl(CompileResultCacheImpl):
    _locator_classes: list[type[object]] = [_BesideSource]  # noqa: RUF012 - declared so by Numba


class _Shipped(FunctionCache):
    """Compiled code that is only read."""

    _impl_class = _ShippedImpl

    def __init__(self, function: Callable[..., Any]) -> None:
        super().__init__(function)  # type: ignore[no-untyped-call]

    def save_overload(self, signature: Any, data: Any) -> None:
        """What was not shipped is compiled by every process that runs it."""


@cache
def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for file in sorted(folder.glob("*.py")):
        total.update(file.read_bytes())
    return total.hexdigest()


def _cache_of(function: Callable[..., Any], file: Path) -> Any:
    beside = file.parent / "__pycache__"
    if not os.access(beside, os.W_OK) and next(beside.glob(f"{file.stem}.{function.__qualname__}-*.nbi"), None):
        return _Shipped(function)
    try:
        return FunctionCache(function)
    except RuntimeError:  # no folder for it can be written
        return NullCache()


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function for arrays and numbers; division by zero gives what IEEE 754 says."""
    compiled: Any = njit(nogil=True, error_model="numpy")(function)
    file = Path(function.__code__.co_filename)
    compiled._cache = kept = _cache_of(function, file)
    if isinstance(kept, FunctionCache):
        kept._cache_file._source_stamp = _digest(file.parent)
    return compiled


def has_avx512() -> bool:
    """Whether kernels are compiled for vectors of 64 bytes: by NUMBA_CPU_NAME, else as this processor has them."""
    target = os.environ.get("NUMBA_CPU_NAME")
    if target is None:
        return bool(binding.get_host_cpu_features().get("avx512f", False))
    return target == "x86-64-v4"


def is_compiled(kernel: Any) -> bool:
    """Whether compiled code of this kernel is kept for the processor that is compiled for."""
    kept = kernel._cache
    if not isinstance(kept, FunctionCache):
        return False
    target = kernel.targetctx.codegen().magic_tuple()
    return any(key[1] == target for key in kept._cache_file._load_index())
