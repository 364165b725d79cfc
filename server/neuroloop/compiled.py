"""How kernels are compiled: by Numba, without the interpreter's lock, once per version of the sources.

Numba keeps compiled code beside the source file and takes it for fresh while that one file is unchanged, although
functions of other files are compiled into it. Here it is fresh while no file of the folder has changed, by content.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from numba import njit


@cache
def _digest(folder: Path) -> str:
    total = hashlib.sha256()
    for file in sorted(folder.glob("*.py")):
        total.update(file.read_bytes())
    return total.hexdigest()


def kernel(function: Callable[..., Any]) -> Any:
    """Compile a function for arrays and numbers; division by zero gives what IEEE 754 says."""
    compiled: Any = njit(cache=True, nogil=True, error_model="numpy")(function)
    index = getattr(compiled._cache, "_cache_file", None)  # None where no folder for it can be written
    if index is not None:
        index._source_stamp = _digest(Path(function.__code__.co_filename).parent)
    return compiled
