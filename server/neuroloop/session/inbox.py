"""What other threads hand to the loop, and how they wake it."""

from __future__ import annotations

from _thread import allocate_lock
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from neuroloop.errors import NeuroloopError, Unavailable
from neuroloop.session.chain import Chain
from neuroloop.session.inlet import InletEvent, SampleInlet

FULL = 4096


class Reply(Future[Any]):
    """The answer to a command that is to come. request_id: of the HTTP request or the stream behind it, if any."""

    request_id: str | None = None


def request_behind(reply: Future[Any]) -> str | None:
    """The id of the request that waits for this."""
    return reply.request_id if isinstance(reply, Reply) else None


@dataclass(frozen=True)
class Command:
    """Somebody asks something; `reply` gets the answer, or the error."""

    name: str
    arguments: dict[str, Any]
    reply: Future[Any]

    def answer(self, handler: Callable[[], Any]) -> None:
        """By the loop. handler: returns the result, or None if it will set the reply itself."""
        try:
            result = handler()
        except NeuroloopError as error:
            self.reply.set_exception(error)
            return
        except BaseException:
            self.reply.set_exception(Unavailable(f"{self.name!r} broke the session; its log says how"))
            raise
        if result is not None:
            self.reply.set_result(result)


@dataclass(frozen=True)
class Notice:
    """An inlet changed. inlet: None for a marker inlet."""

    inlet: SampleInlet | None
    event: InletEvent


@dataclass(frozen=True)
class Found:
    """An inlet found its stream. chain: what was made for it, or the present one; start: count of its first sample."""

    inlet: SampleInlet
    chain: Chain
    start: int


@dataclass(frozen=True)
class MarkerLabel:
    label: str
    start: float
    end: float


@dataclass(frozen=True)
class Call:
    """Something that a thread of the session leaves to the loop. due: what a recording calls it, if it changes bins."""

    run: Callable[[], None]
    due: str | None = None


@dataclass(frozen=True)
class Crash:
    """A thread of the session ended by an error that nobody expected; detail: its traceback."""

    detail: str


@dataclass(frozen=True)
class End:
    """The session is to end."""


class Inbox:
    """A bounded queue of messages, and a bell.

    The bell is a bare lock, taken by the loop and released by whoever wakes it: its wait is one system call, where
    `threading.Condition` makes a new lock for each.
    """

    def __init__(self) -> None:
        self._items: deque[Any] = deque()
        self._closed = False
        self._bell = allocate_lock()
        self._bell.acquire()

    def put(self, item: Any) -> None:
        """Hand a message over and wake the loop.

        Raises Unavailable where the loop has not taken thousands of them, or has ended; never for a Crash or an End.
        """
        if not isinstance(item, Crash | End):
            if self._closed:
                raise Unavailable("the session is ending")
            if len(self._items) >= FULL:
                raise Unavailable(f"the loop has not taken the last {FULL} messages")
        self._items.append(item)
        self.wake()

    @property
    def waiting(self) -> int:
        """Messages that the loop has not taken."""
        return len(self._items)

    def wake(self) -> None:
        """Wake the loop; more than once is once."""
        try:
            self._bell.release()
        except RuntimeError:
            return  # rung already

    def wait(self, timeout: float) -> None:
        """Until somebody wakes the loop, at most `timeout` seconds."""
        self._bell.acquire(timeout=timeout)

    def close(self) -> list[Any]:
        """Take no more; returns the messages that nobody will take."""
        self._closed = True
        return self.take()

    def take(self) -> list[Any]:
        """The messages so far, oldest first."""
        items = []
        while self._items:
            items.append(self._items.popleft())
        return items
