"""What a session tells: events to its subscribers and to the log, and its status."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import structlog

from neuroloop.logs import REQUEST_ID
from neuroloop.session.publish import Publish

if TYPE_CHECKING:
    from neuroloop.session.loop import Loop

# Commands that only ask; whoever follows a session asks them all day, and they are not logged.
ASKING = {"status", "rereference", "rereference_weights", "training_data", "encoder_data"}

log = structlog.get_logger(__name__)


class Telling:
    """Of one session; used by its loop. request_id: of the request behind the command at hand, if there is one."""

    def __init__(self, loop: Loop, publish: Publish) -> None:
        self.request_id: str | None = None
        self._loop = loop
        self._publish = publish

    def command(self, name: str) -> None:
        """Somebody asks for something."""
        if name not in ASKING:
            self._log("command", command=name, **self._asked_by(None))

    def event(self, name: str, detail: str, request_id: str | None = None, **facts: Any) -> None:
        """Tell subscribers, and the log. request_id: of the request behind it, where that is not the one at hand."""
        loop, asked = self._loop, self._asked_by(request_id)
        message = {"type": "event", "session": loop.session.name, "time": loop.clock(), "seq": loop.seq}
        self._publish(b"events", message | {"event": name, "detail": detail} | facts | asked)
        self._log(name, detail=detail, **asked)

    def events(self, events: Iterable[tuple[str, str]]) -> None:
        for name, detail in events:
            self.event(name, detail)

    def of_decoders(self) -> None:
        """What has happened to them."""
        if self._loop.chain is not None:
            for name, detail, facts in self._loop.chain.decoders.take_events():
                self.event(name, detail, **facts)

    def status(self) -> dict[str, Any]:
        """Tell subscribers how things are; returns the same."""
        status = self._loop.figures.status()
        self._publish(b"status", status)
        return status

    def _log(self, what: str, **facts: Any) -> None:
        log.info(what, session=self._loop.session.name, bin=self._loop.seq, **facts)

    def _asked_by(self, request_id: str | None) -> dict[str, str]:
        found = request_id or self.request_id
        return {} if found is None else {REQUEST_ID: found}
