"""Who may do what: a token for each request, a role for each route.

Without any token the server is its machine's own and everybody there may do everything. With the first one, every
request needs a token. A route needs the role `viewer` if it only looks, `operator` if it changes something, or what
`requires` says; so a new route is never open by having been forgotten.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, TypeVar

from fastapi import Depends
from starlette.datastructures import Headers
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Receive, Scope, Send

from neuroloop.api.errors import plain_problem, problem, problem_response
from neuroloop.api.guard import SAFE_METHODS
from neuroloop.errors import ConfigError, Forbidden, Unauthorized
from neuroloop.tokens import ROLES, Role, TokenFile

OPEN_PATHS = frozenset({"/healthz", "/readyz", "/openapi.json", "/docs", "/docs/oauth2-redirect", "/redoc"})
"""Whether the server lives, and what its interface is: nothing about a session or a person."""

SUBPROTOCOL = "neuroloop"
BEARER = "bearer."
"""A page in a browser cannot set headers on a WebSocket; it offers the subprotocols `neuroloop` and `bearer.TOKEN`."""

Endpoint = TypeVar("Endpoint", bound=Callable[..., Any])


@dataclass(frozen=True)
class User:
    """Who asks. name: of the token; None where there are no tokens."""

    name: str | None
    role: Role

    def check(self, role: Role, what: str) -> None:
        """Raises Forbidden unless this user may do what this role may."""
        if ROLES.index(self.role) < ROLES.index(role):
            raise Forbidden(f"{what} needs the role {role}; the token {self.name!r} has the role {self.role}")


NOBODY = User(None, "viewer")
ANYBODY = User(None, "admin")


def requires(role: Role) -> Callable[[Endpoint], Endpoint]:
    """Marks an endpoint whose role does not follow from its method."""

    def mark(endpoint: Endpoint) -> Endpoint:
        endpoint.required_role = role  # type: ignore[attr-defined]
        return endpoint

    return mark


class Access:
    """ASGI middleware: knows the user by the token, or answers 401 before a byte of the body is read."""

    def __init__(self, app: ASGIApp, tokens: TokenFile, required: bool) -> None:
        """required: whether a token is needed even while there is none, as beyond loopback."""
        self._app = app
        self._tokens = tokens
        self._required = required

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        try:
            scope.setdefault("state", {})["user"] = self._identify(scope)
        except Unauthorized as error:
            headers = {"WWW-Authenticate": "Bearer"}
            await problem_response(HTTPConnection(scope), problem(error), headers)(scope, receive, send)
            return
        except ConfigError as error:  # the file of tokens is spoilt; nobody gets in until it is mended
            await problem_response(HTTPConnection(scope), plain_problem(503, str(error)))(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _identify(self, scope: Scope) -> User:
        if scope["path"] in OPEN_PATHS:
            return NOBODY
        self._required = self._required or bool(self._tokens.all())  # revoking the last one opens nothing
        if not self._required:
            return ANYBODY
        text = _bearer(scope)
        if text is None:
            raise Unauthorized("this server needs a token: send the header 'Authorization: Bearer TOKEN'")
        token = self._tokens.find(text)
        if token is None:
            raise Unauthorized("this token is not known here; `neuroloop token create` makes one")
        return User(token.name, token.role)


def _bearer(scope: Scope) -> str | None:
    kind, _, text = Headers(scope=scope).get("authorization", "").partition(" ")
    if kind.lower() == "bearer":
        return text.strip()
    offered: list[str] = scope.get("subprotocols") or []
    return next((name.removeprefix(BEARER) for name in offered if name.startswith(BEARER)), None)


def _user(connection: HTTPConnection) -> User:
    user: User = connection.scope["state"]["user"]
    return user


CurrentUser = Annotated[User, Depends(_user)]


def authorise(connection: HTTPConnection, user: CurrentUser) -> None:
    """A dependency of every route. Raises Forbidden."""
    if connection.scope["path"] not in OPEN_PATHS:
        role = required_role(connection.scope["endpoint"], connection.scope.get("method", "GET"))
        user.check(role, f"{connection.scope.get('method', 'the stream of')} {connection.scope['path']}")


def required_role(endpoint: Callable[..., Any], method: str) -> Role:
    """The role that an endpoint needs."""
    by_method: Role = "viewer" if method in SAFE_METHODS else "operator"
    role: Role = getattr(endpoint, "required_role", by_method)
    return role
