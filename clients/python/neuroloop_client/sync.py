"""The client for programs without an event loop."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

import httpx

from neuroloop_client import _http
from neuroloop_client._calls import Calls
from neuroloop_client._http import DEFAULT_URL, Call, Format, Map
from neuroloop_client.clock import ROUND_TRIPS, Clock, estimate
from neuroloop_client.live import LiveStream
from neuroloop_client.messages import Prediction
from neuroloop_client.streams import Stream


class Client(Calls[Map, list[Map], bytes, None]):
    """A neuroloop server. Every call raises NeuroloopClientError if the server refuses or does not answer.

    token: of a server that asks for one, as `neuroloop token create` printed it.
    """

    def __init__(self, base_url: str = DEFAULT_URL, timeout: float = 10.0, token: str | None = None) -> None:
        self._base_url = base_url.rstrip("/")
        self._token = token
        self._http = httpx.Client(base_url=self._base_url, timeout=timeout, headers=_http.headers(token))

    def stream(self, session: str, topics: Sequence[str] = ("predictions",), format: Format = "msgpack") -> Stream:
        """One connection to the live results of a session: predictions, rates, signals, encoders, events, status."""
        return Stream(_http.stream_url(self._base_url, session, topics, format), self._token)

    def live(
        self,
        session: str,
        topics: Sequence[str] = ("predictions",),
        policy: str = "all",
        patience_s: float = 60.0,
    ) -> LiveStream:
        """The live results of a session as typed messages, over broken connections and restarts of the server.

        policy: all, latest or every=N: what is sent to a client that is slow, or wants less.
        """

        def open_stream(position: Map) -> Stream:
            url = _http.stream_url(self._base_url, session, topics, "msgpack", policy=policy, **position)
            return Stream(url, self._token)

        return LiveStream(open_stream, patience_s)

    def predictions(
        self, session: str, decoder: str | None = None, policy: str = "all", patience_s: float = 60.0
    ) -> Iterator[Prediction]:
        """The predictions of the active decoder, or of `decoder`, as they come; see `live`."""
        with self.live(session, policy=policy, patience_s=patience_s) as results:
            for message in results:
                if _http.is_wanted(message, decoder):
                    yield message

    def clock(self, round_trips: int = ROUND_TRIPS) -> Clock:
        """LSL time for this program, good to about half a round trip."""
        return estimate([self._round_trip() for _ in range(round_trips)])

    def _round_trip(self) -> tuple[float, float, float]:
        sent = time.monotonic()
        server: float = self.info()["clock"]
        return sent, server, time.monotonic()

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
