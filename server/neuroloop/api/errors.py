"""Every error as `application/problem+json` (RFC 9457): the one place where errors become HTTP."""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any, cast

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from pydantic_core import to_json
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.routing import compile_path

from neuroloop.config import explain
from neuroloop.errors import (
    ConfigError,
    Conflict,
    Deleted,
    Forbidden,
    ModelError,
    NeuroloopError,
    NotFound,
    RegistryError,
    StreamError,
    Unauthorized,
    Unavailable,
)


class Malformed(NeuroloopError):
    """A body or a message that is not of the form it should have."""


STATUS: dict[type[NeuroloopError], int] = {
    Malformed: 400,
    Unauthorized: 401,
    Forbidden: 403,
    NotFound: 404,
    Deleted: 404,
    Conflict: 409,
    StreamError: 409,
    ConfigError: 422,
    ModelError: 422,
    RegistryError: 500,
    Unavailable: 503,
}


DESCRIPTION: dict[str, Any] = {
    "description": "A problem (RFC 9457): what was expected, what came, what to do",
    "content": {
        "application/problem+json": {
            "schema": {
                "type": "object",
                "required": ["type", "title", "status", "detail", "instance"],
                "properties": {key: {"type": "string"} for key in ("type", "title", "detail", "instance")}
                | {"status": {"type": "integer"}},
            }
        }
    },
}


class JsonResponse(JSONResponse):
    """JSON in which a value that is not finite is null."""

    def render(self, content: Any) -> bytes:
        return to_json(content, inf_nan_mode="null")


def problem(error: NeuroloopError) -> dict[str, Any]:
    """The members of a problem document that don't depend on the request."""
    status = STATUS.get(type(error))
    if status is None:
        return plain_problem(500, str(error))
    words = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", type(error).__name__)
    kind = words.lower().replace(" ", "-")
    return {
        "type": f"urn:neuroloop:problem:{kind}",
        "title": words.capitalize(),
        "status": status,
        "detail": str(error),
    }


def plain_problem(status: int, detail: str) -> dict[str, Any]:
    """A problem that the status says all about."""
    return {"type": "about:blank", "title": HTTPStatus(status).phrase, "status": status, "detail": detail}


def problem_response(
    connection: HTTPConnection, document: dict[str, Any], headers: dict[str, str] | None = None
) -> JsonResponse:
    path: str = connection.scope["path"]
    more = {"error": document["detail"]} if path.startswith("/v2") else {}  # as the Open Inference Protocol has it
    return JsonResponse(
        document | {"instance": path} | more,
        status_code=document["status"],
        headers=headers,
        media_type="application/problem+json",
    )


def install(app: FastAPI) -> None:
    """Answer every error of the application with a problem document."""

    @app.exception_handler(NeuroloopError)
    async def _(connection: HTTPConnection, error: NeuroloopError) -> JsonResponse:
        document = problem(error)
        if isinstance(error, Deleted) and connection.scope["method"] not in ("GET", "HEAD"):
            document["status"] = 409  # of two who change the same things, the other was first
        return problem_response(connection, document)

    @app.exception_handler(RequestValidationError)
    async def _(connection: HTTPConnection, error: RequestValidationError) -> JsonResponse:
        faults = error.errors()
        for fault in faults:
            if fault["type"] == "json_invalid":
                reason = f"the body is not JSON: {fault['ctx']['error']} at character {fault['loc'][-1]}"
                return problem_response(connection, problem(Malformed(reason)))
        return problem_response(connection, plain_problem(422, explain_faults(faults)))

    @app.exception_handler(HTTPException)
    async def _(connection: HTTPConnection, error: HTTPException) -> JsonResponse:
        detail, headers = error.detail, dict(error.headers or {})
        if error.status_code == 404:
            detail = f"nothing is at {connection.scope['path']}; see /docs"
        elif error.status_code == 405:
            allowed = headers["Allow"] = _methods(app, connection.scope["path"]) or headers["Allow"]
            detail = f"{connection.scope['method']} is not for {connection.scope['path']}, only {allowed}; see /docs"
        return problem_response(connection, plain_problem(error.status_code, detail), headers)

    @app.exception_handler(Exception)
    async def _(connection: HTTPConnection, _error: Exception) -> JsonResponse:
        return problem_response(connection, plain_problem(500, "a fault of the server; its log has more"))


def _methods(app: FastAPI, path: str) -> str:
    """The methods of every route of a path; the framework names those of the first one only."""
    paths = app.openapi()["paths"]
    matching = [template for template in paths if compile_path(template)[0].match(path)]
    if not matching:
        return ""
    closest = min(matching, key=lambda template: template.count("{"))
    return ", ".join(sorted(method.upper() for method in paths[closest]))


def explain_faults(faults: Any) -> str:
    """The text of `neuroloop.config.explain` for faults in a request, whose keys start with the part it came in."""
    stripped = [fault | {"loc": fault["loc"][1:] or fault["loc"] or ("message",)} for fault in faults]
    return explain(cast(ValidationError, RequestValidationError(stripped)))
