"""Where samples are missing, from their timestamps alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloop.session.timeline import Timeline

RATE = 1000.0


def judge(times, chunks=None, dejitter="auto", rate=RATE):
    """Follow all timestamps, in chunks; returns released, gaps, smoothed times, the timeline."""
    buffer = np.array(times, dtype=float)
    timeline = Timeline(rate, dejitter)
    gaps, released, stop = [], 0, 0
    for chunk in chunks or [len(buffer)]:
        stop = min(len(buffer), stop + chunk)
        released, found = timeline.follow(buffer, stop)
        gaps += found
    released, found = timeline.follow(buffer, len(buffer))
    return released, gaps + found, buffer, timeline


def test_a_stream_without_a_hole_has_no_gap_and_keeps_its_timestamps():
    times = 5 + np.arange(3000) / RATE
    released, gaps, followed, _ = judge(times)
    assert (released, gaps) == (3000, [])
    np.testing.assert_array_equal(followed, times)


@pytest.mark.parametrize("missing", [1, 2, 17, 5000])
def test_a_jump_of_whole_samples_is_a_gap_of_that_many_known_at_once(missing):
    times = np.r_[np.arange(100), np.arange(100) + 100 + missing] / RATE
    released, gaps, _, _ = judge(times[:101])
    assert (released, gaps) == (101, [(100, missing)])
    assert judge(times)[1] == [(100, missing)]


@given(
    holes=st.lists(st.tuples(st.integers(1, 300), st.integers(1, 2000)), max_size=6),
    chunks=st.lists(st.integers(1, 400), max_size=20),
)
@settings(max_examples=25)
def test_gaps_do_not_depend_on_how_the_samples_were_chunked(holes, chunks):
    counts = np.concatenate([[0]] + [np.r_[np.ones(run), 1 + missing] for run, missing in holes])
    times = 100 + np.cumsum(counts) / RATE
    expected, position = [], 0
    for run, missing in holes:
        position += run + 1
        expected.append((position, missing))
    _, whole, smooth, _ = judge(times)
    _, parts, smooth_parts, _ = judge(times, chunks)
    assert whole == parts == expected
    np.testing.assert_array_equal(smooth, smooth_parts)


def test_jittered_timestamps_are_smoothed_and_no_gap_is_invented():
    rng = np.random.default_rng(0)
    true = np.arange(0, 20, 1 / 256)
    # A headset stamps 12 samples when it sends them, now and then 30 ms late.
    late = np.repeat(rng.exponential(0.004, len(true) // 12 + 1), 12)[: len(true)]
    released, gaps, followed, _ = judge(true + late, dejitter="auto", rate=256.0)
    assert gaps == []
    assert released > len(true) - 30
    settled = slice(5 * 256, released)
    assert np.std(np.diff(followed[settled])) < 0.1 * np.std(np.diff((true + late)[settled]))
    assert np.abs(np.diff(followed[settled]) - 1 / 256).max() < 0.5 / 256


def test_a_real_hole_among_jittered_timestamps_is_found_with_its_length():
    rng = np.random.default_rng(1)
    true = np.arange(0, 20, 1 / 256)
    true[2560:] += 1.0
    _, gaps, _, _ = judge(true + rng.normal(0, 0.001, len(true)), rate=256.0)
    assert len(gaps) == 1
    position, missing = gaps[0]
    assert position == 2560
    assert abs(missing - 256) <= 2


def test_a_burst_that_was_merely_late_is_no_gap():
    rng = np.random.default_rng(2)
    times = np.arange(0, 20, 1 / 256) + rng.normal(0, 0.001, 5120)
    times[3000:3010] = times[3010]  # ten samples stamped when they were sent at last
    released, gaps, _, _ = judge(times, rate=256.0)
    assert gaps == []
    assert released == len(times)


def test_a_clock_that_was_set_by_hours_is_a_step_and_no_gap():
    times = np.r_[np.arange(100) / RATE, 200_000 + np.arange(100) / RATE]
    _, gaps, _, timeline = judge(times)
    assert gaps == []
    assert timeline.clock_steps == 1


def test_after_a_loss_the_distance_to_the_next_sample_is_a_gap_whatever_the_jitter():
    rng = np.random.default_rng(3)
    times = np.r_[np.arange(0, 10, 1 / 256), 12.5 + np.arange(0, 1, 1 / 256)] + rng.normal(0, 0.001, 2816)
    timeline = Timeline(256.0, "auto")
    _, before = timeline.follow(times, 2560)
    timeline.resume(2560)
    _, after = timeline.follow(times, len(times))
    assert before == []
    assert len(after) == 1
    assert after[0][0] == 2560
    assert abs(after[0][1] - 2.5 * 256) <= 2


def stepped(seconds, jitter_s=0.0, samples=3000, at=1500):
    """Timestamps whose clock is set by so much, and the true ones."""
    rng = np.random.default_rng(4)
    true = 50 + np.arange(samples) / RATE
    jittered = true + jitter_s * rng.standard_normal(samples)
    jittered[at:] += seconds
    return jittered, true


@pytest.mark.parametrize("jitter_s", [0.0, 0.001])
@pytest.mark.parametrize("seconds", [200_000.0, -200_000.0, -7.25, -3601.0])
def test_after_a_clock_step_the_corrected_timestamps_go_on_as_before(seconds, jitter_s):
    times, true = stepped(seconds, jitter_s)
    released, gaps, followed, timeline = judge(times, chunks=[33] * 200)
    assert (released, gaps, timeline.clock_steps) == (3000, [], 1)
    (step,) = timeline.take_steps()
    assert step.count == 1500
    assert step.seconds == pytest.approx(seconds, abs=0.01)
    np.testing.assert_allclose(followed, true, atol=0.02)
    assert timeline.take_steps() == []


def test_steps_that_cancel_leave_no_correction():
    times, true = stepped(200_000.0)
    times[2000:] = true[2000:]
    _, gaps, followed, timeline = judge(times)
    assert (gaps, timeline.clock_steps) == ([], 2)
    np.testing.assert_allclose(followed, true, atol=1e-6)
    assert timeline.shift == pytest.approx(0, abs=1e-6)


def follow_with_arrivals(times, arrivals, chunk=20):
    buffer, timeline, gaps = times.copy(), Timeline(RATE, "auto"), []
    for stop in range(chunk, len(times) + 1, chunk):
        gaps += timeline.follow(buffer, stop, arrivals[stop - 1])[1]
    return buffer, gaps, timeline


@pytest.mark.parametrize("seconds", [0.4, 10.0, 3000.0])
def test_a_sample_from_the_future_is_no_hole_but_a_clock_step(seconds):
    times, true = stepped(seconds)
    followed, gaps, timeline = follow_with_arrivals(times, true + 0.002)
    assert gaps == []
    assert timeline.shift == pytest.approx(seconds)
    np.testing.assert_allclose(followed, true, atol=1e-9)
    assert judge(times)[1] == [(1500, round(seconds * RATE))]  # where arrivals are not known


def test_a_hole_that_the_arrivals_agree_with_stays_one():
    times, _ = stepped(10.0)
    _, gaps, timeline = follow_with_arrivals(times, times + 0.002)
    assert (gaps, timeline.clock_steps) == ([(1500, 10_000)], 0)


def test_a_pause_at_the_moment_of_a_step_is_a_hole_as_long_as_the_pause():
    times, true = stepped(-200_000.0)
    arrivals = true + 0.002
    arrivals[1500:] += 5.0
    followed, gaps, _ = follow_with_arrivals(times, arrivals)
    assert len(gaps) == 1
    assert gaps[0][0] == 1500
    assert gaps[0][1] == pytest.approx(5000, abs=5)
    assert arrivals[-1] - followed[-1] == pytest.approx(0.0, abs=0.01)


def test_steps_that_are_expected_are_found_again_without_arrivals_to_the_bit():
    times, true = stepped(10.0)
    times[2500:] -= 200_000
    arrivals = true + 0.002
    arrivals[2500:] += 2.0
    followed, gaps, timeline = follow_with_arrivals(times, arrivals)
    steps = timeline.take_steps()
    again, replayed = times.copy(), Timeline(RATE, "auto")
    replayed.expect((step.count, step.time) for step in steps if not step.is_told_by_times)
    assert replayed.follow(again, len(again)) == (3000, gaps)
    np.testing.assert_array_equal(again, followed)
    assert [step.seconds for step in replayed.take_steps()] == [step.seconds for step in steps]


def test_a_clock_that_runs_ahead_slowly_is_never_taken_for_one_that_was_set():
    true = 50 + np.arange(6000) / RATE
    times = 50 + np.arange(6000) * 1.0001 / RATE
    _, gaps, timeline = follow_with_arrivals(times + 0.2499, true)  # passes 250 ms ahead of its arrivals
    assert (gaps, timeline.clock_steps) == ([], 0)


def kept(times, gaps):
    """The timestamps without surplus samples, and the holes among them as (timestamp after it, missing)."""
    surplus = [i for position, missing in gaps if missing < 0 for i in range(position, position - missing)]
    return np.delete(times, surplus), [(times[position], missing) for position, missing in gaps if missing > 0]


def test_samples_that_come_twice_are_surplus():
    true = np.arange(3000) / RATE
    times = np.r_[true[:2000], true[1950:2000], true[2000:]]
    released, gaps, _, timeline = judge(times)
    assert (released, gaps, timeline.clock_steps) == (3050, [(2000, -50)], 0)


def test_samples_that_come_after_they_were_counted_as_missing_are_surplus():
    true = np.arange(3000) / RATE
    times = np.r_[true[:2000], true[2030:2050], true[2000:2030], true[2050:]]
    _, gaps, _, timeline = judge(times)
    assert (gaps, timeline.clock_steps) == ([(2000, 30), (2020, -30)], 0)


@given(
    order=st.permutations(range(60)),
    chunks=st.lists(st.integers(1, 400), max_size=20),
    at=st.integers(1001, 2800),
)
@settings(max_examples=50)
def test_whatever_order_samples_come_in_those_kept_and_those_missing_fill_the_time_once(order, chunks, at):
    true = np.arange(3000) / RATE
    times = np.r_[true[:at], true[at : at + 60][list(order)], true[at + 60 :]]
    _, gaps, _, _ = judge(times, chunks)
    rest, holes = kept(times, gaps)
    steps = np.rint(np.diff(rest) * RATE).astype(int)
    assert len(rest) + sum(missing for _, missing in holes) == 3000
    assert [missing for _, missing in holes] == [step - 1 for step in steps if step > 1]
    assert steps.min() == 1


def test_the_first_second_is_never_surplus_as_a_sender_may_stamp_its_chunks_late():
    times = np.repeat(np.arange(0, 80, 20), 20) / RATE
    assert [gap for gap in judge(times)[1] if gap[1] < 0] == []


@pytest.mark.parametrize("late_s", [0.0304, 0.0306])
def test_one_jump_of_a_broken_number_of_periods_leaves_an_exact_stream_exact(late_s):
    times = np.arange(3000) / RATE
    times[2000:] += late_s
    times = np.delete(times, range(2500, 2510))
    assert judge(times)[1] == [(2000, round(late_s * RATE)), (2500, 10)]


def test_a_stream_that_was_lost_and_comes_back_with_samples_it_had_sent_leaves_them_out():
    times = np.r_[np.arange(2000), np.arange(1980, 2000), np.arange(2500, 2600)] / RATE
    timeline = Timeline(RATE, "auto")
    timeline.follow(times, 2000)
    timeline.resume(2000)
    assert timeline.follow(times, len(times)) == (2120, [(2000, -20), (2020, 500)])


def test_after_another_process_a_clock_that_was_set_stays_corrected_and_the_hole_is_a_hole():
    times = 5000.0 + np.arange(3000) / RATE
    buffer, timeline = times.copy(), Timeline(RATE, "auto")
    timeline.rejoin(0, 4999.0 - 4000.0, shift=4000.0)
    assert timeline.follow(buffer, len(buffer)) == (3000, [(0, 999)])
    assert timeline.take_steps() == []
    np.testing.assert_allclose(buffer, times - 4000.0)


def irregular(random, count):
    """Timestamps of a sender that may jitter, with holes, samples that come twice and a clock that is set."""
    times = 100.0 + np.arange(count) / RATE
    if random.random() < 0.5:
        times += np.repeat(random.normal(0, 0.004, -(-count // 16)), 16)[:count]
    for at in random.integers(1, count, 3):
        times[at:] += random.choice([0.05, 0.0004, 2.0, -0.3, 4000.0, -0.02])
    return times


@given(seed=st.integers(0, 10_000), cut=st.integers(0, 4000), chunks=st.lists(st.integers(1, 400), max_size=20))
@settings(max_examples=40, deadline=None)
def test_another_one_with_its_state_judges_what_follows_as_it_does_wherever_that_is_cut(seed, cut, chunks):
    times = irregular(np.random.default_rng(seed), 4000)
    one, other, stop = Timeline(RATE, "auto"), Timeline(RATE, "auto"), cut
    mine = times.copy()
    one.follow(mine, cut)
    other.load_state_dict(one.state_dict())
    yours = mine.copy()
    for chunk in (*chunks, 4000):
        stop = min(4000, stop + chunk)
        assert one.follow(mine, stop) == other.follow(yours, stop)
    assert mine.tobytes() == yours.tobytes()
    assert one.shift == other.shift
