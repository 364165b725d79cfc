"""What the two clients share: the calls of the REST interface as data, and how answers and errors are read."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeGuard
from urllib.parse import quote, urlencode

import httpx
import msgpack
from websockets.exceptions import ConnectionClosed, InvalidStatus

from neuroloop_client.messages import Message, Prediction

DEFAULT_URL = "http://127.0.0.1:8765"
Format = Literal["json", "msgpack"]
WeightFormat = Literal["csv", "npz", "safetensors"]
Activation = Literal["none", "shadow", "active"]
Map = dict[str, Any]


class NeuroloopClientError(Exception):
    """A call that the server refused, or a server that does not answer.

    problem: the server's problem document (RFC 9457), with `status`, `title` and `detail`; empty without an answer.
    """

    def __init__(self, detail: str, problem: Mapping[str, Any] | None = None) -> None:
        super().__init__(detail)
        self.problem = dict(problem or {})

    @property
    def status(self) -> int | None:
        """The HTTP status, None without an answer."""
        return self.problem.get("status")


@dataclass(frozen=True)
class Call:
    """One request; parameters and members that are None are left out."""

    method: str
    path: str
    params: Map = field(default_factory=dict)
    body: Map | None = None
    content: bytes | None = None
    timeout: float | None = None
    headers: Map = field(default_factory=dict)
    form: Mapping[str, tuple[str, bytes]] | None = None  # name of a part -> name of a file, its content

    def arguments(self) -> Map:
        """As httpx takes it."""
        request: Map = {"method": self.method, "url": self.path, "params": _given(self.params)}
        if self.body is not None:
            request["json"] = _given(self.body)
        if self.content is not None:
            request |= {"content": self.content, "headers": {"Content-Type": "application/octet-stream"}}
        if self.headers:
            request["headers"] = self.headers
        if self.form is not None:
            request["files"] = dict(self.form)
        if self.timeout is not None:
            request["timeout"] = self.timeout
        return request


def headers(token: str | None) -> dict[str, str]:
    """What tells the server who asks."""
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def session_call(method: str, session: str, path: str = "", **more: Any) -> Call:
    return Call(method, f"/v1/sessions/{quote(session, safe='')}{path}", **more)


def label_body(label: str, start: float | None, end: float | None) -> Map:
    return {"label": label, "start": start, "end": end}


def upload_form(document: Map, arrays: bytes) -> dict[str, tuple[str, bytes]]:
    return {"document": ("document.json", json.dumps(document).encode()), "arrays": ("arrays.npz", arrays)}


def read(response: httpx.Response) -> httpx.Response:
    """The response, if it is a good one. Raises NeuroloopClientError."""
    if response.is_success:
        return response
    raise refused(response.status_code, response.content)


def refused(status: int, body: bytes) -> NeuroloopClientError:
    try:
        problem = json.loads(body)
        return NeuroloopClientError(problem["detail"], problem)
    except (ValueError, TypeError, KeyError):
        return NeuroloopClientError(f"the server answered {status}", {"status": status})


def unreachable(error: Exception) -> NeuroloopClientError:
    if isinstance(error, InvalidStatus):
        return refused(error.response.status_code, bytes(error.response.body or b""))
    return NeuroloopClientError(f"the server does not answer: {error}")


def disconnected(error: ConnectionClosed) -> NeuroloopClientError:
    reason = error.rcvd.reason if error.rcvd is not None else ""
    return NeuroloopClientError(f"the server ended the stream: {reason or error}")


def stream_url(base_url: str, session: str, topics: Sequence[str], format: Format, **more: Any) -> str:
    query = urlencode({"topics": ",".join(topics), "format": format, **_given(more)}, safe=",=")
    return f"ws{base_url.removeprefix('http')}/v1/sessions/{quote(session, safe='')}/stream?{query}"


def is_wanted(message: Message, decoder: str | None) -> TypeGuard[Prediction]:
    """Whether it is a prediction of this decoder, or of the active one where none is named."""
    if message["type"] != "prediction":
        return False
    return message["role"] == "active" if decoder is None else message["decoder"] == decoder


def label_message(label: str, start: float | None, end: float | None, id: str | int | None) -> str:
    return json.dumps(_given({"type": "label", **label_body(label, start, end), "id": id}))


def decode(message: str | bytes) -> Map:
    """A message of the stream, whichever format it has."""
    content: Map = json.loads(message) if isinstance(message, str) else msgpack.unpackb(message)
    return content


def _given(values: Map) -> Map:
    return {key: value for key, value in values.items() if value is not None}
