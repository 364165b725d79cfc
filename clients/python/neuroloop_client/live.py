"""A session's live results over broken connections and restarts of the server, without a hole and without a repetition.

Another connection goes on where the last one broke. What the server does not keep any more (a minute) is told by
`lagged`; a session that was started anew, by `new_run`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator

from neuroloop_client._http import Map, NeuroloopClientError
from neuroloop_client._resumption import Resumption, delays
from neuroloop_client.messages import Message
from neuroloop_client.streams import AsyncStream, Stream


class LiveStream:
    """An iterator of typed messages; ends when the session is deleted.

    Raises NeuroloopClientError if there is no connection for `patience_s` seconds, or if the server refuses.
    """

    def __init__(self, open_stream: Callable[[Map], Stream], patience_s: float) -> None:
        self._open_stream = open_stream
        self._patience_s = patience_s
        self._resumption = Resumption()
        self._stream = open_stream({})
        self._resumption.opened(self._stream.run)

    @property
    def run(self) -> str | None:
        """Names the life of the session that bins are counted in."""
        return self._resumption.run

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        message = self.receive()
        if message is None:
            raise StopIteration
        return message

    def receive(self, timeout: float | None = None) -> Message | None:
        """The next message, None when the session was deleted. TimeoutError after so many seconds of silence."""
        while True:
            if (new_run := self._resumption.take_new_run()) is not None:
                return new_run
            try:
                message = self._stream.receive(timeout)
            except NeuroloopClientError as error:
                self._reconnect(error)
                continue
            if message is None:
                return None
            if (taken := self._resumption.take(message)) is not None:
                return taken

    def _reconnect(self, error: NeuroloopClientError) -> None:
        self._stream.close()
        for delay in delays(self._patience_s):
            time.sleep(delay)
            try:
                self._stream = self._open_stream(self._resumption.query())
            except NeuroloopClientError as refusal:
                error = refusal
                if not self._resumption.may_try_again(refusal):
                    break
            else:
                self._resumption.opened(self._stream.run)
                return
        raise error

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> LiveStream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncLiveStream:
    """The same as an asynchronous iterator; it connects at its first use."""

    def __init__(self, open_stream: Callable[[Map], AsyncStream], patience_s: float) -> None:
        self._open_stream = open_stream
        self._patience_s = patience_s
        self._resumption = Resumption()
        self._stream: AsyncStream | None = None

    @property
    def run(self) -> str | None:
        """Names the life of the session that bins are counted in; None before the first connection."""
        return self._resumption.run

    def __aiter__(self) -> AsyncIterator[Message]:
        return self

    async def __anext__(self) -> Message:
        while True:
            stream = self._stream or await self._connect()
            if (new_run := self._resumption.take_new_run()) is not None:
                return new_run
            try:
                message = await anext(stream)
            except NeuroloopClientError as error:
                await self._reconnect(error)
                continue
            if (taken := self._resumption.take(message)) is not None:
                return taken

    async def _connect(self) -> AsyncStream:
        stream = self._open_stream(self._resumption.query())
        await stream.connect()
        self._resumption.opened(stream.run)
        self._stream = stream
        return stream

    async def _reconnect(self, error: NeuroloopClientError) -> None:
        await self.close()
        for delay in delays(self._patience_s):
            await asyncio.sleep(delay)
            try:
                await self._connect()
            except NeuroloopClientError as refusal:
                error = refusal
                if not self._resumption.may_try_again(refusal):
                    break
            else:
                return
        raise error

    async def close(self) -> None:
        if self._stream is not None:
            await self._stream.close()

    async def __aenter__(self) -> AsyncLiveStream:
        await self._connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
