"""The queue of a shadow: bounded, in order, lossless for labels, and left on request."""

import threading

import numpy as np
import pytest

from neuroloop.models.maxrate import MaxRate
from neuroloop.pipeline import Bin
from neuroloop.session.guard import Guard
from neuroloop.session.journal import Journal
from neuroloop.session.messages import BinTime
from neuroloop.session.running import Fault, RunningDecoder, Taught
from neuroloop.session.shadow import LATE_BINS, LESSONS_KEPT, QUEUE_LENGTH, Answer, Handed, Replace, Shadow, ShadowBin

RATES = np.ones(3, np.float32)


class Held(MaxRate):
    """Answers when the test lets it; notes what it sees."""

    def __init__(self):
        super().__init__(["a", "b"], 3)
        self.seen = []
        self.may_go = threading.Event()
        self.came = threading.Event()

    def predict(self, rates):
        if hasattr(self, "came"):
            self.came.set()
            self.may_go.wait(30)
            self.seen.append(int(rates[0]))
        return super().predict(rates)

    def learn(self, rates, label, duration_s=1.0):
        if hasattr(self, "seen"):
            self.seen.append("label")
        super().learn(rates, label, duration_s)

    def reset(self):
        self.seen.append("reset")


def item(number):
    outcome = Bin(RATES, np.full(3, number, np.float32), None, False)
    return ShadowBin(number, outcome, BinTime(number, 0, 1, 0.0, 0.0), None, 0)


LESSON = Taught(RATES, 0, 1.0, np.arange(0))


@pytest.fixture
def shadow():
    """One whose thread runs, and what it tells."""
    running = RunningDecoder("s", "maxrate", "shadow", Held(), 8)
    shadow = Shadow("session", running, Guard(1000.0, 5))
    shadow.told = []
    shadow.handed = threading.Event()

    def tell(_, told):
        shadow.told += told
        if isinstance(told[-1], Handed):
            shadow.handed.set()

    shadow.begin(running, tell, Journal())
    yield shadow
    running.decoder.may_go.set()
    shadow.end()


def test_a_full_queue_loses_its_bins_and_no_label_and_goes_on_with_the_newest(shadow):
    decoder = shadow.running.decoder
    shadow.put(item(0))
    assert decoder.came.wait(30)  # the first bin is out of the queue
    shadow.put(LESSON)
    assert [shadow.put(item(number)) for number in range(1, QUEUE_LENGTH)] == [(0, 0)] * (QUEUE_LENGTH - 1)
    assert shadow.put(item(QUEUE_LENGTH)) == (QUEUE_LENGTH - 1, 0)
    assert shadow.skipped == QUEUE_LENGTH - 1
    shadow.hand_over(lambda *_: None)
    decoder.may_go.set()
    assert shadow.handed.wait(30)
    assert decoder.seen == [0, "reset", "label", QUEUE_LENGTH]


def test_a_queue_full_of_labels_loses_the_oldest_of_them_counts_them_and_obeys_the_rest(shadow):
    decoder, other = shadow.running.decoder, RunningDecoder("s", "maxrate", "shadow", Held(), 8)
    shadow.put(item(0))
    assert decoder.came.wait(30)
    shadow.put(Replace(other))
    for _ in range(QUEUE_LENGTH - 1):
        shadow.put(LESSON)
    assert shadow.put(LESSON) == (0, QUEUE_LENGTH - 1 - LESSONS_KEPT)
    assert shadow.describe()["unlearned"] == QUEUE_LENGTH - 1 - LESSONS_KEPT
    shadow.hand_over(lambda *_: None)
    decoder.may_go.set()
    assert shadow.handed.wait(30)
    assert decoder.seen == [0, "reset"]
    assert other.decoder.seen == ["label"] * (LESSONS_KEPT + 1)


def test_a_decoder_is_handed_over_after_everything_before_and_what_comes_later_is_kept(shadow):
    decoder = shadow.running.decoder
    for number in range(3):
        shadow.put(item(number))
    shadow.hand_over(lambda *_: None)
    shadow.put(item(3))
    assert [late.number for late in shadow.late] == [3]
    decoder.may_go.set()
    assert shadow.handed.wait(30)
    handed = shadow.told[-1]
    assert (handed.request, handed.running) == (shadow.handing_over, shadow.running)
    assert decoder.seen == [0, 1, 2]
    assert [answer.message["seq"] for answer in shadow.told[:-1]] == [0, 1, 2]


def test_a_handover_that_takes_too_long_is_given_up_and_nothing_is_lost(shadow):
    decoder = shadow.running.decoder
    shadow.put(item(0))
    shadow.hand_over(lambda *_: None)
    for number in range(1, LATE_BINS + 1):
        shadow.put(item(number))
        assert not shadow.is_too_late()
    shadow.put(item(LATE_BINS + 1))
    assert shadow.is_too_late()
    shadow.keep()
    shadow.hand_over(lambda *_: None)
    decoder.may_go.set()
    assert shadow.handed.wait(30)
    assert decoder.seen == list(range(LATE_BINS + 2))


def test_what_a_shadow_answers_and_where_it_agrees_is_counted_by_the_loop(shadow):
    running = shadow.running
    running.decoder.may_go.set()
    running.learn(Taught(np.array([9, 1, 1], np.float32), 0, 1.0, np.arange(0)))
    running.learn(Taught(np.array([1, 9, 9], np.float32), 1, 1.0, np.arange(0)))
    outcome = Bin(RATES, np.array([9, 1, 1], np.float32), None, False)
    for active in (0, 1, None):
        answer = shadow.process(running, ShadowBin(0, outcome, BinTime(0, 0, 1, 0.0, 0.0), None, active))
        assert isinstance(answer, Answer)
        assert answer.message["label"] == "a"
        shadow.count(answer)
    told = shadow.describe()
    assert (told["agreement"], told["bins"]) == ({"bins": 2, "agreed": 1}, 3)


def test_a_label_that_a_shadow_cannot_learn_is_a_fault_to_tell(shadow):
    fault = shadow.process(shadow.running, Taught(np.full(3, np.nan, np.float32), 0, 1.0, np.arange(0)))
    assert isinstance(fault, Fault)
    assert "values are missing" in str(fault)


def test_a_question_comes_after_what_came_before_and_counts_for_no_replay_even_where_a_handover_was_given_up(shadow):
    answered = threading.Event()

    def note(running):
        running.decoder.seen.append("asked")

    shadow.put(item(1))
    shadow.ask(note)
    shadow.hand_over(lambda *_: None)
    shadow.ask(note)
    shadow.keep()
    shadow.ask(lambda _: answered.set())
    shadow.running.decoder.may_go.set()
    assert answered.wait(30)
    assert shadow.running.decoder.seen == [1, "asked", "asked"]
    assert shadow._given == 1


def test_a_shadow_that_never_comes_to_them_gathers_no_questions(shadow):
    asked = []
    shadow.put(item(0))
    assert shadow.running.decoder.came.wait(30)
    shadow.ask(lambda _: asked.append("in a queue that was full"))
    for number in range(1, QUEUE_LENGTH + 1):
        shadow.put(item(number))
    answered = threading.Event()
    shadow.ask(lambda _: answered.set())
    shadow.running.decoder.may_go.set()
    assert answered.wait(30)
    assert asked == []
