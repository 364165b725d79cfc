import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from neuroloop.signal.filter_design import design_bandpass, design_notch
from neuroloop.signal.filters import SosFilter

FS = 30_000.0
SPIKES = design_bandpass((300, 6000), 4, FS)


def noise(samples, channels, seed=0):
    return np.random.default_rng(seed).standard_normal((samples, channels)).astype(np.float32)


@pytest.mark.parametrize("channels", [1, 64, 70])
@pytest.mark.parametrize(
    ("band", "order", "notch", "fs"),
    [((300, 6000), 4, (), FS), ((300, 6000), 2, (50, 100), FS), ((8, 13), 4, (50,), 160.0), ((4, 7), 4, (), 250.0)],
)
def test_the_output_is_that_of_sosfilt(band, order, notch, fs, channels):
    sos, data = design_bandpass(band, order, fs, notch), noise(3000, channels)
    expected = signal.sosfilt(sos, data.astype(np.float64), axis=0)
    assert np.abs(SosFilter(sos, channels)(data) - expected).max() <= 1e-4 * expected.std()


@given(st.lists(st.integers(0, 600), max_size=6))
@settings(max_examples=25)
@pytest.mark.parametrize("precision", ["single", "double"])
def test_the_output_does_not_depend_to_the_bit_on_how_samples_were_cut(precision, cuts):
    data = noise(600, 3)
    whole = SosFilter(SPIKES, 3, precision)(data).copy()
    stage = SosFilter(SPIKES, 3, precision)
    parts = [stage(part).copy() for part in np.split(data, sorted(cuts))]
    assert np.array_equal(np.concatenate(parts), whole)


def test_a_channel_does_not_depend_to_the_bit_on_its_neighbours():
    data = noise(500, 70)
    assert np.array_equal(SosFilter(SPIKES, 70)(data)[:, 66:], SosFilter(SPIKES, 4)(data[:, 66:].copy()))


def test_a_filter_loaded_from_a_state_goes_on_bit_for_bit():
    data = noise(700, 5)
    first, second = SosFilter(SPIKES, 5), SosFilter(SPIKES, 5)
    first(data[:333])
    second.load_state_dict(first.state_dict())
    assert np.array_equal(first(data[333:]), second(data[333:]))


def test_a_reset_begins_anew():
    data, stage = noise(300, 2), SosFilter(SPIKES, 2)
    before = stage(data).copy()
    stage.reset()
    assert np.array_equal(stage(data), before)


def test_a_primed_filter_does_not_ring_at_an_offset():
    offset = np.full((2000, 2), 1e4, np.float32)
    ringing, quiet = SosFilter(SPIKES, 2, "double"), SosFilter(SPIKES, 2, "double")
    quiet.prime(offset[0])
    assert np.abs(ringing(offset)).max() > 1000
    assert np.abs(quiet(offset)).max() < 0.01


def test_the_output_goes_where_it_is_asked_to():
    data = noise(100, 2)
    out = np.empty_like(data)
    assert SosFilter(SPIKES, 2)(data, out) is out
    assert np.array_equal(out, SosFilter(SPIKES, 2)(data))


def test_silence_after_a_signal_decays_to_exact_zero():
    stage = SosFilter(SPIKES, 1)
    stage(noise(100, 1))
    for _ in range(200):
        tail = stage(np.zeros((256, 1), np.float32)).copy()
    assert not tail.any()
    assert not stage.state_dict()["state"].any()


def test_a_notch_removes_its_frequency_and_little_else():
    time = np.arange(20_000) / 1000.0
    tones = np.stack([np.sin(2 * np.pi * 50 * time), np.sin(2 * np.pi * 70 * time)], axis=1).astype(np.float32)
    out = SosFilter(design_notch([50.0], 1000.0), 2)(tones)[10_000:]
    assert out[:, 0].std() < 0.001
    assert out[:, 1].std() == pytest.approx(np.sqrt(0.5), rel=0.05)


@pytest.mark.parametrize("offset", [0.0, 3e3, -1e4, 1e5])
def test_an_amplifiers_offset_costs_no_digits_of_a_primed_band_pass(offset):
    sos = design_bandpass((300, 6000), 4, 30_000)
    noise = np.random.default_rng(0).standard_normal((6000, 3)) * 10
    data = (noise + offset).astype(np.float32)
    stage = SosFilter(sos, 3)
    assert stage.precision == "single"
    stage.prime(data[0])
    exact = signal.sosfilt(sos, data.astype(float) - data[0], axis=0)
    assert np.abs(stage(data) - exact).max() <= 1e-4 * exact.std()
