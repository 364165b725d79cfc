"""What reaches a session from outside, noted with its place."""

from concurrent.futures import Future

import pytest

from neuroloop.session.journal import Journal


@pytest.fixture
def notes():
    return []


@pytest.fixture
def journal(notes):
    journal = Journal()
    journal.place.given, journal.place.steps, journal.place.seq = 600, 20, 2
    journal.begin(notes.append)
    return journal


def test_a_note_has_its_place(journal, notes):
    journal.note("marker_label", label="a")
    assert notes == [{"kind": "marker_label", "given": 600, "steps": 20, "seq": 2, "label": "a"}]


def test_only_commands_that_change_what_is_computed_are_noted(journal, notes):
    for name in ("status", "label", "training_data", "recording_stop", "decoder_load"):
        journal.command(name, {"x": 1})
    assert [note["name"] for note in notes] == ["label", "decoder_load"]


def test_a_clock_offset_is_noted_where_it_changes_and_anew_for_each_recording(journal, notes):
    assert [journal.clock_offset(value) for value in (0.0, 0.0, 0.25, 0.25)] == [0.0, 0.0, 0.25, 0.25]
    assert [note["offset"] for note in notes] == [0.0, 0.25]
    journal.begin(notes.append)
    journal.clock_offset(0.25)
    assert [note["offset"] for note in notes] == [0.0, 0.25, 0.25]


def test_work_is_due_as_soon_as_it_is_done(journal, notes):
    result = Future()
    assert not journal.is_due("update", 3, 40, result)
    result.set_result(None)
    assert journal.is_due("update", 3, 41, result)
    (note,) = notes
    assert (note["kind"], note["what"], note["number"], note["block"]) == ("due", "update", 3, 41)


def test_a_decoder_that_is_too_slow_is_noted_with_its_bin(journal, notes):
    assert [journal.too_slow(7, False), journal.too_slow(8, True)] == [False, True]
    assert [note["bin"] for note in notes] == [8]


def test_without_a_recording_nothing_is_kept(journal, notes):
    journal.end()
    journal.note("marker_label", label="a")
    assert journal.clock_offset(0.5) == 0.5
    assert notes == []
