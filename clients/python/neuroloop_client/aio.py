"""The client for programs with an event loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Sequence

import httpx
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, WebSocketException

from neuroloop_client import _http
from neuroloop_client._calls import Calls
from neuroloop_client._http import DEFAULT_URL, Call, Format, Map


class AsyncStream:
    """A session's live results, as an asynchronous iterator of maps; connects at its first use, ends with the session.

    Answers to labels (`label_accepted`, `error`) and `lagged` come in the same order as everything else.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self._url = url
        self._headers = _http.headers(token)
        self._connection: ClientConnection | None = None

    async def connect(self) -> ClientConnection:
        """The connection, made now if there is none. Raises NeuroloopClientError."""
        if self._connection is None:
            try:
                self._connection = await connect(
                    self._url, compression=None, max_size=None, additional_headers=self._headers
                )
            except (OSError, WebSocketException) as error:
                raise _http.unreachable(error) from error
        return self._connection

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


class AsyncClient(Calls[Awaitable[Map], Awaitable[list[Map]], Awaitable[bytes], Awaitable[None]]):
    """A neuroloop server. Every call raises NeuroloopClientError if the server refuses or does not answer.

    token: of a server that asks for one, as `neuroloop token create` printed it.
    """

    def __init__(self, base_url: str = DEFAULT_URL, timeout: float = 10.0, token: str | None = None) -> None:
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._http = httpx.AsyncClient(base_url=self._base_url, timeout=timeout, headers=_http.headers(token))

    def stream(self, session: str, topics: Sequence[str] = ("predictions",), format: Format = "msgpack") -> AsyncStream:
        """The live results of a session: topics predictions, rates, events, status."""
        return AsyncStream(_http.stream_url(self._base_url, session, topics, format), self._token)

    async def close(self) -> None:
        await self._http.aclose()

    async def __aenter__(self) -> AsyncClient:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def _send(self, call: Call) -> httpx.Response:
        try:
            return _http.read(await self._http.request(**call.arguments()))
        except httpx.HTTPError as error:
            raise _http.unreachable(error) from error

    async def _map(self, call: Call) -> Map:
        answer: Map = (await self._send(call)).json()
        return answer

    async def _list(self, call: Call, key: str | None = None) -> list[Map]:
        answer = (await self._send(call)).json()
        members: list[Map] = answer if key is None else answer[key]
        return members

    async def _file(self, call: Call) -> bytes:
        return (await self._send(call)).content

    async def _nothing(self, call: Call) -> None:
        await self._send(call)
