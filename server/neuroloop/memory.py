"""How much memory a session's arrays take: state, buffers, weights, history. The interpreter's own comes on top."""

from __future__ import annotations

from collections import deque
from typing import Any

import numpy as np


def array_bytes(*holders: Any) -> int:
    """Bytes of every numpy array that is reachable through attributes of our own objects and through containers."""
    seen: set[int] = set()
    total = 0
    waiting = list(holders)
    while waiting:
        holder = waiting.pop()
        while isinstance(holder, np.ndarray) and isinstance(holder.base, np.ndarray):
            holder = holder.base
        if id(holder) in seen:
            continue
        seen.add(id(holder))
        if isinstance(holder, np.ndarray):
            total += holder.nbytes
        elif isinstance(holder, list | tuple | set | deque):
            waiting.extend(holder)
        elif isinstance(holder, dict):
            waiting.extend(holder.values())
        elif type(holder).__module__.startswith("neuroloop."):
            slots = [name for kind in type(holder).__mro__ for name in getattr(kind, "__slots__", ())]
            waiting.extend(getattr(holder, name) for name in slots if hasattr(holder, name))
            waiting.extend(vars(holder).values() if hasattr(holder, "__dict__") else ())
    return total
