"""The inbox of the loop: messages in order, a bell, a bound, an end."""

import threading
import time

import pytest

from neuroloop.errors import Unavailable
from neuroloop.session.inbox import FULL, End, Inbox


def test_messages_come_out_in_order_and_once():
    inbox = Inbox()
    for number in range(5):
        inbox.put(number)
    assert inbox.take() == [0, 1, 2, 3, 4]
    assert inbox.take() == []


def test_a_message_wakes_the_loop_from_another_thread():
    inbox = Inbox()
    began = time.monotonic()
    threading.Timer(0.05, inbox.put, ["x"]).start()
    inbox.wait(30)
    assert time.monotonic() - began < 20
    assert inbox.take() == ["x"]


def test_a_bell_that_rang_before_the_wait_is_not_lost_and_two_rings_are_one():
    inbox = Inbox()
    inbox.wake()
    inbox.wake()
    began = time.monotonic()
    inbox.wait(30)
    assert time.monotonic() - began < 20
    inbox.wait(0.01)  # returns by its timeout: the second ring was the first
    assert inbox.take() == []


def test_a_loop_that_takes_nothing_is_said_to_be_unavailable():
    inbox = Inbox()
    for number in range(FULL):
        inbox.put(number)
    with pytest.raises(Unavailable, match="has not taken"):
        inbox.put("one more")


def test_after_the_end_nothing_is_taken_in_and_what_was_left_is_handed_back():
    inbox = Inbox()
    inbox.put("left")
    assert inbox.close() == ["left"]
    with pytest.raises(Unavailable, match="ending"):
        inbox.put("late")


def test_an_end_is_taken_even_when_the_inbox_is_full_or_closed():
    inbox = Inbox()
    for _ in range(FULL):
        inbox.put("item")
    inbox.put(End())
    assert isinstance(inbox.close()[-1], End)
    inbox.put(End())
    with pytest.raises(Unavailable):
        inbox.put("item")
