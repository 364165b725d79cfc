"""The client for programs with an event loop."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Sequence

import httpx

from neuroloop_client import _http
from neuroloop_client._calls import Calls
from neuroloop_client._http import DEFAULT_URL, Call, Format, Map
from neuroloop_client.clock import ROUND_TRIPS, Clock, estimate
from neuroloop_client.live import AsyncLiveStream
from neuroloop_client.messages import Prediction
from neuroloop_client.streams import AsyncStream


class AsyncClient(Calls[Awaitable[Map], Awaitable[list[Map]], Awaitable[bytes], Awaitable[None]]):
    """A neuroloop server. Every call raises NeuroloopClientError if the server refuses or does not answer.

    token: of a server that asks for one, as `neuroloop token create` printed it.
    """

    def __init__(self, base_url: str = DEFAULT_URL, timeout: float = 10.0, token: str | None = None) -> None:
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._http = httpx.AsyncClient(base_url=self._base_url, timeout=timeout, headers=_http.headers(token))

    def stream(self, session: str, topics: Sequence[str] = ("predictions",), format: Format = "msgpack") -> AsyncStream:
        """One connection to the live results of a session: predictions, rates, signals, encoders, events, status."""
        return AsyncStream(_http.stream_url(self._base_url, session, topics, format), self._token)

    def live(
        self,
        session: str,
        topics: Sequence[str] = ("predictions",),
        policy: str = "all",
        patience_s: float = 60.0,
    ) -> AsyncLiveStream:
        """The live results of a session as typed messages, over broken connections and restarts of the server.

        policy: all, latest or every=N: what is sent to a client that is slow, or wants less.
        """

        def open_stream(position: Map) -> AsyncStream:
            url = _http.stream_url(self._base_url, session, topics, "msgpack", policy=policy, **position)
            return AsyncStream(url, self._token)

        return AsyncLiveStream(open_stream, patience_s)

    async def predictions(
        self, session: str, decoder: str | None = None, policy: str = "all", patience_s: float = 60.0
    ) -> AsyncIterator[Prediction]:
        """The predictions of the active decoder, or of `decoder`, as they come; see `live`."""
        async with self.live(session, policy=policy, patience_s=patience_s) as results:
            async for message in results:
                if _http.is_wanted(message, decoder):
                    yield message

    async def clock(self, round_trips: int = ROUND_TRIPS) -> Clock:
        """LSL time for this program, good to about half a round trip."""
        return estimate([await self._round_trip() for _ in range(round_trips)])

    async def _round_trip(self) -> tuple[float, float, float]:
        sent = time.monotonic()
        server: float = (await self.info())["clock"]
        return sent, server, time.monotonic()

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
