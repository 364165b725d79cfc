"""Frames of the stimulus by timestamps: any chunking gives the same ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroloop.session.alignment import Alignment
from neuroloop.session.ring import Ring

BIN_S = 0.02
HOLD_S = 0.1


class Stimulus:
    """A ring that a test writes to, and the alignment that reads it."""

    def __init__(self, pixels=1, period_s=0.0, bin_s=BIN_S, capacity=64, dtype="f4", offset=0.0):
        self.ring = Ring(capacity, pixels, np.dtype(dtype))
        self.alignment = Alignment(pixels, bin_s, period_s, HOLD_S)
        self.offset = offset

    def write(self, times, samples):
        for time, sample in zip(times, samples, strict=True):
            slot, room = self.ring.room()
            assert room > 0
            self.ring.samples[slot], self.ring.times[slot] = sample, time
            self.ring.commit(1, time)

    def take(self):
        ring = self.ring
        ring.consumed = self.alignment.take(ring.samples, ring.times, ring.consumed, ring.written, self.offset)
        return self.alignment.is_passed

    def frame(self, end):
        """Of a bin that everything has come for."""
        self.alignment.begin(end)
        self.take()
        frame = self.alignment.finish()
        return None if frame is None else frame.copy()


def test_a_frame_is_the_mean_of_the_samples_in_the_bin():
    stimulus = Stimulus(pixels=2)
    stimulus.write([0.001, 0.005, 0.012, 0.0205, 0.03], [[1, 10], [2, 20], [6, 60], [7, 0], [9, 2]])
    assert stimulus.frame(0.02).tolist() == [3.0, 30.0]
    assert stimulus.alignment.is_passed
    assert stimulus.frame(0.04).tolist() == [8.0, 1.0]
    assert not stimulus.alignment.is_passed


def test_frames_slower_than_bins_hold_until_they_are_too_old():
    stimulus = Stimulus()
    stimulus.write([0.005], [[4]])
    held = [stimulus.frame(0.02 * number) for number in range(1, 8)]
    assert [frame is not None and float(frame[0]) for frame in held] == [4.0] * 5 + [False] * 2


def test_before_the_first_sample_there_is_no_frame():
    stimulus = Stimulus()
    assert stimulus.frame(0.02) is None
    stimulus.write([0.05], [[1]])
    assert stimulus.frame(0.04) is None
    assert stimulus.frame(0.06)[0] == 1


def test_a_slow_regular_stimulus_holds_for_longer_than_its_period():
    stimulus = Stimulus(period_s=0.5)
    stimulus.write([0.0], [[1]])
    assert stimulus.frame(0.5)[0] == 1
    assert stimulus.frame(0.8) is None


def test_a_sample_that_comes_when_its_bin_is_finished_holds_but_is_in_no_mean():
    stimulus = Stimulus()
    stimulus.write([0.001], [[1]])
    assert stimulus.frame(0.02)[0] == 1
    stimulus.write([0.015], [[5]])
    assert stimulus.frame(0.04)[0] == 5
    assert (stimulus.alignment.frames, stimulus.alignment.late_frames) == (0, 1)
    assert stimulus.alignment.late_since == pytest.approx(0.015)
    stimulus.write([0.03, 0.05], [[9], [7]])
    assert stimulus.frame(0.06)[0] == 7


def test_a_bin_follows_on_the_last_one_unless_time_has_jumped():
    stimulus = Stimulus()
    follows = []
    for end in (0.02, 0.04, 0.0601, 0.2, 0.22):
        stimulus.alignment.begin(end)
        follows.append(stimulus.alignment.follows)
    assert follows == [False, True, True, False, True]


def test_no_sample_is_lost_or_counted_twice_where_the_clock_of_the_bins_is_adjusted():
    stimulus = Stimulus(capacity=1024)
    times = np.arange(0.0001, 0.4, 0.001)
    stimulus.write(times, np.ones((len(times), 1)))
    counted = 0
    for number in range(1, 20):
        stimulus.frame(0.02 * number + (0.003 if number > 9 else 0.0))
        counted += stimulus.alignment.frames
    assert counted == np.sum(times < 0.02 * 19 + 0.003 - 0.0005)


def test_frames_go_on_with_the_state_of_another_alignment():
    one, other = Stimulus(pixels=1), Stimulus(pixels=1)
    for stimulus in (one, other):
        stimulus.write([0.001, 0.015, 0.05], [[1], [2], [3]])
    one.frame(0.02)
    other.ring.consumed = one.ring.consumed
    other.alignment.load_state_dict(one.alignment.state_dict())
    for end in (0.0401, 0.0602, 0.08, 0.2):
        frame = one.frame(end)
        assert other.frame(end) == frame
        assert other.alignment.follows == one.alignment.follows


@pytest.mark.parametrize("dtype", ["f4", "f8", "i1", "i2", "i4", "i8"])
def test_every_format_of_a_stream_is_taken(dtype):
    stimulus = Stimulus(dtype=dtype)
    stimulus.write([0.001, 0.002], [[2], [5]])
    assert stimulus.frame(0.02)[0] == 3.5


@given(st.floats(-2e-4, 2e-4), st.integers(0, 10**6))
def test_two_streams_on_one_grid_do_not_change_bins_by_the_error_of_their_clocks(error, start):
    stimulus = Stimulus(period_s=0.001, bin_s=0.001, capacity=256)
    times = start + np.arange(100) / 1000
    stimulus.write(times + error, np.arange(100.0)[:, None])
    frames = [stimulus.frame(start + number / 1000 + 0.001) for number in range(100)]
    assert [frame[0] for frame in frames] == list(range(100))


@given(
    st.lists(st.floats(0, 0.5), min_size=1, max_size=60).map(sorted),
    st.lists(st.integers(1, 9), min_size=1, max_size=60),
    st.floats(-5, 5),
)
def test_any_chunking_gives_the_same_frames_to_the_bit(times, chunks, offset):
    generator = np.random.default_rng(3)
    samples = generator.standard_normal((len(times), 3)).astype(np.float32)
    ends = [BIN_S * number for number in range(1, 26) if BIN_S * number <= times[-1]]
    whole = Stimulus(pixels=3, offset=offset)
    whole.write(np.array(times) - offset, samples)
    expected = [whole.frame(end) for end in ends]
    pieces = Stimulus(pixels=3, offset=offset, capacity=16)
    written, found = 0, []
    for end in ends:
        pieces.alignment.begin(end)
        while not pieces.take() and written < len(times):
            count = min(chunks[written % len(chunks)], pieces.ring.room()[1])
            part = slice(written, written + count)
            pieces.write(np.array(times)[part] - offset, samples[part])
            written = min(written + count, len(times))
        frame = pieces.alignment.finish()
        found.append(None if frame is None else frame.copy())
    for one, other in zip(found, expected, strict=True):
        assert (one is None) == (other is None)
        assert one is None or one.tobytes() == other.tobytes()
