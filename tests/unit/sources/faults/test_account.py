"""What a subscriber was told beside what was sent: whether the two add up."""

import numpy as np
import pytest

from neuroloop_sources.faults.account import settle
from neuroloop_sources.faults.line import Sent

RATE, BIN = 1000.0, 20


def bins(count, first=0):
    return [{"seq": seq, "samples": [BIN * seq, BIN * seq + BIN - 1]} for seq in range(first, count)]


def event(name, **facts):
    return {"event": name, **facts}


def gap(samples):
    return event("gap", missing_samples=samples)


def test_a_stream_without_faults_adds_up_to_the_bin_that_is_not_complete():
    account = settle(Sent(sent=1019), RATE, bins(50), [], received=1019)
    assert (account.adds_up, account.bins, account.unaccounted, account.lost) == (True, 1000, 0, 0)


@pytest.mark.parametrize("sent", [999, 1020])
def test_a_sample_too_few_or_a_bin_too_many_does_not_add_up(sent):
    account = settle(Sent(sent=sent), RATE, bins(50), [])
    assert not account.adds_up
    assert account.unaccounted == 1


FAULTS = {
    "dropped": (Sent(sent=900, dropped=100), [gap(60), gap(40)], 900),
    "sent twice": (Sent(sent=1050, repeated=50), [event("surplus", surplus_samples=50)], 1050),
    "out of order": (Sent(sent=1000, late=30), [gap(30), event("surplus", surplus_samples=30)], 1000),
    "gone while there was no stream, and on the way": (Sent(sent=900, unsent=100), [gap(100), gap(25)], 875),
    "a clock that was set": (Sent(sent=1000, step_s=-5.5), [event("clock_step", seconds=-5.5)], 1000),
    "a clock that was set, taken for a hole": (Sent(sent=600, step_s=0.4), [gap(400)], 600),
    "not finite": (Sent(sent=1000, nonfinite=7), [event("nonfinite", channels={"a": 3, "b": 4})], 1000),
}


@pytest.mark.parametrize("what", FAULTS)
def test_what_is_announced_adds_up(what):
    sent, events, received = FAULTS[what]
    assert settle(sent, RATE, bins(50), events, received).wrong == []


@pytest.mark.parametrize("what", FAULTS)
def test_what_is_not_announced_does_not_add_up(what):
    sent, events, received = FAULTS[what]
    assert not settle(sent, RATE, bins(50), events[1:], received).adds_up


def test_a_bin_that_a_subscriber_did_not_get_is_told():
    told = bins(50)
    del told[20]
    assert settle(Sent(sent=1000), RATE, told, []).wrong[0] == "after bin 19 comes bin 21"


def test_no_bin_at_all_does_not_add_up():
    assert settle(Sent(sent=np.inf), RATE, [], []).wrong[0] == "there is no bin"
