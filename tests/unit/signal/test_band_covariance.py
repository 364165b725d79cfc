import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from neuroloop.signal.band_covariance import BandCovariance, covariance_features

BANDS = {"theta": (4.0, 7.0), "mu-beta": (8.0, 30.0)}
SRATE = 160.0


def eeg(samples, channels=5, seed=0):
    """Mixed noise on offsets and drifts thousands of times larger, as headsets send it."""
    rng = np.random.default_rng(seed)
    drift = 4e3 + 100 * np.sin(np.arange(samples)[:, None] / 300)
    return (drift + 10 * rng.standard_normal((samples, channels)) @ rng.standard_normal((channels, 5))).astype(
        np.float32
    )


def stage(channels=5, **options):
    return BandCovariance(BANDS, 4, SRATE, channels, **options)


def taken(covariance, factor=1.0):
    out = np.empty((2, 15), np.float32)
    covariance.take(factor, out)
    return out


def test_it_is_the_mean_product_of_the_causally_filtered_channels():
    data = eeg(2000)
    covariance = stage()
    covariance.add(data[:1000])
    covariance.drop()
    covariance.add(data[1000:])
    found = taken(covariance, 1 / 1000)
    rows, columns = np.triu_indices(5)
    for number, band in enumerate(BANDS.values()):
        sos = signal.butter(4, band, btype="bandpass", fs=SRATE, output="sos")
        filtered = signal.sosfilt(sos, data.astype(float), axis=0)[1000:]
        expected = filtered.T @ filtered / 1000
        scale = np.sqrt(np.outer(np.diag(expected), np.diag(expected)))
        np.testing.assert_array_less(np.abs(found[number] - expected[rows, columns]), 1e-4 * scale[rows, columns])


@given(st.lists(st.integers(0, 400), max_size=5))
@settings(max_examples=25)
def test_it_is_the_same_to_the_bit_however_samples_were_cut(cuts):
    data = eeg(400)
    whole, parts = stage(notch=[50.0]), stage(notch=[50.0])
    whole.add(data)
    for part in np.split(data, sorted(cuts)):
        parts.add(part)
    assert np.array_equal(taken(whole), taken(parts))


def test_what_was_taken_does_not_count_again():
    data, covariance = eeg(600), stage()
    covariance.add(data[:300])
    first = taken(covariance)
    covariance.add(data[300:])
    both = stage()
    both.add(data)
    np.testing.assert_allclose(first + taken(covariance), taken(both), rtol=1e-5, atol=1e-2)


def test_a_line_that_all_channels_share_is_seen_between_them_until_a_notch_takes_it_out():
    line = np.sin(2 * np.pi * 50 * np.arange(8000) / 250.0)[:, None] * [1.0, -2.0]
    found = []
    for notch in ([], [50.0]):
        covariance = BandCovariance({"gamma": (40.0, 60.0)}, 2, 250.0, 2, notch=notch)
        covariance.add(line[:6000].astype(np.float32))
        covariance.drop()
        covariance.add(line[6000:].astype(np.float32))
        out = np.empty(3, np.float32)
        covariance.take(1 / 2000, out)
        found.append(out)
    np.testing.assert_allclose(found[0], [0.5, -1.0, 2.0], rtol=0.05)
    assert (np.abs(found[1]) < 1e-3 * np.abs(found[0])).all()


def test_features_are_named_band_by_band_along_the_upper_triangle():
    assert covariance_features(("C3", "C4"), ("mu", "beta")) == (
        *("C3*C3:mu", "C3*C4:mu", "C4*C4:mu"),
        *("C3*C3:beta", "C3*C4:beta", "C4*C4:beta"),
    )


def test_a_primed_stage_sees_no_step_at_the_start():
    data = eeg(160)
    cold, primed = stage(notch=[50.0]), stage(notch=[50.0])
    primed.prime(data[0])
    cold.add(data)
    primed.add(data)
    diagonal = [0, 5, 9, 12, 14]
    assert (taken(primed)[:, diagonal] < 0.01 * taken(cold)[:, diagonal]).all()


def test_a_stage_loaded_from_a_state_goes_on_bit_for_bit():
    data = eeg(500)
    first, second = stage(notch=[50.0]), stage(notch=[50.0])
    first.add(data[:211])
    second.load_state_dict(first.state_dict())
    for one in (first, second):
        one.add(data[211:])
    assert np.array_equal(taken(first), taken(second))
