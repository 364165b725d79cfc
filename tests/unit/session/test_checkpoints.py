"""When checkpoints are taken, and when who waits for one is answered."""

from concurrent.futures import Future

import pytest

from neuroloop.config import parse_session
from neuroloop.errors import Conflict
from neuroloop.session import checkpoint
from neuroloop.session.checkpoints import EVERY_S, LATE_S, SLOW_S
from neuroloop.session.inbox import Inbox
from neuroloop.session.loop import Loop

PATIENCE_S = 10.0


class Told(list):
    """What a loop has published, as (topic, message)."""

    def __call__(self, topic, message):
        self.append((topic, message))

    def events(self):
        return [message["event"] for topic, message in self if topic == b"events"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "demo"


@pytest.fixture
def told():
    return Told()


@pytest.fixture
def loop(path, told):
    session = parse_session(
        {"name": "demo", "stream": {"name": "x"}, "classes": ["a", "b"], "outlets": {"enabled": False}}
    )
    loop = Loop(session, told, Inbox())
    loop.checkpoints.begin(path, False)
    yield loop
    loop.close()


def take_messages(loop):
    for message in loop.inbox.take():
        loop.take(message, {})


def test_an_answer_comes_when_a_checkpoint_has_what_it_tells(loop, path):
    reply = Future()
    loop.checkpoints.hold(reply).set_result("swapped")
    assert not reply.done()
    loop.checkpoints.turn(loop.clock(), False, False)
    assert reply.result(PATIENCE_S) == "swapped"
    assert checkpoint.read(path)[0]["seq"] == 0


def test_an_error_is_passed_on_as_an_answer_is(loop):
    reply = Future()
    loop.checkpoints.hold(reply).set_exception(Conflict("no"))
    loop.checkpoints.turn(loop.clock(), False, False)
    with pytest.raises(Conflict):
        reply.result(PATIENCE_S)


def test_an_answer_that_comes_long_after_the_checkpoint_is_passed_on_at_once(loop):
    reply = Future()
    held = loop.checkpoints.hold(reply)
    loop.checkpoints.turn(loop.clock(), False, False)
    loop.checkpoints.end()
    held.set_result("swapped")
    assert reply.result(0) == "swapped"


def test_who_waits_when_the_session_ends_is_answered_and_who_asks_after_it_too(loop):
    first, second = Future(), Future()
    loop.checkpoints.hold(first).set_result(1)
    loop.checkpoints.end()
    loop.checkpoints.hold(second).set_result(2)
    assert (first.result(0), second.result(0)) == (1, 2)


def test_a_disk_that_takes_nothing_is_told_and_keeps_nobody_waiting(loop, path, told):
    path.with_name("demo.new").mkdir()
    reply = Future()
    loop.checkpoints.hold(reply).set_result("swapped")
    loop.checkpoints.turn(loop.clock(), False, False)
    assert reply.result(PATIENCE_S) == "swapped"
    take_messages(loop)
    assert told.events() == ["checkpoint_failed"]


def test_a_disk_that_takes_long_is_told_and_keeps_nobody_waiting(loop, told, monkeypatch):
    disk, reply = Future(), Future()
    monkeypatch.setattr("neuroloop.session.checkpoint.write", lambda path, parts: disk.result(PATIENCE_S))
    loop.checkpoints.hold(reply).set_result("swapped")
    now = loop.clock()
    loop.checkpoints.turn(now, False, False)
    loop.checkpoints.turn(now + SLOW_S + 1.0, False, False)
    assert reply.result(0) == "swapped"
    take_messages(loop)
    assert told.events() == ["checkpoint_failed"]
    disk.set_result(None)


def test_a_snapshot_waits_for_the_end_of_a_bin_with_time_to_spare_but_not_for_long(loop, monkeypatch):
    taken, reply, turn, now = [], Future(), loop.checkpoints.turn, loop.clock()
    loop.checkpoints.hold(reply).set_result("the first is written")
    turn(now, False, False)
    reply.result(PATIENCE_S)
    monkeypatch.setattr(loop.checkpoints, "_take", taken.append)
    turn(now + EVERY_S, False, False)
    loop.journal.place.seq += 1
    turn(now + EVERY_S, True, False)  # as a loop says of the turn that completes a bin
    assert taken == []
    turn(now + EVERY_S, False, False)
    turn(late := now + EVERY_S + 2 * LATE_S, True, False)
    assert taken == [now + EVERY_S, late]
