"""How nodes of a Ray cluster are called."""

from __future__ import annotations

import ray


def here() -> str:
    """What people know this node by: its address, and the beginning of its id, for several may share an address."""
    return f"{ray.util.get_node_ip_address()} ({ray.get_runtime_context().get_node_id()[:8]})"
