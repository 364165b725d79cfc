"""One connection to the stream of a session, blocking or asynchronous. `live` goes on over broken ones."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack

from websockets.asyncio.client import ClientConnection as AsyncConnection
from websockets.asyncio.client import connect as connect_async
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, WebSocketException
from websockets.http11 import Response
from websockets.sync.client import ClientConnection, connect

from neuroloop_client import _http
from neuroloop_client._http import Map

HEARTBEAT_S = 5.0  # between pings; a server that answers none for twice as long has gone


def _run(response: Response | None) -> str:
    return response.headers.get("Neuroloop-Run", "") if response is not None else ""


class Stream:
    """A session's live results, as an iterator of maps; ends when the session ends.

    Answers to labels (`label_accepted`, `error`) and `lagged` come in the same order as everything else.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self._resources = ExitStack()
        try:
            self._connection: ClientConnection = self._resources.enter_context(
                connect(
                    url,
                    compression=None,
                    max_size=None,
                    additional_headers=_http.headers(token),
                    ping_interval=HEARTBEAT_S,
                    ping_timeout=2 * HEARTBEAT_S,
                    close_timeout=1.0,
                )
            )
        except (OSError, WebSocketException) as error:
            raise _http.unreachable(error) from error

    @property
    def run(self) -> str:
        """Names the life of the session that bins are counted in."""
        return _run(self._connection.response)

    def __iter__(self) -> Iterator[Map]:
        return self

    def __next__(self) -> Map:
        message = self.receive()
        if message is None:
            raise StopIteration
        return message

    def receive(self, timeout: float | None = None) -> Map | None:
        """The next map, None when the session has ended. Raises TimeoutError after `timeout` seconds."""
        try:
            return _http.decode(self._connection.recv(timeout))
        except ConnectionClosedOK:
            return None
        except ConnectionClosed as error:
            raise _http.disconnected(error) from error

    def send_label(
        self, label: str, start: float | None = None, end: float | None = None, id: str | int | None = None
    ) -> None:
        """Label an interval of LSL time, or the window that just ended; the answer, with this id, is in the stream."""
        try:
            self._connection.send(_http.label_message(label, start, end, id))
        except ConnectionClosed as error:
            raise _http.disconnected(error) from error

    def close(self) -> None:
        self._resources.close()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class AsyncStream:
    """A session's live results, as an asynchronous iterator of maps; connects at its first use, ends with the session.

    Answers to labels (`label_accepted`, `error`) and `lagged` come in the same order as everything else.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self._url = url
        self._headers = _http.headers(token)
        self._connection: AsyncConnection | None = None

    async def connect(self) -> AsyncConnection:
        """The connection, made now if there is none. Raises NeuroloopClientError."""
        if self._connection is None:
            try:
                self._connection = await connect_async(
                    self._url,
                    compression=None,
                    max_size=None,
                    additional_headers=self._headers,
                    ping_interval=HEARTBEAT_S,
                    ping_timeout=2 * HEARTBEAT_S,
                    close_timeout=1.0,
                )
            except (OSError, WebSocketException) as error:
                raise _http.unreachable(error) from error
        return self._connection

    @property
    def run(self) -> str:
        """Names the life of the session that bins are counted in; empty before there is a connection."""
        return "" if self._connection is None else _run(self._connection.response)

    def __aiter__(self) -> AsyncIterator[Map]:
        return self

    async def __anext__(self) -> Map:
        connection = await self.connect()
        try:
            return _http.decode(await connection.recv())
        except ConnectionClosedOK as error:
            raise StopAsyncIteration from error
        except ConnectionClosed as error:
            raise _http.disconnected(error) from error

    async def send_label(
        self, label: str, start: float | None = None, end: float | None = None, id: str | int | None = None
    ) -> None:
        """Label an interval of LSL time, or the window that just ended; the answer, with this id, is in the stream."""
        connection = await self.connect()
        try:
            await connection.send(_http.label_message(label, start, end, id))
        except ConnectionClosed as error:
            raise _http.disconnected(error) from error

    async def close(self) -> None:
        if self._connection is not None:
            await self._connection.close()

    async def __aenter__(self) -> AsyncStream:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()
