import platform
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from neuroloop.signal.covariance import Covariance
from neuroloop.signal.filter_design import design_bandpass
from neuroloop.signal.filters import SosFilter
from neuroloop.signal.rereference import Rereference, Weights, apply, solve
from neuroloop.signal.spike_chain import SpikeChain
from neuroloop.signal.spikes import ThresholdCrossings

RATE = 30_000.0
SOS = design_bandpass((300, 6000), 4, RATE)
SHUFFLED = np.random.default_rng(5).permutation(70).tolist()
# Name -> (clusters, channels): neighbours, tetrodes, uneven and shuffled with channels of no cluster, wide.
LAYOUTS = {
    "probes": ([list(range(i, i + 32)) for i in range(0, 96, 32)], 96),
    "tetrodes": ([list(range(i, i + 4)) for i in range(0, 64, 4)], 70),
    "shuffled": ([SHUFFLED[:20], SHUFFLED[20:23], SHUFFLED[23:64]], 70),
    "wide": ([list(range(120))], 121),
    "many": ([list(range(i, i + 32)) for i in range(0, 384, 32)], 384),
    "none": ([], 5),
}


def voltage(samples, channels, seed=0):
    """Noise with a common mode, and spikes."""
    random = np.random.default_rng(seed)
    data = random.standard_normal((samples, channels)) + 2 * random.standard_normal((samples, 1))
    data[random.random((samples, channels)) < 0.002] -= 40
    return data.astype(np.float32)


def make(layout="probes", calibration_s=0.01):
    clusters, channels = LAYOUTS[layout] if isinstance(layout, str) else layout
    crossings = ThresholdCrossings(channels, RATE, calibration_s=calibration_s)
    return SpikeChain(
        SosFilter(SOS, channels), crossings, Rereference(clusters, channels), Covariance(clusters, channels)
    )


def fitted(chain, data):
    labels = [str(c) for c in range(chain.channels)]
    covariance = Covariance(chain.rereference.clusters, chain.channels)
    covariance.add(SosFilter(SOS, chain.channels)(data))
    return solve(covariance.snapshot(), labels, ridge=1e-3, min_samples_per_channel=0, version=1, source="fit")


def stage_by_stage(chain, block):
    """The oracle: the stages one after the other over the whole block."""
    filtered = chain.filter(block)
    chain.covariance.add(filtered)
    return chain.crossings(chain.rereference(filtered))


def blocks(data, size):
    return [data[i : i + size] for i in range(0, len(data), size)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("size", [60, 300, 7])
def test_one_pass_over_tiles_gives_the_bits_of_the_stages(layout, size):
    one, other = make(layout), make(layout)
    data = voltage(2100, one.channels)
    weights = fitted(one, data)
    counted = 0
    for number, block in enumerate(blocks(data, size)):
        if number == 5:
            one.rereference.set_weights(weights)
            other.rereference.set_weights(weights)
        spikes = one(block).copy()
        one.absorb()
        assert np.array_equal(spikes, stage_by_stage(other, block))
        counted += spikes.sum()
    assert counted > 10
    assert np.array_equal(one.crossings.sigma, other.crossings.sigma)
    assert np.array_equal(one.filter.state, other.filter.state)
    first, second = one.covariance.snapshot(), other.covariance.snapshot()
    assert first.samples == second.samples == 2100
    assert all(np.array_equal(a, b) for a, b in zip(first.scatter, second.scatter, strict=True))
    assert np.array_equal(first.mean, second.mean)


@given(st.lists(st.integers(1, 200), min_size=1, max_size=12))
@settings(max_examples=25)
def test_spikes_do_not_depend_on_how_samples_were_cut(sizes):
    whole, cut = make(), make()
    data = voltage(600 + sum(sizes), 96)
    weights = fitted(whole, data)
    for chain in (whole, cut):
        chain.rereference.set_weights(weights)
        chain(data[:600])
    expected = whole(data[600:]).copy()
    total, start = np.zeros(96, np.float32), 600
    for size in sizes:
        total += cut(data[start : start + size])
        start += size
    assert np.array_equal(total, expected)
    assert np.array_equal(whole.crossings.sigma, cut.crossings.sigma)


def test_filter_and_rereference_in_float32_are_within_a_ten_thousandth_of_float64():
    chain = make()
    data = voltage(3000, 96)
    weights = fitted(chain, data)
    chain.rereference.set_weights(weights)
    exact = apply(signal.sosfilt(SOS, data.astype(float), axis=0), weights.matrix)
    actual = chain.rereference(chain.filter(data))
    assert np.abs(actual - exact).max() <= 1e-4 * exact.std(axis=0).min()


def test_weights_that_reach_across_clusters_and_large_clusters_go_through_the_stages():
    data = voltage(1200, 140)
    across = np.random.default_rng(0).standard_normal((140, 140)) * 0.01
    np.fill_diagonal(across, 0)
    labels = tuple(str(c) for c in range(140))
    for clusters, matrix in (([range(32)], across), ([range(140)], across)):
        one, other = make(([list(c) for c in clusters], 140)), make(([list(c) for c in clusters], 140))
        for chain in (one, other):
            chain.rereference.set_weights(Weights(1, matrix.copy(), labels, "upload"))
        for block in blocks(data, 60):
            spikes = one(block).copy()
            one.absorb()
            assert np.array_equal(spikes, stage_by_stage(other, block))
        assert np.array_equal(one.covariance.snapshot().scatter[0], other.covariance.snapshot().scatter[0])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e38])
@pytest.mark.parametrize("calibrated", [True, False])
def test_what_is_not_finite_neither_leaks_nor_stays_nor_teaches(bad, calibrated):
    chain, healthy = make("probes", 0.01 if calibrated else 1.0), make("probes", 0.01 if calibrated else 1.0)
    data = voltage(900, 96)
    weights = fitted(chain, data)
    for each in (chain, healthy):
        each.rereference.set_weights(weights)
        each(data[:600])
        each.absorb()
    held = data[600:660].copy()
    held[10:20, 3] = held[9, 3]
    spoilt = data[600:660].copy()
    spoilt[10:20, 3] = bad
    before = chain.covariance.samples
    assert np.array_equal(chain(spoilt).copy(), healthy(held, learn=False))
    chain.absorb()
    assert chain.covariance.samples == before
    assert chain.nonfinite == 10
    assert np.array_equal(chain(data[660:]).copy(), healthy(data[660:]))
    assert np.isfinite(chain.filter.state).all()


@pytest.mark.skipif(platform.machine().lower() not in {"x86_64", "amd64"}, reason="others compute denormals at speed")
def test_silence_and_denormal_samples_leave_nothing_denormal():
    chain = make()
    chain(voltage(900, 96))
    for _ in range(20):
        chain(np.full((300, 96), 1e-41, np.float32))
    assert (chain.filter.state == 0).all()
    assert np.float32(1e-41) * np.float32(2) > 0  # the caller's arithmetic is as it was


def test_a_steady_block_allocates_nothing_that_grows_with_it():
    chain = make("many")
    data = voltage(1200, 384)
    for block in blocks(data, 60):
        chain(block)
        chain.absorb()
    cut = blocks(data, 60)
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        for block in cut * 20:
            chain(block)
            chain.absorb()
        after, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < data[:60].nbytes / 8
    assert after - before < 4096


def test_memory_is_reported():
    chain = make("many")
    parts = chain.filter.state, chain.crossings.state, chain.covariance.products, chain.rereference.weights.matrix
    least = sum(part.nbytes for part in parts)
    assert least < chain.memory_bytes < 4 * least
    assert chain.memory_bytes > make("probes").memory_bytes


@pytest.mark.parametrize("layout", ["shuffled", "wide"])
@pytest.mark.parametrize("taught", [60, 900])
def test_a_state_dict_brings_a_chain_to_the_same_bits(layout, taught):
    one, other = make(layout), make(layout)
    data = voltage(1500, one.channels)
    one.rereference.set_weights(fitted(one, data))
    for block in blocks(data[:taught], 60):
        one(block)
        one.absorb()
    other.load_state_dict(one.state_dict())
    for block in blocks(data[taught:], 60):
        expected = one(block).copy()
        one.absorb()
        assert np.array_equal(other(block), expected)
        other.absorb()
    assert np.array_equal(one.covariance.snapshot().scatter[0], other.covariance.snapshot().scatter[0])


def test_a_prime_with_a_value_that_is_not_finite_starts_from_zero_there():
    chain = make("none")
    chain.prime(np.array([1, np.nan, 2, np.inf, 3], np.float32))
    assert np.isfinite(chain.filter.state).all()


def test_stages_of_different_clusters_are_refused():
    with pytest.raises(ValueError, match="different clusters"):
        SpikeChain(SosFilter(SOS, 4), ThresholdCrossings(4, RATE), Rereference([[0, 1]], 4), Covariance([[0, 1, 2]], 4))
