"""In which order an overloaded session leaves things out, and gets them back."""

from types import SimpleNamespace

import pytest

from neuroloop.session.journal import Journal
from neuroloop.session.shedding import CALM_S, LONGEST_CALM_S, Shedding


@pytest.fixture
def loop():
    decoders = SimpleNamespace(shadows={"one": None}, drop_waiting=lambda: 7)
    return SimpleNamespace(
        chain=SimpleNamespace(decoders=decoders),
        encoders=SimpleNamespace(has_any=True),
        signals=SimpleNamespace(are_wanted=False),
        swaps=SimpleNamespace(is_promoting=False),
        journal=Journal(),
    )


def seconds(shedding, *shares):
    return [(event[0], event[2]["what"]) for share in shares for event in shedding.second(share)]


def test_shadows_go_first_then_encoders_and_nothing_else_ever(loop):
    shedding = Shedding(loop)
    assert seconds(shedding, 0.0, 0.1, 0.11, 0.5, 1.0, 1.0) == [("shed", "shadows"), ("shed", "encoders")]
    assert shedding.shed == ["shadows", "encoders"]


def test_nobody_is_shown_signals_before_anything_else_is_left_out(loop):
    loop.signals.are_wanted = True
    assert seconds(Shedding(loop), 1.0, 1.0, 1.0) == [("shed", "signals"), ("shed", "shadows"), ("shed", "encoders")]


def test_what_a_session_has_not_is_not_shed(loop):
    loop.chain.decoders.shadows = {}
    shedding = Shedding(loop)
    assert seconds(shedding, 1.0, 1.0) == [("shed", "encoders")]
    loop.encoders.has_any = False
    assert seconds(Shedding(loop), 1.0, 1.0) == []


def test_after_calm_seconds_the_last_thing_comes_back_first(loop):
    shedding = Shedding(loop)
    seconds(shedding, 1.0, 1.0)
    assert seconds(shedding, *[0.0] * (CALM_S - 1), 0.05, *[0.0] * (CALM_S - 1)) == []
    assert seconds(shedding, 0.0) == [("shed_over", "encoders")]
    assert seconds(shedding, *[0.0] * CALM_S) == [("shed_over", "shadows")]
    assert shedding.shed == []


def test_what_came_back_too_soon_stays_away_longer_each_time_up_to_a_limit(loop):
    shedding = Shedding(loop)
    loop.encoders.has_any = False
    waits = []
    for _ in range(7):
        assert seconds(shedding, 1.0) == [("shed", "shadows")]
        wait = 1
        while not seconds(shedding, 0.0):
            wait += 1
        waits.append(wait)
    assert waits == [5, 10, 20, 40, 80, 80, LONGEST_CALM_S]


def test_nothing_is_shed_while_a_shadow_is_promoted(loop):
    loop.swaps.is_promoting = True
    shedding = Shedding(loop)
    assert seconds(shedding, 1.0, 1.0) == []
    loop.swaps.is_promoting = False
    assert seconds(shedding, 1.0) == [("shed", "shadows")]


def test_what_is_shed_is_noted_for_a_replay(loop):
    notes = []
    loop.journal.begin(notes.append)
    loop.encoders.has_any = False
    seconds(Shedding(loop), 1.0, *[0.0] * CALM_S)
    assert [(note["kind"], note["what"], note["is_shed"]) for note in notes] == [
        ("shed", "shadows", True),
        ("shed", "shadows", False),
    ]
