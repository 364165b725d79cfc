"""What goes out of a line with faults, and what it says of it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloop_sources import SourceError
from neuroloop_sources.faults.kinds import KINDS, Chunk
from neuroloop_sources.faults.line import Close, Line, Open, Send, Tell

RATE = 1000.0


def through(line, count, sizes=(20,), calm_from=None):
    """The actions of so many samples that come in real time, in chunks of these sizes, and then of silence."""
    actions, done, turn = [], 0, 0
    while done < count or not line.is_idle:
        if done >= (count if calm_from is None else calm_from):
            line.calm()
        size = sizes[turn % len(sizes)]
        times = np.arange(done, done + size) / RATE
        done, turn = done + size, turn + 1
        actions += line.take(Chunk(np.arange(done - size, done, dtype=np.float32)[:, None], times), done / RATE)
    return actions, done


def sent(actions):
    """The samples that left, while there was a stream."""
    chunks = [action.chunk for action in actions if isinstance(action, Send) and not action.is_other]
    return Chunk.joined(chunks)


def test_without_faults_everything_goes_out_as_it_came():
    actions, count = through(Line([], RATE, 0), 1000)
    out = sent(actions)
    np.testing.assert_array_equal(out.samples[:, 0], np.arange(count))
    np.testing.assert_array_equal(out.times, np.arange(count) / RATE)


@given(kinds=st.lists(st.sampled_from(list(KINDS)), unique=True, min_size=1), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=15)
def test_every_sample_that_came_was_sent_dropped_or_unsent_and_each_is_counted(kinds, seed):
    line = Line(kinds, RATE, seed, every_s=0.5)
    actions, came = through(line, 20_000)
    out, counted = sent(actions), line.sent
    assert counted.sent == len(out)
    assert counted.sent - counted.repeated + counted.dropped + counted.unsent == came
    assert counted.late == sum(_comes_late(out))
    assert sum(counted.faults.values()) == sum(isinstance(action, Tell) for action in actions) > 5
    assert counted.newest == out.times[-1]


def _comes_late(out):
    """Of samples that are sent for the first time: whether a later one was sent before."""
    seen, newest = set(), -1
    for number in out.samples[:, 0]:
        if not np.isfinite(number):
            newest += 1
            continue
        if number not in seen:
            yield number < newest
        seen.add(number)
        newest = max(newest, number)


def test_every_kind_comes_once_before_one_comes_again():
    line = Line(list(KINDS), RATE, 1, every_s=0.5)
    actions, _ = through(line, 100_000)
    kinds = [action.facts["fault"] for action in actions if isinstance(action, Tell)]
    rounds = [kinds[first : first + len(KINDS)] for first in range(0, len(kinds) - len(KINDS) + 1, len(KINDS))]
    assert all(sorted(one) == sorted(KINDS) for one in rounds)
    assert rounds[0] != rounds[1]


@given(sizes=st.lists(st.integers(1, 100), min_size=1, max_size=8))
@settings(max_examples=10)
def test_the_same_seed_gives_the_same_samples_however_they_came(sizes):
    kinds = ["drop", "duplicate", "reorder", "nan", "step"]
    first, _ = through(Line(kinds, RATE, 3, every_s=0.3), 5000, (20,))
    second, _ = through(Line(kinds, RATE, 3, every_s=0.3), 5000, sizes)
    common = slice(0, 4000)
    np.testing.assert_array_equal(sent(first).samples[common], sent(second).samples[common])
    np.testing.assert_array_equal(sent(first).times[common], sent(second).times[common])


def test_what_comes_while_there_is_no_stream_is_unsent_and_the_stream_comes_back():
    line = Line(["kill"], RATE, 0, every_s=1.0)
    actions, _ = through(line, 10_000, calm_from=5000)
    kinds = [type(action) for action in actions if isinstance(action, Close | Open)]
    assert kinds == [Close, Open] * (len(kinds) // 2)
    assert len(kinds) >= 2
    holes = np.diff(sent(actions).samples[:, 0])
    assert line.sent.unsent == (holes - 1).sum() > 0


def test_a_stream_of_another_number_of_channels_gets_samples_that_do_not_count():
    line = Line(["channels"], RATE, 0, every_s=1.0)
    actions, _ = through(line, 10_000, calm_from=2000)
    other = [action.chunk for action in actions if isinstance(action, Send) and action.is_other]
    assert sum(len(chunk) for chunk in other) == line.sent.unsent > 0


def test_there_are_no_faults_while_nobody_receives():
    line = Line(["drop"], RATE, 0, every_s=0.1)
    for start in range(0, 5000, 20):
        times = np.arange(start, start + 20) / RATE
        list(line.take(Chunk(np.zeros((20, 1)), times), start / RATE, is_received=False))
    assert line.sent.faults == {}


def test_a_stall_holds_everything_and_then_sends_it_in_order():
    actions, count = through(Line(["stall"], RATE, 0, every_s=1.0), 10_000, calm_from=2000)
    np.testing.assert_array_equal(sent(actions).samples[:, 0], np.arange(count))


def test_after_as_many_rounds_as_are_wanted_it_is_calm():
    line = Line(["drop", "nan"], RATE, 0, every_s=0.1, rounds=2)
    through(line, 5000, calm_from=5000)
    assert (line.sent.faults, line.is_calm) == ({"drop": 2, "nan": 2}, True)


def test_a_fault_that_does_not_exist_is_refused():
    with pytest.raises(SourceError, match=r"expected one of drop, duplicate.*got 'dorp'"):
        Line(["dorp"], RATE, 0)
