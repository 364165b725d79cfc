"""The client for programs without an event loop."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack

import httpx
from websockets.exceptions import ConnectionClosed, ConnectionClosedOK, WebSocketException
from websockets.sync.client import ClientConnection, connect

from neuroloop_client import _http
from neuroloop_client._calls import Calls
from neuroloop_client._http import DEFAULT_URL, Call, Format, Map


class Stream:
    """A session's live results, as an iterator of maps; ends when the session ends.

    Answers to labels (`label_accepted`, `error`) and `lagged` come in the same order as everything else.
    """

    def __init__(self, url: str, token: str | None = None) -> None:
        self._resources = ExitStack()
        try:
            self._connection: ClientConnection = self._resources.enter_context(
                connect(url, compression=None, max_size=None, additional_headers=_http.headers(token))
            )
        except (OSError, WebSocketException) as error:
            raise _http.unreachable(error) from error

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


class Client(Calls[Map, list[Map], bytes, None]):
    """A neuroloop server. Every call raises NeuroloopClientError if the server refuses or does not answer.

    token: of a server that asks for one, as `neuroloop token create` printed it.
    """

    def __init__(self, base_url: str = DEFAULT_URL, timeout: float = 10.0, token: str | None = None) -> None:
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._http = httpx.Client(base_url=self._base_url, timeout=timeout, headers=_http.headers(token))

    def stream(self, session: str, topics: Sequence[str] = ("predictions",), format: Format = "msgpack") -> Stream:
        """The live results of a session: topics predictions, rates, events, status."""
        return Stream(_http.stream_url(self._base_url, session, topics, format), self._token)

    def close(self) -> None:
        self._http.close()

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _send(self, call: Call) -> httpx.Response:
        try:
            return _http.read(self._http.request(**call.arguments()))
        except httpx.HTTPError as error:
            raise _http.unreachable(error) from error

    def _map(self, call: Call) -> Map:
        answer: Map = self._send(call).json()
        return answer

    def _list(self, call: Call, key: str | None = None) -> list[Map]:
        answer = self._send(call).json()
        members: list[Map] = answer if key is None else answer[key]
        return members

    def _file(self, call: Call) -> bytes:
        return self._send(call).content

    def _nothing(self, call: Call) -> None:
        self._send(call)
