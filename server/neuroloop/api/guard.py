"""What no request may do, checked before anything else: another site's page driving the loop, a body without end.

A page of any site can make a browser send requests to a loopback address, and with a name that resolves to it (DNS
rebinding) read the answers. So the Host must be a loopback name or one of the configuration's, and where a browser says
which page asks (Origin), that page must be this server's own for WebSockets and for requests that change something.
"""

from __future__ import annotations

import re
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from neuroloop.api.errors import plain_problem, problem_response

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
PORT = re.compile(r":\d+$")
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
BODY_LIMIT = 64 * 1024 * 1024


class Guard:
    """ASGI middleware that refuses foreign hosts and origins, and bodies of more than `BODY_LIMIT` bytes."""

    def __init__(self, app: ASGIApp, host_names: Collection[str] | None) -> None:
        """host_names: that are taken beside the loopback ones; None for any, where tokens keep strangers out."""
        self._app = app
        self._names = None if host_names is None else LOOPBACK_NAMES | {name.lower() for name in host_names}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = self._refusal(scope)
        if refusal is not None:
            connection = HTTPConnection(scope)
            await problem_response(connection, plain_problem(403, refusal))(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._app(scope, receive, send)
        else:
            await self._app(scope, _limited(receive), send)

    def _refusal(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "").lower()
        if self._names is not None and PORT.sub("", host) not in self._names:
            return f"Host {host!r} is not this server; use one of {', '.join(sorted(self._names))}"
        origin = headers.get("origin")
        changes = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
        if changes and origin is not None and origin not in {f"http://{host}", f"https://{host}"}:
            return f"a page of {origin} may not do this; only pages of http://{host} may"
        return None


def _limited(receive: Receive) -> Receive:
    left = BODY_LIMIT

    async def receive_limited() -> Message:
        nonlocal left
        message = await receive()
        left -= len(message.get("body", b""))
        if left < 0:
            raise HTTPException(413, f"the body is larger than {BODY_LIMIT // 2**20} MiB")
        return message

    return receive_limited
