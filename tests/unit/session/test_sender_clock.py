"""Whether a sender's clock keeps time, drifts, or was set."""

import math

import numpy as np
import pytest

from neuroloop.session.sender_clock import Offset, SenderClock

BIN_S = 0.02


def stream(clock, seconds, drift=0.0, rate=0.0, delay=lambda rng: 0.002, start=100.0, seed=0):
    """Bins of a 1 kHz stream whose timestamps run faster than the clock here by `drift`, and per sample by `rate`."""
    rng = np.random.default_rng(seed)
    events = []
    for number in range(1, round(seconds / BIN_S)):
        true = number * BIN_S
        samples = true * 1000 * (1 + drift) / (1 + rate)
        clock.bin(round(samples), start + true * (1 + drift), start + true + delay(rng))
        if number % 50 == 0:
            events += clock.second()
    return events


def test_a_sender_that_keeps_time_is_told_nothing_of_whatever_the_network_does_to_it():
    clock = SenderClock(1000.0)
    assert stream(clock, 90, delay=lambda rng: 0.001 + rng.exponential(0.01)) == []
    assert abs(clock.drift_ppm) < 50
    assert abs(clock.rate_ppm) < 50


@pytest.mark.parametrize("late_s", [0.15, 0.5])
def test_a_stream_whose_first_seconds_come_late_does_not_drift(late_s):
    clock, late = SenderClock(1000.0), iter([late_s] * 60 + [late_s / 2] * 40)
    assert stream(clock, 90, delay=lambda rng: next(late, 0.001)) == []


@pytest.mark.parametrize("drift", [0.01, -0.01, 0.001, -0.0005])
def test_a_clock_that_drifts_is_told_once_with_its_size(drift):
    clock = SenderClock(1000.0)
    events = stream(clock, 70, drift=drift, rate=drift, delay=lambda rng: 0.001 + rng.exponential(0.005))
    assert [event[0] for event in events if event[0] == "clock_drift"] == ["clock_drift"]
    assert clock.drift_ppm == pytest.approx(1e6 * drift, abs=100)


def test_samples_that_come_at_another_rate_than_the_nominal_one_are_no_drift_of_the_clock():
    clock = SenderClock(1000.0)
    events = stream(clock, 60, rate=0.002)
    assert [event[0] for event in events] == ["rate_drift"]
    assert clock.rate_ppm == pytest.approx(2000, abs=5)
    assert abs(clock.drift_ppm) < 5


def test_the_end_of_a_drift_is_told_too():
    clock = SenderClock(1000.0)
    stream(clock, 30, drift=0.01, rate=0.01)
    events = stream(clock, 70, start=130.3)
    assert {event[0]: event[1] for event in events}["clock_drift"].endswith("do not drift any more")


def test_arrivals_are_used_only_after_five_seconds_of_keeping_time():
    clock = SenderClock(1000.0)
    stream(clock, 4.0)
    assert math.isnan(clock.arrived(104.0))
    stream(clock, 4.0, start=104.0)
    clock.offset.update(-2.0, 0.0)
    assert clock.arrived(108.0) == pytest.approx(110.0 - 0.002)


def test_a_stream_faster_than_real_time_never_keeps_time():
    clock = SenderClock(1000.0)
    for number in range(1000):
        clock.bin(number * 20, 100 + number * BIN_S, 100 + number * BIN_S / 10)
        assert math.isnan(clock.arrived(100 + number * BIN_S / 10))
    assert not clock.is_in_real_time


def test_a_burst_after_a_pause_and_a_slow_drift_are_still_real_time():
    clock = SenderClock(1000.0)
    for number in range(50_000):
        arrival = number if not 500 < number < 1000 else 1000  # ten seconds of samples come at once
        clock.bin(number * 20, 100 + number * BIN_S, 100 + arrival * BIN_S / 1.001)
        assert clock.is_in_real_time


def test_an_offset_that_follows_a_corrected_step_is_not_counted_twice():
    offset = Offset()
    assert offset.update(3.0, 0.0) == 3.0
    assert offset.update(3.0, 200_000.0) == 3.0  # corrected at once
    assert offset.update(3.0 - 200_000.0, 200_000.0) == pytest.approx(3.0)  # liblsl has measured it
    assert offset.update(3.001 - 200_000.0, 200_000.0) == pytest.approx(3.001)
    assert offset.update(3.001 - 200_000.0, 0.0) == pytest.approx(3.001)  # set back, and not measured yet
    assert offset.update(3.0, 0.0) == 3.0


def test_an_offset_that_changes_by_itself_is_taken_as_it_is():
    offset = Offset()
    offset.update(3.0, 0.0)
    assert offset.update(50.0, 0.0) == 50.0
    assert offset.update(20.0, 7.0) == 20.0


def test_a_sender_that_was_held_up_for_a_moment_still_keeps_time():
    clock = SenderClock(1000.0)
    stream(clock, 8.0)
    stream(clock, 0.5, start=108.0, delay=lambda rng: 2.0)
    assert math.isnan(clock.arrived(110.5))  # while what it sends is late
    stream(clock, 0.5, start=110.5)
    assert clock.arrived(111.0) == pytest.approx(111.0 - 0.002)


def test_a_sender_that_stays_late_has_to_keep_time_anew():
    clock = SenderClock(1000.0)
    stream(clock, 8.0)
    stream(clock, 6.0, start=108.0, delay=lambda rng: 2.0)
    assert math.isnan(clock.arrived(116.0))
    stream(clock, 6.0, start=114.0, delay=lambda rng: 2.0)
    assert clock.arrived(122.0) == pytest.approx(122.0 - 2.0)


def test_a_sender_slower_than_real_time_never_keeps_time():
    clock = SenderClock(1000.0)
    for number in range(1000):
        clock.bin(number * 20, 100 + number * BIN_S, 100 + number * BIN_S * 2)
        assert math.isnan(clock.arrived(100 + number * BIN_S * 2))
