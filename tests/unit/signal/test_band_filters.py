"""Blocks in several bands, against scipy's filters on the whole, and what filters keep from block to block."""

import numpy as np
import pytest
from scipy.signal import sosfilt

from neuroloop.signal.band_filters import BandFilters
from neuroloop.signal.filter_design import design_bandpass, design_notch

BANDS = {"alpha": (8.0, 13.0), "beta": (13.0, 30.0)}
SRATE = 250.0


def samples(count=500):
    return np.random.default_rng(4).standard_normal((count, 3)).astype(np.float32)


def through(filters, blocks):
    """What comes out, (bands, samples, channels)."""
    parts = [np.stack([filtered.copy() for filtered in filters(block)]) for block in blocks]
    return np.concatenate(parts, axis=1)


@pytest.mark.parametrize("notch", [(), (50.0, 100.0)])
def test_each_band_is_the_notched_block_through_its_band_pass_however_samples_are_cut(notch):
    filters = BandFilters(BANDS, 4, SRATE, 3, notch)
    assert filters.names == ("alpha", "beta")
    found = through(filters, np.split(samples(), [7, 100, 350]))
    clean = sosfilt(design_notch(notch, SRATE), samples(), axis=0) if notch else samples()
    for band, one in zip(BANDS.values(), found, strict=True):
        np.testing.assert_allclose(one, sosfilt(design_bandpass(band, 4, SRATE), clean, axis=0), atol=1e-5)


def test_filters_go_on_from_a_state_and_begin_anew_after_a_reset():
    one, other = (BandFilters(BANDS, 4, SRATE, 3, (50.0,)) for _ in range(2))
    first, second = np.split(samples(), 2)
    whole = through(one, [first, second])
    begun = through(other, [first])
    kept = other.state_dict()
    other.reset()
    np.testing.assert_array_equal(through(other, [first]), begun)
    other.load_state_dict(kept)
    np.testing.assert_array_equal(through(other, [second]), whole[:, len(first) :])


def test_a_constant_that_filters_were_primed_with_gives_nothing():
    filters = BandFilters(BANDS, 4, SRATE, 3, (50.0,))
    level = np.array([5.0, -300.0, 1e4], np.float32)
    filters.prime(level)
    assert np.abs(through(filters, [np.tile(level, (100, 1))])).max() < 1e-3
