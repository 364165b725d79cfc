import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloop.signal.covariance import Covariance
from neuroloop.signal.filter_design import design_bandpass
from neuroloop.signal.filters import SosFilter
from neuroloop.signal.located_spikes import LocatedCrossings
from neuroloop.signal.rereference import Rereference, weights_from_array
from neuroloop.signal.spike_chain import SpikeChain
from neuroloop.signal.spikes import ThresholdCrossings

FS = 30_000.0
DETECTION = (FS, 4.5, 1.0, 0.02)  # rate, k, refractory time, calibration
CHANNELS = 40  # more than one tile


def noise(samples, channels=CHANNELS, seed=0):
    random = np.random.default_rng(seed)
    data = random.standard_normal((samples, channels))
    data[random.random((samples, channels)) < 0.002] -= 12
    return data.astype(np.float32)


def test_spikes_are_told_at_the_samples_where_they_are():
    data = noise(3000, 3)
    data[600:] = np.clip(data[600:], -1, 1)
    known = {(1000, 0), (1001, 2), (1050, 0), (2999, 1)}
    for sample, channel in known:
        data[sample, channel] = -30
    data[1020, 0] = -30  # within the refractory time
    stage = LocatedCrossings(3, *DETECTION)
    for start in range(0, 3000, 100):
        stage(data[start : start + 100])
    samples, channels = stage.take(2000)
    assert list(zip(samples.tolist(), channels.tolist(), strict=True)) == sorted((t - 1000, c) for t, c in known)


@given(st.lists(st.integers(0, 2500), max_size=6), st.integers(100, 2400))
@settings(max_examples=20)
def test_counts_and_every_state_are_those_of_the_plain_detector_and_so_are_the_spikes(cuts, interrupted):
    data = noise(2500)
    plain, located = ThresholdCrossings(CHANNELS, *DETECTION), LocatedCrossings(CHANNELS, *DETECTION)
    total = np.zeros(CHANNELS)
    for part in np.split(data, sorted({*cuts, interrupted})):
        expected = plain(part)
        assert np.array_equal(located(part), expected)
        samples, channels = located.take(len(part))
        assert np.array_equal(np.bincount(channels, minlength=CHANNELS), expected)
        assert (data[-2500:][located.samples - len(part) + samples, channels] < -4).all()
        assert (np.diff(samples) >= 0).all()
        total += expected
        if located.samples == interrupted:
            for stage in (plain, located):
                stage.scale_sigma(np.linspace(0.9, 1.1, CHANNELS))
                stage.interrupt()
    assert total.sum() > 50
    assert np.array_equal(plain.sigma, located.sigma)
    assert np.array_equal(plain.state, located.state)


def test_what_was_before_the_last_samples_is_forgotten():
    data = np.clip(noise(1300, 2), -1, 1)
    data[700], data[1250] = -30, -30
    stage = LocatedCrossings(2, *DETECTION)
    stage(data)
    samples, channels = stage.take(100)
    assert (samples.tolist(), channels.tolist()) == ([50, 50], [0, 1])
    assert stage.take(1300)[0].size == 0


@pytest.mark.parametrize("calibrated", [False, True])
def test_a_chain_that_takes_them_on_goes_on_with_the_same_counts_through_an_exchange_of_weights(calibrated):
    clusters = [list(range(20)), list(range(20, 40))]
    weights = np.zeros((CHANNELS, CHANNELS))
    for cluster in clusters:
        weights[np.ix_(cluster, cluster)] = (1 - np.eye(20)) / 40

    def chain():
        sos = design_bandpass((300, 6000), 4, FS)
        stages = Rereference(clusters, CHANNELS), Covariance(clusters, CHANNELS)
        return SpikeChain(SosFilter(sos, CHANNELS), ThresholdCrossings(CHANNELS, *DETECTION), *stages)

    plain, locating = chain(), chain()
    data = noise(6000)
    taken_on = 900 if calibrated else 300
    counted = 0
    for start in range(0, 6000, 100):
        if start == taken_on:
            located = LocatedCrossings(CHANNELS, *DETECTION)
            located.load_state_dict(locating.crossings.state_dict())
            locating.crossings = located
        if start == 3000:
            for one in (plain, locating):
                labels = [str(channel) for channel in range(CHANNELS)]
                one.rereference.set_weights(weights_from_array(weights, labels, source="upload"))
                one.crossings.scale_sigma(np.full(CHANNELS, 1.05))
        expected = plain(data[start : start + 100]).copy()
        assert np.array_equal(locating(data[start : start + 100]), expected)
        for one in (plain, locating):
            one.absorb()
        if start >= taken_on:
            assert np.array_equal(np.bincount(located.take(100)[1], minlength=CHANNELS), expected)
            counted += expected.sum()
    assert counted > 100
    first, second = plain.covariance.snapshot(), locating.covariance.snapshot()
    assert all(np.array_equal(a, b) for a, b in zip(first.scatter, second.scatter, strict=True))
