import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from neuroloop.signal.bandpower import BandPower, scale_power

BANDS = {"theta": (4.0, 7.0), "alpha": (8.0, 13.0)}


def eeg(samples, channels=3, seed=0):
    """Noise on offsets and drifts thousands of times larger, as headsets send it."""
    rng = np.random.default_rng(seed)
    drift = 4e3 + 100 * np.sin(np.arange(samples)[:, None] / 300)
    return (drift + 10 * rng.standard_normal((samples, channels))).astype(np.float32)


def test_power_is_the_sum_of_squares_of_the_causally_filtered_samples():
    data = eeg(2000)
    stage = BandPower(BANDS, 4, 160.0, 3)
    stage(data[:1000])
    power = stage(data[1000:])
    for number, band in enumerate(BANDS.values()):
        sos = signal.butter(4, band, btype="bandpass", fs=160.0, output="sos")
        filtered = signal.sosfilt(sos, data.astype(float), axis=0)[1000:]
        np.testing.assert_allclose(power[:, number], (filtered**2).sum(axis=0), rtol=1e-3)


def test_a_tone_has_its_power_in_its_own_band():
    tone = np.sin(2 * np.pi * 10 * np.arange(3200) / 160.0)[:, None].astype(np.float32)
    stage = BandPower(BANDS, 4, 160.0, 1)
    stage(tone[:1600])
    theta, alpha = stage(tone[1600:])[0] / 1600
    assert alpha == pytest.approx(0.5, rel=0.05)
    assert theta < 0.01


@given(st.lists(st.integers(0, 400), max_size=5))
@settings(max_examples=25)
def test_power_adds_up_however_samples_were_cut(cuts):
    data = eeg(400)
    whole = BandPower(BANDS, 2, 160.0, 3, notch=[50.0])(data).copy()
    stage, total = BandPower(BANDS, 2, 160.0, 3, notch=[50.0]), np.zeros((3, 2))
    for part in np.split(data, sorted(cuts)):
        total += stage(part)
    np.testing.assert_allclose(total, whole, rtol=1e-5)


def test_a_notch_takes_the_line_out_of_the_bands():
    line = np.sin(2 * np.pi * 50 * np.arange(4000) / 250.0)[:, None].astype(np.float32)
    powers = []
    for notch in ([], [50.0]):
        stage = BandPower({"gamma": (40.0, 60.0)}, 2, 250.0, 1, notch=notch)
        stage(line[:3000])
        powers.append(stage(line[3000:])[0, 0])
    assert powers[1] < 1e-3 * powers[0]


def test_a_primed_stage_sees_no_step_at_the_start():
    data = eeg(160)
    stage = BandPower(BANDS, 4, 160.0, 3, notch=[50.0])
    cold = stage(data).copy()
    stage.prime(data[0])
    assert (stage(data) < 0.01 * cold).all()


def test_a_stage_loaded_from_a_state_goes_on_bit_for_bit():
    data = eeg(500)
    first, second = (BandPower(BANDS, 4, 160.0, 3, notch=[50.0]) for _ in range(2))
    first(data[:211])
    second.load_state_dict(first.state_dict())
    assert np.array_equal(first(data[211:]), second(data[211:]))


def test_a_reset_begins_anew():
    data, stage = eeg(300), BandPower(BANDS, 4, 160.0, 3)
    before = stage(data).copy()
    stage.reset()
    assert np.array_equal(stage(data), before)


def test_every_scale_gives_features_that_are_not_negative():
    power = np.array([[3.0, 1.0], [0.0, 0.0]], np.float32)
    assert scale_power(power, "power") is power
    assert scale_power(power, "relative").tolist() == [[0.75, 0.25], [0.0, 0.0]]
    np.testing.assert_allclose(scale_power(power, "log"), np.log1p(power), rtol=1e-6)
