"""Who did what: one line of JSON for everything that changed something, or was refused.

Lines go to a file in the server's folder through a thread of their own, so that a slow disk holds no request up. The
queue is bounded; what does not fit is counted, and the next line says how many are missing. Two servers may share the
folder: a line is written in one piece.
"""

from __future__ import annotations

import fcntl
import os
import queue
import re
import threading
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import structlog
from fastapi import APIRouter, Query, Request
from pydantic_core import from_json, to_json
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket
from structlog.contextvars import bound_contextvars

from neuroloop.api.access import requires
from neuroloop.api.errors import JsonResponse
from neuroloop.api.guard import SAFE_METHODS
from neuroloop.logs import REQUEST_ID

QUEUE = 10_000
FILE_BYTES = 16 * 2**20  # then the file before it is let go of: at most twice this on disk
VALID_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
REFUSED = frozenset({401, 403})

log = structlog.get_logger(__name__)
router = APIRouter(prefix="/v1/audit", tags=["server"])


class AuditLog:
    """The log of a folder. `start` before the first `record`, `close` after the last."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "audit.jsonl"
        self._older = folder / "audit.1.jsonl"
        self._entries: queue.Queue[dict[str, Any] | None] = queue.Queue(QUEUE)
        self._missing = 0
        self._thread = threading.Thread(target=self._write_all, name="audit", daemon=True)

    def start(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._thread.start()

    def close(self) -> None:
        """Returns when everything recorded is in the file."""
        self._entries.put(None)
        self._thread.join()

    def record(self, **entry: Any) -> None:
        """Write down what happened; never waits."""
        try:
            self._entries.put_nowait({"time": datetime.now(UTC).isoformat(timespec="milliseconds")} | entry)
        except queue.Full:
            self._missing += 1

    def last(self, limit: int) -> list[dict[str, Any]]:
        """The last entries, oldest first."""
        found: list[dict[str, Any]] = []
        for path in (self.path, self._older):
            if len(found) < limit and path.exists():
                lines = path.read_bytes().splitlines()[-(limit - len(found)) :]
                found = [from_json(line) for line in lines if line] + found
        return found

    def _write_all(self) -> None:
        while (entry := self._entries.get()) is not None:
            missing, self._missing = self._missing, 0
            more = {"missing_before": missing} if missing else {}
            try:
                self._write(to_json(entry | more) + b"\n")
            except OSError as error:
                self._missing += missing + 1
                log.error("audit log", path=str(self.path), error=str(error))

    def _write(self, line: bytes) -> None:
        with open(self.path, "ab", buffering=0) as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            if os.fstat(file.fileno()).st_size > FILE_BYTES and self._is_current(file.fileno()):
                os.replace(self.path, self._older)
            file.write(line)

    def _is_current(self, handle: int) -> bool:
        """Whether no other server has put this file aside meanwhile."""
        return self.path.exists() and os.path.samestat(os.fstat(handle), self.path.stat())


class Audit:
    """ASGI middleware: gives every request an id, and records those that changed something or were refused."""

    def __init__(self, app: ASGIApp, audit: AuditLog) -> None:
        self._app = app
        self._audit = audit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        status, begin = 500, time.perf_counter()  # 500 where nothing was answered

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] in {"http.response.start", "websocket.http.response.start", "websocket.accept"}:
                status = message.get("status", 101)
                MutableHeaders(scope=message)["X-Request-Id"] = request_id
                if scope["type"] == "websocket":
                    self._record(scope, status, request_id)  # when it begins: it may last for days
            await send(message)

        try:
            with bound_contextvars(**{REQUEST_ID: request_id}):
                await self._app(scope, receive, send_with_id)
        finally:
            if scope["type"] == "http" and (scope["method"] not in SAFE_METHODS or status in REFUSED):
                self._record(scope, status, request_id, duration_ms=round(1000 * (time.perf_counter() - begin), 3))

    def _record(self, scope: Scope, status: int, request_id: str, **more: Any) -> None:
        self._audit.record(**_about(scope, request_id), status=status, **more)


def record_reply(websocket: WebSocket, reply: dict[str, Any]) -> None:
    """Write down what was answered to a label, or to what is none, that came over a stream."""
    audit: AuditLog = websocket.app.state.audit
    accepted = reply["type"] == "label_accepted"
    said = {"label": reply["label"]} if accepted else {"detail": reply["detail"]}
    about = _about(websocket.scope, websocket.state.request_id)
    audit.record(**about, status=200 if accepted else reply["status"], reply=reply["type"], **said)


def _about(scope: Scope, request_id: str) -> dict[str, Any]:
    user = scope["state"].get("user")
    return {
        "request_id": request_id,
        "user": None if user is None else user.name,
        "role": None if user is None else user.role,
        "client": scope["client"][0] if scope.get("client") else None,
        "method": scope.get("method", "WS"),
        "path": scope["path"],
    }


def _request_id(scope: Scope) -> str:
    """The caller's own, so that one id goes through all their logs; else a new one."""
    given = Headers(scope=scope).get("x-request-id", "")
    return given if VALID_ID.fullmatch(given) else uuid.uuid4().hex


@router.get("")
@requires("admin")
async def get_audit(request: Request, limit: Annotated[int, Query(ge=1, le=10_000)] = 100) -> JsonResponse:
    """The last requests that changed something or were refused, oldest first: when, who, what, with which answer."""
    audit: AuditLog = request.app.state.audit
    entries: Iterable[dict[str, Any]] = await run_in_threadpool(audit.last, limit)
    return JsonResponse({"entries": entries})
