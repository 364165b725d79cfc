"""Filters as they are designed, against scipy's designs of the same."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from neuroloop.signal.filter_design import (
    design_bandpass,
    design_notch,
    settle_seconds,
    steady_state,
    sufficient_precision,
)

FS = 30_000.0
BANDS = [((300, 6000), 4, FS), ((300, 6000), 1, FS), ((8, 13), 4, 160.0), ((0.5, 100), 3, 250.0), ((4, 120), 5, 250.0)]


@pytest.mark.parametrize(("band", "order", "fs"), BANDS)
def test_a_band_pass_is_scipys(band, order, fs):
    ours, scipys = design_bandpass(band, order, fs), signal.butter(order, band, "bandpass", fs=fs, output="sos")
    frequencies = np.geomspace(band[0] / 3, 0.49 * fs, 300)
    responses = [signal.freqz_sos(sos, frequencies, fs=fs)[1] for sos in (ours, scipys)]
    np.testing.assert_allclose(*responses, atol=1e-10)


@given(
    low=st.floats(0.002, 0.3),
    width=st.floats(0.02, 0.8),
    order=st.integers(1, 6),
    fs=st.sampled_from([250.0, 30_000.0]),
)
@settings(max_examples=60)
def test_a_band_pass_is_stable_and_its_edges_are_at_half_power(low, width, order, fs):
    high = low + width * (0.49 - low)
    sos = design_bandpass((low * fs, high * fs), order, fs)
    assert all(np.abs(np.roots(section[3:])).max() < 1 for section in sos)
    edges = np.abs(signal.freqz_sos(sos, [low * fs, high * fs], fs=fs)[1])
    np.testing.assert_allclose(edges, np.sqrt(0.5), rtol=1e-4)


@pytest.mark.parametrize("frequency", [16.7, 50.0, 60.0])
def test_a_notch_is_scipys(frequency):
    np.testing.assert_allclose(
        design_notch([frequency], 250.0), signal.tf2sos(*signal.iirnotch(frequency, 30.0, fs=250.0)), rtol=1e-9
    )
    np.testing.assert_array_equal(
        design_bandpass((8, 13), 4, 250.0, [frequency])[0], design_notch([frequency], 250.0)[0]
    )


def test_no_notch_is_no_section():
    assert design_notch([], 250.0).shape == (0, 6)


@pytest.mark.parametrize(("band", "order", "fs"), BANDS)
def test_the_steady_state_is_scipys(band, order, fs):
    sos = np.concatenate([design_notch([fs / 5], fs), design_bandpass(band, order, fs)])
    np.testing.assert_allclose(steady_state(sos), signal.sosfilt_zi(sos), rtol=1e-6, atol=1e-9)


def test_single_precision_is_taken_only_where_it_is_good_enough():
    assert sufficient_precision(design_bandpass((300, 6000), 4, FS)) == "single"
    assert sufficient_precision(design_bandpass((0.5, 2), 4, FS)) == "double"


def test_settling_takes_three_periods_of_the_lower_edge():
    assert settle_seconds((300.0, 6000.0)) == pytest.approx(0.01)
