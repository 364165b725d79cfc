"""Where the replay of a recording begins: with the session; with what a process that was replaced had left; or at the
moment at which the state of a session that was running was taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from neuroloop.config import SessionSettings, parse_session
from neuroloop.errors import ModelError
from neuroloop.recording.recorded import Note, RecordedSession
from neuroloop.session.checkpoint import Tree, unpack
from neuroloop.session.encoders import LOADED
from neuroloop.session.loop_state import WHOLE

BEFORE = ("clock_offset",)  # notes that hold until the next of their kind
OF_BINS = ("stream", "front_end", "bin_ms", "block_ms", "window", "settle_ms")
CHOSEN = ("mode", "half_life_s", "ridge", "ridge_absolute")  # of the rereference, by a person


@dataclass(frozen=True)
class Start:
    """note: of that place. notes: of what came from there on. is_running: whether the session was.

    checkpoint, labels: what the session's process began with; state: of its loop. One of them, or neither.
    is_whole: nothing is otherwise that bins are made of. has_encoders: they are replayed.
    """

    note: Note
    notes: list[Note]
    is_running: bool
    checkpoint: Tree | None = None
    labels: tuple[Note, ...] = ()
    state: Tree | None = None
    has_encoders: bool = False
    is_whole: bool = True

    @property
    def seq(self) -> int:
        """Of the first bin."""
        return int(self.note["seq"])


def start_of(recorded: RecordedSession, settings: SessionSettings | None = None) -> Start:
    """settings: of the replay, where they are not the recorded ones. Raises ModelError where it can begin nowhere."""
    begun, notes = recorded.begun, recorded.notes

    def fitted(content: bytes) -> Tree:
        tree = unpack(content)
        return tree if settings is None else _with(tree, parse_session(begun["settings"]), settings)

    found = begun.get("checkpoint")
    if found is not None or begun["is_fresh"]:
        has_encoders = begun.get("has_encoders", False) and settings is None
        tree = None if found is None else fitted(found["content"])
        labels = () if found is None else tuple(found["labels"])
        notes = notes if has_encoders else _without_encoders(notes)
        return Start(begun, notes, begun["is_running"], tree, labels, has_encoders=has_encoders)
    content = next((note for note in notes if note["kind"] == "state_content"), None)
    if content is None:
        raise ModelError(_refusal(begun))
    at = next(i for i, note in enumerate(notes) if note["kind"] == "state" and note["number"] == content["number"])
    taken, state = notes[at], fitted(content["content"])
    kept = [note for note in notes[:at] if note["kind"] in BEFORE]
    encoders = None if settings is not None else state.get(WHOLE, {}).get("encoders")
    came = _without_encoders(notes[at:]) if encoders is None else _after(taken["seq"], encoders, notes[at:])
    is_whole = settings is None or _bins(settings) == _bins(parse_session(begun["settings"]))
    has_encoders = encoders is not None
    return Start(taken, [*kept, *came], state["is_running"], state=state, has_encoders=has_encoders, is_whole=is_whole)


def _after(seq: int, encoders: Tree, notes: list[Note]) -> list[Note]:
    """Without what the encoders' thread noted before its state was taken: it tells the loop later."""
    stimulus = encoders["stimulus"]

    def is_known(note: Note) -> bool:
        if note["kind"] != "stimulus":
            return False
        if note["what"] != "resumed":
            return bool(note["bin"] < seq)
        return stimulus is not None and note["ring"] == stimulus["ring"] and note["at"] < _judged(stimulus)

    return [note for note in notes if not is_known(note)]


def _judged(stimulus: Tree) -> int:
    """The count of frames whose timestamps had been judged."""
    timeline = stimulus["timeline"]
    return int(stimulus["consumed"] if timeline is None else timeline["judged"])


def _without_encoders(notes: list[Note]) -> list[Note]:
    """Without what came for encoders alone."""
    return [note for note in notes if note.get("due") != LOADED and not note.get("name", "").startswith("encoder_")]


def _bins(settings: SessionSettings) -> tuple[Any, ...]:
    return tuple(getattr(settings, name) for name in OF_BINS)


def _refusal(begun: Note) -> str:
    why = "replay: the recording began while the session was running, "
    if "checkpoint" in begun:
        return f"{why}and ended before it had the session's state; its events (recording_not_replayable) say why"
    return (
        f"{why}so what it had learned by then is not in it; record again, or from the session's start "
        "(recording.automatic)"
    )


def _with(tree: Tree, recorded: SessionSettings, settings: SessionSettings) -> Tree:
    """The same for other settings: what a person now wants otherwise, and the shadows that there are then."""
    names = {decoder.name for decoder in settings.decoders}
    changed: dict[str, Any] = {}
    if "decoders" in tree:
        changed["decoders"] = [told for told in tree["decoders"] if told["place"] != "shadow" or told["name"] in names]
    if tree.get("rereference") is not None:
        changed["rereference"] = tree["rereference"] | _changed(recorded.rereference, settings.rereference)
    return tree | changed


def _changed(before: Any, now: Any) -> Mapping[str, Any]:
    return {key: getattr(now, key) for key in CHOSEN if getattr(now, key) != getattr(before, key)}
