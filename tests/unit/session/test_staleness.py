"""What a loop that falls behind tells, and what it publishes."""

import numpy as np
import pytest

from neuroloop.config import parse_session
from neuroloop.models.base import Scores
from neuroloop.session.journal import Journal
from neuroloop.session.staleness import Staleness

ANSWER = Scores(np.array([1.0, 2.0]), 1, None, np.array([0.2, 0.8]))
POLICIES = ["catch_up", "skip_to_latest", "hold"]


def make(policy, journal=None):
    settings = {"name": "s", "stream": {"name": "s"}, "classes": ["a", "b"]}
    session = parse_session(settings | {"staleness": policy, "stale_after_ms": 100})
    return Staleness(session, journal or Journal())


@pytest.mark.parametrize("policy", POLICIES)
def test_falling_behind_and_catching_up_are_told_once_each(policy):
    staleness = make(policy)
    told = [staleness.bin(seq, waited) for seq, waited in enumerate([5, 100, 101, 300, 150, 99, 5])]
    assert [event and event[0] for event in told] == [None, None, "stale", None, None, "in_time", None]
    assert told[2][2] == {"policy": policy, "behind_ms": 101}
    assert told[5][2] == {"stale_bins": 3, "worst_ms": 300}
    assert staleness.describe() == {"policy": policy, "is_stale": False, "bins": 3}


@pytest.mark.parametrize("policy", POLICIES)
def test_only_skip_to_latest_skips_and_only_hold_withholds_the_label_never_the_scores(policy):
    staleness = make(policy)
    staleness.bin(0, 50)
    assert not staleness.skips
    assert staleness.withhold(ANSWER, None) == (ANSWER, None)
    staleness.bin(1, 500)
    assert staleness.skips == (policy == "skip_to_latest")
    scores, reason = staleness.withhold(ANSWER, None)
    assert (scores.index, reason) == ((None, "stale") if policy == "hold" else (1, None))
    assert scores.values is ANSWER.values


def test_a_bin_that_has_no_answer_anyway_keeps_its_reason():
    staleness = make("hold")
    staleness.bin(0, 500)
    assert staleness.withhold(None, "gap") == (None, "gap")
    assert staleness.withhold(ANSWER, "untrained") == (ANSWER, "untrained")


def test_stale_bins_are_noted_for_a_replay():
    notes, journal = [], Journal()
    journal.begin(notes.append)
    staleness = make("hold", journal)
    for seq, waited in enumerate([500, 5, 500]):
        staleness.bin(seq, waited)
    assert [(note["kind"], note["bin"]) for note in notes] == [("stale", 0), ("stale", 2)]
