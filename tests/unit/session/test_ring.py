"""The ring between the acquire thread and the loop."""

import numpy as np
import pytest

from neuroloop.session.ring import Ring


@pytest.fixture
def ring():
    return Ring(10, 2, np.dtype(np.int16))


def test_room_is_contiguous_and_never_over_what_was_not_consumed(ring):
    assert ring.room() == (0, 10)
    ring.commit(7, 1.0)
    assert ring.room() == (7, 3)
    ring.consumed = 5
    assert ring.room() == (7, 3)
    ring.commit(3, 1.1)
    assert ring.room() == (0, 5)
    ring.commit(5, 1.2)
    assert ring.room()[1] == 0


def test_an_overrun_is_remembered_until_the_reader_has_seen_it(ring):
    assert not ring.is_overrun
    ring.overrun(5.0)
    assert (ring.is_overrun, ring.overrun_until) == (True, 5.0)


def test_the_arrival_of_a_sample_is_when_its_chunk_was_committed(ring):
    for number in range(4):
        ring.commit(2, float(number))
        ring.consumed += 2
    assert [ring.arrival_of(count) for count in (1, 2, 3, 5, 8)] == [0.0, 0.0, 1.0, 2.0, 3.0]


def test_what_is_missing_is_known_when_the_next_sample_has_come(ring):
    ring.commit(2, 1.0)
    assert ring.arrival_after(2, is_hole=True) == 1.0  # it has not
    ring.commit(2, 3.0)
    assert [ring.arrival_after(2, is_hole) for is_hole in (False, True)] == [1.0, 3.0]


def test_samples_keep_the_format_they_came_in(ring):
    assert ring.samples.dtype == np.int16
    assert ring.samples.shape == (10, 2)
