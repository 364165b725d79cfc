"""The sessions that this server runs: for each its process and what it publishes."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from pathlib import Path
from typing import Annotated, Any, Literal

import pylsl
import structlog
from fastapi import Depends
from starlette.requests import HTTPConnection

from neuroloop.api.hub import Hub
from neuroloop.api.message import Message
from neuroloop.config import LslSettings, SessionSettings
from neuroloop.errors import Conflict, NotFound, Unavailable
from neuroloop.server_config import SupervisionSettings
from neuroloop.session.adoption import RunFolder
from neuroloop.session.launching import Launcher
from neuroloop.session.supervisor import Failure, Restart, SessionProcess

log = structlog.get_logger(__name__)

FIT_COUNT = 100
FIT_STATES = {"fit_done": "done", "fit_failed": "failed"}


class LiveSession:
    """One session: its settings, its process, its hub, and the fits asked of it."""

    def __init__(
        self,
        settings: SessionSettings,
        lsl: LslSettings,
        launcher: Launcher | None,
        run_folder: RunFolder | None,
        outlive_s: float,
        recordings: Path | None,
        supervision: SupervisionSettings | None,
    ) -> None:
        self.settings = settings
        self.hub = Hub(lambda topic, is_wanted: self.process.want(topic, is_wanted))
        self.process = SessionProcess(
            settings,
            lsl,
            self._receive,
            self._report_failure,
            launcher,
            run_folder,
            outlive_s,
            self._report_loss,
            recordings,
            supervision,
            self._report_restart,
        )
        self.loading: list[tuple[str, int]] = []  # models and versions on their way to it; threads append
        self.aliases: dict[tuple[str, str], int] = {}  # where those that it follows, of a model, pointed last
        self._fits: OrderedDict[str, dict[str, Any]] = OrderedDict()

    @property
    def name(self) -> str:
        return self.settings.name

    @property
    def state(self) -> str:
        """starting, running, stopped or failed."""
        if self.process.state == "ready" and self.hub.status is not None:
            return str(self.hub.status["state"])
        return self.process.state

    def check_resumption(self, seq: int | None, run: str | None) -> None:
        """Raise Conflict or Unavailable if a subscriber can't go on from bin `seq` of this run."""
        if run is not None and run != self.process.run:
            raise Conflict(
                f"run {run!r} of session {self.name!r} has ended, and bins are counted anew since; subscribe without "
                f"resume_from, or with run={self.process.run}"
            )
        if seq is not None:
            if self.process.state == "starting" and not self.process.losses:
                raise Unavailable(f"session {self.name!r} tells what it has kept; try again when /readyz says so")
            self.hub.check_resumption(seq)

    async def status(self) -> dict[str, Any]:
        """The session's own status; without its process the last one, with the state and the reason."""
        if self.process.state == "ready":
            try:
                fresh: dict[str, Any] = await self.process.command("status")
                return fresh
            except Unavailable:
                if self.process.state == "ready":
                    raise  # alive, but does not answer
        return self._status_without_process()

    async def switch(self, command: Literal["start", "stop"]) -> dict[str, Any]:
        """Start or stop the loop; the process stays."""
        result: dict[str, Any] = await self.process.command(command)
        self.hub.status = (self.hub.status or {}) | result  # until the session publishes its next one
        return result

    def describe(self) -> dict[str, Any]:
        failure = self.process.failure
        return {
            "name": self.name,
            "state": self.state,
            "run": self.process.run,
            "node": self.process.node,
            "detail": None if failure is None else failure.detail,
            "settings": self.settings.model_dump(mode="json"),
        }

    async def fit(self, arguments: dict[str, Any]) -> dict[str, Any]:
        """Begin a fit of the rereference weights; what became of it is in `fit_state`."""
        fit_id = (await self.process.command("rereference_fit", **arguments))["fit"]
        return self._fits.setdefault(str(fit_id), {"fit": fit_id, "state": "running"})

    def fit_state(self, fit_id: str) -> dict[str, Any]:
        if fit_id not in self._fits:
            raise NotFound(f"session {self.name!r} has no fit {fit_id!r}")
        return self._fits[fit_id]

    def _receive(self, topic: str, packed: bytes) -> None:
        message = Message(topic, packed)
        self.hub.publish(message)
        if topic == "events" and message.map["event"] in FIT_STATES:
            event = message.map
            self._fits[str(event["fit"])] = event | {"state": FIT_STATES[event["event"]]}
            while len(self._fits) > FIT_COUNT:
                self._fits.popitem(last=False)

    def tell(self, event: str, detail: str, **facts: Any) -> None:
        """Tell its subscribers what the server knows of it."""
        about = {"session": self.name, "time": pylsl.local_clock(), "seq": self.hub.next_seq}
        told = {"type": "event", **about, "event": event, "detail": detail, **facts}
        self.hub.publish(Message.of("events", told))

    def _report_failure(self, failure: Failure) -> None:
        self.tell("session_failed", failure.detail, exit_code=failure.exit_code, stderr=failure.stderr)
        self.hub.publish(Message.of("status", self._status_without_process()))

    def _report_loss(self, reason: str) -> int:
        """Its process was lost with its node; tells the number of the bin from which the next one goes on."""
        seq = self.hub.next_seq
        detail = (
            f"{reason}; the session goes on elsewhere from bin {seq}, and the time until then has no bins. Decoders "
            "and weights start from the configuration: load their versions again"
        )
        self._end_fits(reason)
        self.hub.status = None  # of another process, by the clock of another machine
        self.tell("gap", detail, first_seq=seq, missing_samples=None, bins=0)
        return seq

    def _report_restart(self, restart: Restart) -> int:
        """Its process ended and is replaced; tells the number of the bin from which the next one goes on."""
        seq, age_s = self.hub.next_seq, restart.checkpoint_age_s
        known = "without a checkpoint: decoders and weights start anew"
        if age_s is not None:
            known = f"from its checkpoint of {age_s:.1f} s before"
        wait = f", in {restart.delay_s:g} s" if restart.delay_s else ""
        self._end_fits(restart.detail)
        self.tell(
            "session_restarted",
            f"{restart.detail}; it is started again{wait}, at bin {seq}, {known}",
            cause=restart.cause,
            exit_code=restart.exit_code,
            checkpoint_age_s=age_s,
            first_seq=seq,
            stderr=restart.stderr,
        )
        self.hub.publish(Message.of("status", self._status_without_process()))
        return seq

    def _end_fits(self, reason: str) -> None:
        for fit in self._fits.values():
            if fit["state"] == "running":
                fit.update(state="failed", detail=reason)

    def _status_without_process(self) -> dict[str, Any]:
        return {
            "type": "status",
            "session": self.name,
            **(self.hub.status or {}),
            "seq": self.hub.next_seq,
            "time": pylsl.local_clock(),
            "state": self.process.state,
            "detail": self.process.failure.detail if self.process.failure else None,
        }


class LiveSessions:
    """All sessions of a server, by name."""

    def __init__(
        self,
        lsl: LslSettings,
        launcher: Launcher | None = None,
        run_folder: RunFolder | None = None,
        outlive_s: float = 0.0,
        recordings: Path | None = None,
        supervision: SupervisionSettings | None = None,
    ) -> None:
        self._supervision = supervision
        self._recordings = recordings
        self._lsl = lsl
        self._launcher = launcher
        self._run_folder = run_folder
        self._outlive_s = outlive_s
        self._sessions: dict[str, LiveSession] = {}

    def __getitem__(self, name: str) -> LiveSession:
        if name not in self._sessions:
            raise NotFound(f"no session {name!r}; there are: {', '.join(self._sessions) or 'none'}")
        return self._sessions[name]

    def __contains__(self, name: str) -> bool:
        return name in self._sessions

    def all(self) -> list[LiveSession]:
        return list(self._sessions.values())

    async def create(self, settings: SessionSettings) -> LiveSession:
        """Start a session's process; it is listed at once, and answers a little later."""
        if settings.name in self._sessions:
            raise Conflict(f"a session {settings.name!r} exists already; delete it first or choose another name")
        session = self._add(settings)
        await session.process.start()
        return session

    async def adopt(self) -> None:
        """Take over the sessions that a server before this one left running, as they are."""
        for record in self._run_folder.records() if self._run_folder is not None else ():
            settings = SessionSettings.model_validate(record.settings)
            try:
                await self._add(settings).process.adopt(record)
            except ProcessLookupError:
                del self._sessions[settings.name]  # it has just ended
            else:
                log.warning("session found running", session=settings.name, pid=record.pid)

    def _add(self, settings: SessionSettings) -> LiveSession:
        session = LiveSession(
            settings,
            self._lsl,
            self._launcher,
            self._run_folder,
            self._outlive_s,
            self._recordings,
            self._supervision,
        )
        self._sessions[settings.name] = session
        return session

    async def delete(self, name: str) -> None:
        """End a session's process; its name is free when this returns."""
        session = self[name]
        await session.process.stop()
        session.hub.close()
        if self._sessions.get(name) is session:  # not deleted meanwhile, and made again
            del self._sessions[name]

    async def close(self) -> None:
        await asyncio.gather(*(self.delete(name) for name in self._sessions))

    def not_ready(self) -> list[str]:
        """Why the server isn't ready: a line for each autostarted session whose process does not answer."""
        return [
            f"session {session.name!r} is {session.process.state}"
            for session in self._sessions.values()
            if session.settings.autostart and session.process.state != "ready"
        ]


def _sessions(connection: HTTPConnection) -> LiveSessions:
    sessions: LiveSessions = connection.app.state.sessions
    return sessions


Sessions = Annotated[LiveSessions, Depends(_sessions)]


def _session(sessions: Sessions, session: str) -> LiveSession:
    return sessions[session]


Session = Annotated[LiveSession, Depends(_session)]
