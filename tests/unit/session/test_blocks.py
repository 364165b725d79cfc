"""Blocks of a fixed number of samples, however they arrived."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloop.session.blocks import Block, BlockCutter, Hole

RATE = 1000.0
BLOCK, BIN = 5, 20


def cutter(channels=2, fill="hold", dtype=np.float32):
    return BlockCutter(BLOCK, BIN, np.arange(channels), RATE, fill, np.dtype(dtype))


def cut_all(samples, gaps=(), stops=None, cut=None, times=None):
    """All pieces of a stream that arrives up to the counts in `stops`, one after the other."""
    cut = cut or cutter(samples.shape[1], dtype=samples.dtype)
    times = np.arange(len(samples)) / RATE if times is None else times
    cut.add_gaps(gaps)
    pieces, consumed = [], 0
    for stop in [*(stops or []), len(samples)]:
        while not isinstance(piece := cut.cut(samples, times, consumed, stop), int):
            if isinstance(piece, Block):
                consumed = piece.consumed
                piece = Block(
                    piece.samples.copy(), piece.index, piece.end_time, consumed, piece.missing, piece.nonfinite
                )
            pieces.append(piece)
        consumed = piece
    return pieces


def test_blocks_hold_the_samples_in_order_and_know_their_index_and_end():
    samples = np.arange(24, dtype=np.float32).reshape(12, 2)
    first, second = cut_all(samples)
    np.testing.assert_array_equal(np.r_[first.samples, second.samples], samples[:10])
    assert (first.index, second.index) == (0, 5)
    assert second.end_time == pytest.approx(10 / RATE)


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.int64, np.float32, np.float64])
def test_every_numeric_format_becomes_float32(dtype):
    samples = np.arange(-10, 10).reshape(10, 2).astype(dtype)
    pieces = cut_all(samples)
    assert pieces[0].samples.dtype == np.float32
    np.testing.assert_array_equal(np.concatenate([p.samples for p in pieces]), samples.astype(np.float32))


def test_only_the_chosen_channels_are_taken_in_their_order():
    samples = np.arange(20, dtype=np.int16).reshape(5, 4)
    chosen = BlockCutter(5, 5, np.array([3, 1]), RATE, "hold", samples.dtype)
    np.testing.assert_array_equal(cut_all(samples, cut=chosen)[0].samples, samples[:, [3, 1]])


@pytest.mark.parametrize(("fill", "value"), [("hold", 3.0), ("zero", 0.0)])
def test_missing_samples_are_filled_and_counted(fill, value):
    samples = np.array([[1.0], [2.0], [3.0], [4.0], [5.0], [6.0], [7.0]], np.float32)
    (first, second) = cut_all(samples, gaps=[(3, 3)], cut=cutter(1, fill))
    assert first.samples.ravel().tolist() == [1, 2, 3, value, value]
    assert second.samples.ravel().tolist() == [value, 4, 5, 6, 7]
    assert (first.missing, second.missing) == (2, 1)


def test_values_that_are_not_finite_or_beyond_all_measure_are_held_and_counted():
    samples = np.array([[1, 1], [np.nan, 2], [np.inf, 3], [4, 1e20], [5, 5]], np.float32)
    cut = cutter(2)
    (block,) = cut_all(samples, cut=cut)
    assert block.samples.tolist() == [[1, 1], [1, 2], [1, 3], [4, 3], [5, 5]]
    assert block.nonfinite == 3
    assert cut.nonfinite_by_channel.tolist() == [2, 1]


def test_a_hole_over_whole_bins_is_answered_without_being_filled():
    samples = np.zeros((60, 1), np.float32)
    pieces = cut_all(samples, gaps=[(10, 10 + 3 * BIN + 4)], cut=cutter(1))
    holes = [p for p in pieces if isinstance(p, Hole)]
    assert [(h.bins, h.index) for h in holes] == [(3, BIN)]
    blocks = [p for p in pieces if isinstance(p, Block)]
    assert sum(b.missing for b in blocks) == 14
    assert blocks[4].index == 4 * BIN


def test_samples_that_are_skipped_count_as_missing_with_the_gaps_between_them():
    samples, cut = np.arange(100, dtype=np.float32)[:, None], cutter(1)
    cut.add_gaps([(30, 7), (70, 1)])
    cut.skip(3, 60)
    times = np.arange(100) / RATE
    pieces, consumed = [], 60
    while not isinstance(piece := cut.cut(samples, times, consumed, 80), int):
        pieces.append(piece)
        consumed = piece.consumed if isinstance(piece, Block) else consumed
    missing = sum(p.missing if isinstance(p, Block) else p.bins * BIN for p in pieces)
    assert (missing, piece) == (57 + 7 + 1, 80)
    assert pieces[0].index == 0
    assert cut.cut(samples, times, 80, 100).missing == 0


@given(
    gaps=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 90)), max_size=4),
    stops=st.lists(st.integers(0, 200), max_size=12),
)
@settings(max_examples=50)
def test_pieces_do_not_depend_on_how_the_samples_arrived(gaps, stops):
    samples = np.random.default_rng(0).standard_normal((200, 2)).astype(np.float32)
    positions = np.cumsum([run for run, _ in gaps])
    gaps = [(int(p), missing) for p, (_, missing) in zip(positions, gaps, strict=True)]
    whole, parts = cut_all(samples, gaps), cut_all(samples, gaps, sorted(stops))
    assert len(whole) == len(parts)
    for one, other in zip(whole, parts, strict=True):
        assert type(one) is type(other)
        if isinstance(one, Block):
            assert (one.index, one.missing, one.end_time) == (other.index, other.missing, other.end_time)
            assert one.samples.tobytes() == other.samples.tobytes()
        else:
            assert one == other
    # Every sample and every missing one has its place.
    covered = sum(BLOCK if isinstance(p, Block) else p.bins * BIN for p in whole)
    assert 0 <= 200 + sum(missing for _, missing in gaps) - covered < BLOCK


def test_after_a_stop_the_next_sample_starts_a_bin_of_its_own():
    cut = cutter(1)
    cut_all(np.zeros((33, 1), np.float32), cut=cut)
    cut.drop_partial()
    assert cut.index == BIN
    assert cut.lacking == BLOCK


def test_surplus_samples_are_left_out_wherever_they_are():
    samples = np.arange(23, dtype=np.float32)[:, None]
    pieces = cut_all(samples, gaps=[(0, -2), (4, -1), (8, -2), (10, 3), (11, -2)], cut=cutter(1))
    assert np.concatenate([p.samples.ravel() for p in pieces]).tolist() == [
        *(2, 3, 5, 6, 7),
        *(7, 7, 7, 10, 13),
        *(14, 15, 16, 17, 18),
    ]


def test_surplus_samples_among_those_that_are_skipped_are_not_missing():
    samples, cut = np.arange(100, dtype=np.float32)[:, None], cutter(1)
    cut.add_gaps([(10, 7), (20, -4)])
    cut.skip(0, 40)
    pieces = []
    while not isinstance(piece := cut.cut(samples, np.arange(100) / RATE, 40, 60), int):
        pieces.append(piece)
        if isinstance(piece, Block):
            break
    assert sum(p.missing if isinstance(p, Block) else p.bins * BIN for p in pieces) == 43


@given(
    gaps=st.dictionaries(st.integers(1, 299), st.sampled_from([-3, 1, 7, 20, 133]), max_size=5),
    stops=st.lists(st.integers(0, 300), max_size=8).map(sorted),
    cut=st.integers(0, 300),
)
@settings(max_examples=40, deadline=None)
def test_another_one_with_its_state_cuts_the_same_blocks_wherever_that_is_taken(gaps, stops, cut):
    samples = np.random.default_rng(cut).standard_normal((300, 2)).astype(np.float32)
    samples[np.random.default_rng(0).integers(300, size=9), 0] = np.nan
    times, one, other = 5.0 + np.arange(300) / RATE, cutter(), cutter()
    one.add_gaps(sorted(gaps.items()))
    consumed = 0
    while not isinstance(piece := one.cut(samples, times, consumed, cut), int):
        consumed = piece.consumed if isinstance(piece, Block) else consumed
    other.load_state_dict(one.state_dict())
    pieces = []
    for cutting in (one, other):
        consumed, found = piece, []
        for stop in (*(stop for stop in stops if stop > cut), 300):
            while not isinstance(got := cutting.cut(samples, times, consumed, stop), int):
                if isinstance(got, Block):
                    consumed = got.consumed
                    got = (got.samples.tobytes(), got.index, got.end_time, got.consumed, got.missing, got.nonfinite)
                found.append(got)
            consumed = got
        pieces.append((found, consumed, cutting.last_bin(), cutting.lacking))
    assert pieces[0] == pieces[1]
