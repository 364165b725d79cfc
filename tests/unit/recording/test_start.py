"""Where a replay begins, by the notes of its recording."""

from types import SimpleNamespace

import pytest

from neuroloop.config import parse_session
from neuroloop.errors import ModelError
from neuroloop.recording.start import start_of
from neuroloop.session import checkpoint

PLACE = {"given": 30, "steps": 3, "seq": 2}
SESSION = {"name": "s", "stream": {"name": "x"}, "classes": ["a", "b"]}
BEGUN = {"kind": "session", "given": 0, "steps": 0, "seq": 0, "settings": SESSION, "is_running": True}


def recorded(*notes, **begun):
    return SimpleNamespace(begun=BEGUN | begun, notes=list(notes))


def content(**tree):
    return b"".join(checkpoint.pack({"is_running": True, **tree}))


def test_a_recording_of_a_whole_session_begins_with_it():
    notes = [{"kind": "command", "name": "label"}]
    start = start_of(recorded(*notes, is_fresh=True, checkpoint=None))
    assert (start.seq, start.notes, start.checkpoint, start.state) == (0, notes, None, None)


def test_that_of_a_process_that_goes_on_begins_with_its_checkpoint_and_the_labels_after_it():
    found = {"content": content(seq=7), "labels": [{"number": 1}]}
    start = start_of(recorded(is_fresh=False, checkpoint=found, seq=9))
    assert (start.seq, start.checkpoint["seq"], start.labels) == (9, 7, ({"number": 1},))


def test_that_of_a_session_that_ran_begins_where_its_state_was_taken():
    offset, late = ({"kind": "clock_offset", "seq": seq, "offset": 0.5} for seq in (0, 5))
    label = {"kind": "command", "name": "label"}
    abandoned, taken = ({"kind": "state", "number": number} | PLACE for number in (1, 2))
    kept = {"kind": "state_content", "number": 2, "content": content(seq=2)}
    start = start_of(recorded(offset, label, abandoned, taken, late, label, kept, is_fresh=False, checkpoint=None))
    assert start.seq == 2
    assert start.state["seq"] == 2
    assert start.notes == [offset, taken, late, label, kept]


def test_encoders_begin_with_their_state_and_with_what_their_thread_noted_after_it():
    stimulus = {"ring": 4, "consumed": 60, "timeline": {"judged": 70}}
    taken = {"kind": "state", "number": 1} | PLACE
    told = content(whole={"encoders": {"stimulus": stimulus}})
    kept = {"kind": "state_content", "number": 1, "content": told}
    loaded = {"kind": "command", "name": "encoder_load"}

    def noted(what, bin, **facts):
        return {"kind": "stimulus", "what": what, "bin": bin} | facts

    before = [noted("skip", 1), noted("resumed", 1, ring=4, at=69)]
    after = [noted("resumed", 1, ring=4, at=70), noted("resumed", 1, ring=5, at=3), noted("offset", 2)]
    begun = recorded(taken, *before, loaded, *after, kept, is_fresh=False, checkpoint=None)
    start = start_of(begun)
    assert (start.has_encoders, start.notes) == (True, [taken, loaded, *after, kept])
    start = start_of(begun, parse_session(SESSION))
    assert (start.has_encoders, loaded in start.notes) == (False, False)


def test_one_of_a_version_that_kept_no_state_is_refused():
    with pytest.raises(ModelError, match="began while the session was running, so what it had learned"):
        start_of(recorded(is_fresh=False))


def test_one_that_ended_before_its_state_was_there_is_refused():
    taken = {"kind": "state", "number": 1} | PLACE
    with pytest.raises(ModelError, match="ended before it had the session's state"):
        start_of(recorded(taken, is_fresh=False, checkpoint=None))
