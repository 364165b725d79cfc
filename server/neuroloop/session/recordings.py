"""The recordings of one session, one at a time: begun with it, or when somebody asks. The loop's side of `recorder`."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import suppress
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from neuroloop.errors import Conflict, NeuroloopError, Unavailable
from neuroloop.session.inbox import Call
from neuroloop.session.journal import Note
from neuroloop.session.publish import Publish
from neuroloop.session.recorded_state import RecordedState
from neuroloop.session.recorder import Recorder
from neuroloop.session.recorder_sources import Feed

if TYPE_CHECKING:
    from neuroloop.session.loop import Loop

RECORDED = {b"predictions", b"rates", b"encoders", b"events"}
NOTE_BYTES = 512  # of one without weights, about
CLOSE_S = 3.0

Event = tuple[str, str, dict[str, Any]]


class Recordings:
    """Called by the loop."""

    def __init__(self, loop: Loop, publish: Publish, folder: Path | None) -> None:
        """folder: None where there can be none."""
        self._loop = loop
        self._publish = publish
        self._folder = folder
        self.is_wanted = False  # by the configuration or by who asked last
        self._recorder: Recorder | None = None
        self._told_samples = self._told_messages = 0
        self._told_behind = False
        self._state: RecordedState | None = None  # of one that began while the session ran
        self._first_seq = 0

    @property
    def _is_on(self) -> bool:
        return self._recorder is not None and self._recorder.state in ("starting", "recording")

    def begin(self) -> None:
        """The session begins; a recording that can't is told, and holds nothing up."""
        was_wanted = self._loop.checkpoints.was_recording
        self.is_wanted = self._loop.session.recording.automatic if was_wanted is None else was_wanted
        if self.is_wanted and self._folder is not None:
            self._start(self._loop.session.autostart)

    def start(self, reply: Future[Any]) -> None:
        """`reply` gets a description as soon as the file is there, or why there is none. Raises Conflict."""
        if self._is_on:
            assert self._recorder is not None
            raise Conflict(f"recording {self._recorder.path.stem!r} is running; stop it first")
        was_wanted = self.is_wanted
        recorder = self._start(self._loop.inlet is not None)
        reply = self._want(True, reply)
        recorder.opened.add_done_callback(lambda opened: self._in_loop(lambda: self._undo(opened, was_wanted)))
        recorder.opened.add_done_callback(lambda opened: _pass_on(opened, reply))

    def stop(self, reply: Future[Any]) -> None:
        """`reply` gets what is on the disk, when it is. Raises Conflict."""
        if not self._is_on or self._recorder is None:
            raise Conflict(f"session {self._loop.session.name!r} is not being recorded")
        reply = self._want(False, reply)
        self._recorder.closed.add_done_callback(lambda closed: _pass_on(closed, reply))
        self._recorder.end()

    def _want(self, is_wanted: bool, reply: Future[Any]) -> Future[Any]:
        """Returns what is passed on to `reply` as soon as a process in the place of this one would want the same."""
        self.is_wanted = is_wanted
        return self._loop.checkpoints.hold(reply)

    def _undo(self, opened: Future[Any], was_wanted: bool) -> None:
        """Whoever asked was told that there is no recording: a process in the place of this one begins none."""
        if opened.exception() is not None:
            self.is_wanted = was_wanted

    def annotate(self, text: str, time: float) -> dict[str, Any]:
        """A remark, for this LSL time. Raises Conflict."""
        if not self._is_on or self._recorder is None:
            raise Conflict(
                f"session {self._loop.session.name!r} is not being recorded, so there is nothing to annotate"
            )
        self._recorder.put("annotation", (time, text), len(text) + 64)
        return {"recording": self._recorder.path.stem, "text": text, "time": time}

    def describe(self) -> dict[str, Any] | None:
        """Of the last recording; None before the first. replays_from: a bin, None as long as it `lacks` something."""
        if self._recorder is None:
            return None
        state = self._state
        replay = {"replays_from": self._first_seq, "lacks": None} if state is None else state.describe()
        return self._recorder.describe() | replay

    def turn(self, now: float, more: bool) -> None:
        """Between two turns of the loop. more: samples wait for it."""
        if self._state is not None:
            self._state.turn(now, more)

    def second(self) -> Iterator[Event]:
        """What the last second's recording lacks, as events (name, text, facts)."""
        recorder = self._recorder
        if recorder is None or not self._is_on:
            return
        name = recorder.path.stem
        samples, messages = recorder.lost_samples, recorder.lost_messages.total()
        if samples > self._told_samples or messages > self._told_messages:
            lost = {"samples": samples - self._told_samples, "messages": messages - self._told_messages}
            detail = f"recording {name!r}: the disk is too slow; {lost['samples']} samples and {lost['messages']} "
            detail += "messages are not in it"
            self._told_samples, self._told_messages = samples, messages
            yield "recording_lost", detail, {"recording": name, **lost}
        if recorder.is_behind and not self._told_behind:
            yield "recording_behind", f"recording {name!r}: the disk takes nothing", {"recording": name}
        self._told_behind = recorder.is_behind

    def end(self) -> None:
        """The session ends: what is there is written, if the disk takes it soon."""
        self._publish.tap = None
        self._loop.journal.end()
        if self._recorder is not None and self._is_on:
            self._recorder.end()
            self._recorder.join(CLOSE_S)

    def _start(self, is_running: bool) -> Recorder:
        """is_running: whether the session looks for its stream, or will now."""
        loop = self._loop
        if self._folder is None:
            raise Conflict(f"session {loop.session.name!r} was started without a folder for recordings")
        recorder = Recorder(
            loop.session.name,
            _free_path(self._folder, loop.session.name),
            self._feeds(),
            loop.session.recording,
        )
        self._recorder = recorder
        self._told_samples = self._told_messages = 0
        self._publish.tap = self._take_message
        self._first_seq = loop.seq
        self._end_state()
        self._state = None if loop.chain is None else RecordedState(loop, recorder.path.stem)
        loop.journal.begin(self._take_note)
        loop.journal.note(
            "session",
            settings=loop.session.model_dump(mode="json"),
            is_running=is_running,
            is_fresh=loop.chain is None and not loop.checkpoints.goes_on,
            has_encoders=loop.encoders.stimulus is not None,
            checkpoint=loop.checkpoints.found() if loop.chain is None else None,
            decoders=None if loop.chain is None else loop.chain.decoders.describe(),
        )
        if loop.chain is not None and loop.chain.rereferencing is not None:
            weights = loop.chain.rereferencing.weights
            loop.journal.note("rereference", version=weights.version, source=weights.source, weights=weights.matrix)
        recorder.opened.add_done_callback(lambda opened: self._in_loop(lambda: self._tell_opened(opened, recorder)))
        recorder.closed.add_done_callback(lambda _: self._in_loop(lambda: self._tell_closed(recorder)))
        recorder.start()
        return recorder

    def _end_state(self) -> None:
        if self._state is not None:
            self._state.end()

    def _in_loop(self, run: Any) -> None:
        """From the recorder's thread."""
        with suppress(Unavailable):  # the session has ended, or is behind by thousands of messages
            self._loop.inbox.put(Call(run))

    def _tell_opened(self, opened: Future[Any], recorder: Recorder) -> None:
        name = recorder.path.stem
        if opened.exception() is None:
            self._loop.event("recording_started", f"recording {name!r}", recording=name)

    def _tell_closed(self, recorder: Recorder) -> None:
        if recorder is self._recorder:
            self._publish.tap = None
            self._loop.journal.end()
            self._end_state()
        name, said = recorder.path.stem, recorder.describe()
        event = "recording_failed" if recorder.state == "failed" else "recording_stopped"
        detail = f"recording {name!r}: {recorder.detail or str(said['bytes']) + ' bytes'}"
        facts = {key: said[key] for key in ("bytes", "lost_samples", "lost_messages")}
        self._loop.event(event, detail, recording=name, **facts)

    def _take_message(self, topic: bytes, packed: bytes) -> None:
        if topic in RECORDED and self._recorder is not None:
            self._recorder.put(topic.decode(), packed, len(packed))

    def _take_note(self, note: Note) -> None:
        if self._recorder is not None:
            self._recorder.put("note", note, NOTE_BYTES + _payload_bytes(note))

    def _feeds(self) -> list[Feed]:
        loop = self._loop

        def of(inlet: Any) -> Feed:
            return Feed(
                lambda: getattr(inlet(), "receiving", None),
                lambda: getattr(inlet(), "measured", None),
            )

        def marker(number: int) -> Any:
            return lambda: loop.markers[number] if number < len(loop.markers) else None

        stimulus = loop.encoders.stimulus
        feeds = [of(lambda: loop.inlet), *(of(marker(number)) for number in range(len(loop.session.markers)))]
        return feeds if stimulus is None else [*feeds, of(lambda: stimulus.inlet)]


def _pass_on(done: Future[Any], reply: Future[Any]) -> None:
    """In the recorder's thread."""
    error = done.exception()
    if error is None:
        reply.set_result(done.result())
    else:
        reply.set_exception(error if isinstance(error, NeuroloopError) else Conflict(str(error)))


def _payload_bytes(note: Note) -> int:
    """Of the weights in it."""
    within = (value.values() for value in note.values() if isinstance(value, dict))
    held = [*note.values(), *chain.from_iterable(within)]
    return sum(len(value) if isinstance(value, bytes) else int(getattr(value, "nbytes", 0)) for value in held)


def _free_path(folder: Path, session: str) -> Path:
    """A new file for a recording that begins now."""
    stem = f"{session}-{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    paths = (folder / f"{stem}{suffix}.xdf" for suffix in ("", *(f"-{n}" for n in range(2, 1000))))
    return next(path for path in paths if not path.exists())
