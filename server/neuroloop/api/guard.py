"""What no request may do, checked before anything else: another site's page driving the loop, a body without end.

A page of any site can make a browser send requests to a loopback address, and with a name that resolves to it (DNS
rebinding) read the answers. So the Host must be a loopback name, and where a browser says which page asks (Origin),
that page must be this server's own for WebSockets and for requests that change something.
"""

from __future__ import annotations

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from neuroloop.api.errors import plain_problem, problem_response

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "[::1]"})
SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})
BODY_LIMIT = 64 * 1024 * 1024


class Guard:
    """ASGI middleware that refuses foreign hosts and origins, and bodies of more than `BODY_LIMIT` bytes."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = _refusal(scope)
        if refusal is not None:
            connection = HTTPConnection(scope)
            await problem_response(connection, plain_problem(403, refusal))(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._app(scope, receive, send)
        else:
            await self._app(scope, _limited(receive), send)


def _refusal(scope: Scope) -> str | None:
    headers = Headers(scope=scope)
    host = headers.get("host", "")
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    if name not in LOOPBACK_NAMES:
        return f"Host {host!r} is not this server; use one of {', '.join(sorted(LOOPBACK_NAMES))}"
    origin = headers.get("origin")
    changes = scope["type"] == "websocket" or scope["method"] not in SAFE_METHODS
    if changes and origin is not None and origin != f"http://{host}":
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
