import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from neuroloop.signal.spikes import ThresholdCrossings, gaussian_mean

FS = 30_000.0


def noise(samples, channels=3, seed=0, spikes=60):
    """Gaussian noise of sigma 1, 2, 3 .. with negative peaks in it."""
    rng = np.random.default_rng(seed)
    data = rng.standard_normal((samples, channels))
    for c in range(channels):
        for start in rng.integers(0, max(samples - 8, 1), spikes):
            data[start : start + 8, c] -= 9 * np.sin(np.pi * np.arange(8) / 8)[: samples - start]
    return (data * np.arange(1, channels + 1)).astype(np.float32)


def detector(channels=3, **options):
    return ThresholdCrossings(channels, FS, **({"calibration_s": 0.02} | options))


def oracle(data, sigma, k, refractory):
    """Spikes of one channel by the words of the specification; sigma: of every sample."""
    count, last = 0, -refractory
    for t in range(1, len(data)):
        below, before = data[t] < -k * sigma[t], data[t - 1] < -k * sigma[t - 1]
        if below and not before and t - last >= refractory:
            count, last = count + 1, t
    return count


@pytest.mark.parametrize("refractory_ms", [0.0, 1.0, 3.0])
def test_spikes_are_those_of_a_plain_detector(refractory_ms):
    data, stage = noise(6000), detector(refractory_ms=refractory_ms, half_life_s=1e9)
    stage(data[:600])
    sigma = stage.sigma
    counts = stage(data[600:])
    refractory = round(refractory_ms * 30)
    expected = [oracle(data[600:, c], np.full(5400, sigma[c]), 4.5, refractory) for c in range(3)]
    assert counts.tolist() == expected
    assert min(expected) > 10


def test_the_first_sigma_is_the_scaled_median_of_the_calibration():
    data, stage = noise(601), detector()
    stage(data[:600])
    np.testing.assert_allclose(stage.sigma, np.sort(np.abs(data[:600]), axis=0)[300] / 0.6745, rtol=1e-6)


@given(st.lists(st.integers(0, 6200), max_size=8))
@settings(max_examples=25)
def test_a_long_calibration_takes_evenly_spaced_samples_however_they_were_cut(cuts):
    data, stage = noise(6200), detector(calibration_s=0.2, half_life_s=1e9)
    total = sum(stage(part).copy() for part in np.split(data, sorted(cuts)))
    expected = np.sort(np.abs(data[:6000:3]), axis=0)[1000] / 0.6745
    np.testing.assert_allclose(stage.sigma, expected, rtol=1e-6)
    assert total.tolist() == detector(calibration_s=0.2, half_life_s=1e9)(data).tolist()


def test_nothing_is_counted_before_the_calibration_is_over():
    stage = detector()
    assert not stage(noise(599)).any()
    assert not stage.calibrated
    assert not stage.sigma.any()
    stage(noise(1))
    assert stage.calibrated


@pytest.mark.parametrize("between", [lambda stage: None, lambda stage: stage.conclude_calibration()])
def test_a_calibration_that_ends_with_a_block_is_concluded_after_it(between):
    data, whole, cut = noise(1200), detector(calibration_s=0.02), detector(calibration_s=0.02)
    total = whole(data).copy()
    assert not cut(data[:600]).any()
    assert cut.calibrated
    assert "first" in cut.state_dict()
    between(cut)
    assert cut(data[600:]).tolist() == total.tolist()
    assert cut.sigma.tolist() == whole.sigma.tolist()
    assert "first" not in cut.state_dict()


def test_a_calibration_that_waits_to_be_concluded_survives_being_kept():
    data, stage, other = noise(1200), detector(calibration_s=0.02), detector(calibration_s=0.02)
    stage(data[:600])
    other.load_state_dict(stage.state_dict())
    assert other(data[600:]).tolist() == stage(data[600:]).tolist()
    assert other.sigma.tolist() == stage.sigma.tolist() != [0.0] * len(other.sigma)


@given(st.lists(st.integers(0, 2500), max_size=8))
@settings(max_examples=25)
def test_spikes_do_not_depend_to_the_bit_on_how_samples_were_cut(cuts):
    data = noise(2500)
    whole = detector()
    expected = whole(data).copy()
    stage, total = detector(), np.zeros(3)
    for part in np.split(data, sorted(cuts)):
        total += stage(part)
    assert total.tolist() == expected.tolist()
    assert np.array_equal(stage.sigma, whole.sigma)


@pytest.mark.parametrize("threshold", [2.0, 3.0, 4.5])
def test_gaussian_noise_keeps_its_sigma_whatever_the_threshold(threshold):
    stage = ThresholdCrossings(4, 1000.0, threshold=threshold, refractory_ms=0, calibration_s=0.5, half_life_s=0.5)
    data = np.random.default_rng(0).standard_normal((20_000, 4)).astype(np.float32)
    stage(data)
    np.testing.assert_allclose(stage.sigma, 1.0, atol=0.06)


def test_the_mean_of_clipped_gaussian_noise_is_as_computed():
    exact = stats.norm.expect(lambda x: min(abs(x), 2.0), lb=-2.0) / stats.norm.sf(-2.0)
    assert gaussian_mean(2.0) == pytest.approx(exact, rel=1e-6)
    assert gaussian_mean(9.0) == pytest.approx(np.sqrt(2 / np.pi), rel=1e-6)


def test_sigma_follows_noise_that_grows():
    stage = detector(channels=2, half_life_s=0.1)
    rng = np.random.default_rng(0)
    stage(rng.standard_normal((3000, 2)).astype(np.float32))
    stage((3 * rng.standard_normal((30_000, 2))).astype(np.float32))
    np.testing.assert_allclose(stage.sigma, 3.0, rtol=0.1)


def test_an_artefact_does_not_deafen_a_channel():
    stage = detector(channels=1, half_life_s=1.0)
    rng = np.random.default_rng(0)
    stage(rng.standard_normal((6000, 1)).astype(np.float32))
    before = stage.sigma[0]
    stage(np.full((300, 1), 1e5, np.float32))
    assert stage.sigma[0] < 1.1 * before


def test_a_spike_over_a_block_border_is_counted_once():
    stage, data = detector(channels=1), noise(700, 1, spikes=0)
    stage(data)
    spike = np.full((6, 1), -20, np.float32)
    assert stage(spike[:3])[0] == 1
    assert stage(spike[3:])[0] == 0


def test_no_crossing_spans_a_hole():
    stage, data = detector(channels=1), noise(700, 1, spikes=0)
    stage(data)
    stage.interrupt()
    assert stage(np.full((1, 1), -20, np.float32))[0] == 0


def test_a_dead_channel_never_spikes():
    data = noise(3000)
    data[:, 1] = 1e-6 * np.random.default_rng(1).standard_normal(3000)
    stage = detector()
    counts = stage(data)
    assert counts[1] == 0
    assert counts[0] > 0


def test_a_known_change_of_amplitude_is_followed_at_once():
    data = noise(3000)
    one, other = detector(half_life_s=1e9), detector(half_life_s=1e9)
    one(data[:600])
    other(data[:600])
    other.scale_sigma(np.array([0.5, 0.5, 0.5]))
    assert one(data[600:]).tolist() == other(data[600:] / 2).tolist()
    kept = other.sigma
    other.scale_sigma(np.array([np.nan, 0.0, np.inf]))
    assert np.array_equal(other.sigma, kept)


def test_a_change_of_amplitude_in_the_middle_of_the_calibration_is_followed():
    data, stage = noise(600), detector()
    stage(data[:300])
    stage.scale_sigma(np.full(3, 2.0))
    stage(2 * data[300:])
    plain = detector()
    plain(2 * data)
    np.testing.assert_allclose(stage.sigma, plain.sigma, rtol=1e-6)


@pytest.mark.parametrize("cut", [250, 1500])
def test_a_detector_loaded_from_a_state_goes_on_bit_for_bit(cut):
    data = noise(3000)
    first, second = detector(), detector()
    first(data[:cut])
    second.load_state_dict(first.state_dict())
    assert np.array_equal(first(data[cut:]), second(data[cut:]))
    assert np.array_equal(first.sigma, second.sigma)


def test_a_reset_calibrates_anew():
    data, stage = noise(2000), detector()
    before = stage(data).copy()
    stage.reset()
    assert not stage.calibrated
    assert np.array_equal(stage(data), before)
