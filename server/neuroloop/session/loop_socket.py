"""A ZeroMQ socket that the event loop itself reads, through its file descriptor.

`zmq.asyncio` adds a future and a task switch to every message. The descriptor of a ZeroMQ socket is edge-triggered, so
a socket is always read until it is empty, and also after each send, which may consume the edge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import cast

import zmq


class LoopSocket:
    """A ZeroMQ socket that the running event loop reads."""

    def __init__(self, socket: zmq.Socket[bytes], receive: Callable[[list[bytes]], None]) -> None:
        self._socket = socket
        self._receive = receive
        self._loop = asyncio.get_running_loop()
        self._descriptor = cast(int, socket.get(zmq.FD))
        self._loop.add_reader(self._descriptor, self.drain)
        self._loop.call_soon(self.drain)

    def drain(self) -> None:
        if self._socket.closed:
            return
        try:
            frames = self._socket.recv_multipart(zmq.NOBLOCK)
        except zmq.Again:
            return
        try:
            self._receive(frames)
        finally:  # an error is of one message; without this, none would ever be read again
            self._loop.call_soon(self.drain)  # the next message comes after the tasks that this one has woken

    def take_all(self) -> None:
        """Receive at once what is there, from a peer that sends no more."""
        while not self._socket.closed:
            try:
                frames = self._socket.recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._receive(frames)

    def send(self, frames: Sequence[bytes]) -> None:
        self._socket.send_multipart(frames, zmq.NOBLOCK)
        self._loop.call_soon(self.drain)

    def subscribe(self, topic: bytes, is_wanted: bool) -> None:
        (self._socket.subscribe if is_wanted else self._socket.unsubscribe)(topic)
        self._loop.call_soon(self.drain)

    def close(self) -> None:
        self._loop.remove_reader(self._descriptor)
        self._socket.close(linger=0)
