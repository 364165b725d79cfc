"""Tells systemd that the server is up and alive: a few words over the socket that it names, if it names one.

The protocol is that of `sd_notify`: a datagram of `KEY=value` lines to the Unix socket in NOTIFY_SOCKET.
"""

from __future__ import annotations

import asyncio
import os
import socket

READY, STOPPING, ALIVE = "READY=1", "STOPPING=1", "WATCHDOG=1"


def tell(state: str) -> bool:
    """Whether there was somebody to tell."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as told:
        try:
            told.sendto(state.encode(), f"\0{address[1:]}" if address.startswith("@") else address)
        except OSError:  # systemd is being restarted, or is gone
            return False
    return True


def watchdog_s() -> float | None:
    """How often to say that the server is alive: half of what systemd waits; None where it does not."""
    usec, pid = os.environ.get("WATCHDOG_USEC", ""), os.environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 2e6


async def keep_alive() -> None:
    """Say so from the event loop: one that is stuck is restarted, and its sessions go on meanwhile."""
    every_s = watchdog_s()
    while every_s is not None:
        tell(ALIVE)
        await asyncio.sleep(every_s)
