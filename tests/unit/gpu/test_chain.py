"""The chain in PyTorch beside the stages on the CPU. Everything runs on the CPU, and on a GPU where there is one."""

import tracemalloc

import numpy as np
import pytest
import torch

from neuroloop.gpu.chain import TorchSpikeChain
from neuroloop.signal.covariance import Covariance
from neuroloop.signal.filter_design import design_bandpass
from neuroloop.signal.filters import SosFilter
from neuroloop.signal.rereference import Rereference
from neuroloop.signal.spikes import ThresholdCrossings
from neuroloop.signal.weights import Weights, car_weights

torch.set_num_threads(1)

FS = 30_000.0
SOS = design_bandpass((300.0, 6000.0), 4, FS)
LAYOUTS = {
    "neighbours": (8, [[0, 1, 2, 3], [4, 5, 6, 7]]),
    "interleaved": (8, [[0, 2, 4, 6], [7, 5, 3, 1]]),
    "one of all": (8, [list(range(8))]),
    "sizes, singletons, channels in none": (9, [[8, 1, 3], [0, 2, 5], [7], [4]]),
    "none at all": (4, []),
}

layouts = pytest.mark.parametrize(("channels", "clusters"), LAYOUTS.values(), ids=LAYOUTS)


class Stages:
    """The same chain, stage by stage on the CPU."""

    def __init__(self, channels, clusters, sos=SOS, half_life_samples=None, srate=FS, **options):
        self.filter = SosFilter(sos, channels)
        self.rereference = Rereference(clusters, channels)
        self.covariance = Covariance(clusters, channels, half_life_samples)
        self.crossings = ThresholdCrossings(channels, srate, **options)

    def __call__(self, block, valid=True):
        filtered = self.filter(block)
        self.covariance.add(filtered, valid)
        self.output = self.rereference(filtered)
        return self.crossings(self.output)


def both(
    device, channels, clusters, n=300, sos=SOS, half_life_samples=None, srate=FS, sigma_half_life_s=1.0, **options
):
    options = {"calibration_s": 0.1} | options
    ours = TorchSpikeChain(
        sos, channels, srate, n, clusters,
        device=device, half_life_samples=half_life_samples, sigma_half_life_s=sigma_half_life_s, **options,
    )  # fmt: skip
    return ours, Stages(channels, clusters, sos, half_life_samples, srate, half_life_s=sigma_half_life_s, **options)


def voltage(samples, channels, seed=0, offset=0.0):
    """Noise, partly common, with spikes, of sigma 5 to 10 microvolts."""
    rng = np.random.default_rng(seed)
    data = rng.standard_normal((samples, channels)) + rng.standard_normal((samples, 1))
    shape = -14 * np.sin(2 * np.pi * np.arange(24) / 24) * np.exp(-np.arange(24) / 12)
    for channel in range(channels):
        for start in rng.integers(0, samples - 24, samples // 400):
            data[start : start + 24, channel] += shape
    return (data * np.linspace(5, 10, channels) + offset).astype(np.float32)


def weights(channels, pairs, seed=0):
    """Random weights within `pairs` of (rows, columns)."""
    matrix, rng = np.zeros((channels, channels)), np.random.default_rng(seed)
    for cluster in pairs:
        matrix[np.ix_(cluster, cluster)] = 0.3 * rng.standard_normal((len(cluster), len(cluster)))
    np.fill_diagonal(matrix, 0)
    return Weights(1, matrix, tuple(str(c) for c in range(channels)), "test")


def assert_same_covariance(ours, theirs, rtol=1e-5):
    one, other = ours.snapshot(), theirs.snapshot()
    assert one.samples == pytest.approx(other.samples, rel=1e-12)
    assert (one.rejected, one.clusters, one.channel_count) == (other.rejected, other.clusters, other.channel_count)
    assert one.resolution == other.resolution
    for left, right in zip(one.scatter, other.scatter, strict=True):
        np.testing.assert_allclose(left, right, rtol=0, atol=rtol * np.abs(right).max(initial=1e-30))
    np.testing.assert_allclose(one.mean, other.mean, atol=1e-4)


def assert_same(ours, theirs, blocks, valid=lambda number: True):
    """Counts may differ where a sample is within rounding of the threshold: one in a thousand here."""
    total = differing = 0
    outputs, differences = [], []
    for number, block in enumerate(blocks):
        one, other = ours(block, valid(number)), theirs(block, valid(number))
        outputs.append(theirs.output.copy())
        differences.append(np.abs(ours.rereference.out.cpu().numpy() - theirs.output).max())
        total += other.sum()
        differing += np.abs(one - other).sum()
    assert max(differences) <= 1e-4 * max(np.concatenate(outputs).std(), 1e-3)
    assert differing <= 1e-3 * total
    np.testing.assert_allclose(ours.sigma, theirs.crossings.sigma, rtol=1e-4)
    return total


@layouts
def test_the_chain_gives_what_the_stages_give(device, channels, clusters):
    ours, theirs = both(device, channels, clusters)
    ours.prime(np.zeros(channels, np.float32))
    data = voltage(300 * 60, channels).reshape(60, 300, channels)
    for stage in (ours, theirs.rereference):
        stage.set_weights(weights(channels, clusters))
    total = assert_same(ours, theirs, data)
    assert total > 100
    assert_same_covariance(ours.covariance, theirs.covariance)


def test_weights_that_reach_across_clusters_are_honoured_and_left_again(device):
    channels, clusters = LAYOUTS["interleaved"]
    ours, theirs = both(device, channels, clusters)
    data = voltage(300 * 40, channels).reshape(4, 10, 300, channels)
    within, across = weights(channels, clusters), weights(channels, [range(channels)])
    for part, used in zip(data, (within, across, within, across), strict=True):
        ours.set_weights(ours.rereference.prepare(used))
        theirs.rereference.set_weights(used)
        assert ours.weights is used
        assert_same(ours, theirs, part)


@pytest.mark.parametrize(
    ("n", "count"), [(1, 400), (7, 400), (60, 150), (250, 36), (299, 30), (301, 30), (650, 14), (1500, 6)]
)
def test_blocks_of_any_length_give_what_the_stages_give(device, n, count):
    channels, clusters = LAYOUTS["neighbours"]
    ours, theirs = both(device, channels, clusters, n, calibration_s=0.2 * n * count / FS)
    for stage in (ours, theirs.rereference):
        stage.set_weights(car_weights([str(c) for c in range(channels)], clusters))
    assert_same(ours, theirs, voltage(n * count, channels).reshape(count, n, channels))
    assert_same_covariance(ours.covariance, theirs.covariance)


@pytest.mark.parametrize("refractory_ms", [0.0, 0.03, 0.07, 0.1, 1.0, 3.0, 20.0])
def test_refractory_periods_of_any_length_give_what_the_stages_give(device, refractory_ms):
    channels, clusters = LAYOUTS["neighbours"]
    ours, theirs = both(device, channels, clusters, 250, refractory_ms=refractory_ms, threshold=1.5)
    assert_same(ours, theirs, voltage(250 * 60, channels).reshape(60, 250, channels))


def test_a_low_narrow_band_takes_double_precision(device):
    sos = design_bandpass((1.0, 8.0), 2, 2000.0)
    ours, theirs = both(device, 4, [[0, 1, 2, 3]], 20, sos, srate=2000.0, calibration_s=0.5)
    data = voltage(20 * 400, 4, offset=300.0).reshape(400, 20, 4)
    ours.prime(data[0, 0])
    theirs.filter.prime(data[0, 0])
    assert theirs.filter.precision == "double"
    assert_same(ours, theirs, data)


def test_a_primed_offset_rings_no_bandpass(device):
    ours, theirs = both(device, 8, [])
    data = voltage(300 * 30, 8, offset=3000.0).reshape(30, 300, 8)
    ours.prime(data[0, 0])
    theirs.filter.prime(data[0, 0])
    for block in data:
        ours(block)
        theirs(block)
        assert np.abs(ours.rereference.out.cpu().numpy() - theirs.output).max() < 1e-3


def test_blocks_that_are_not_valid_stay_out_of_the_covariance_only(device):
    channels, clusters = LAYOUTS["interleaved"]
    ours, theirs = both(device, channels, clusters)
    data = voltage(300 * 30, channels).reshape(30, 300, channels)
    assert_same(ours, theirs, data, valid=lambda number: number % 3 > 0)
    assert ours.covariance.samples == 20 * 300
    assert_same_covariance(ours.covariance, theirs.covariance)


def test_the_covariance_forgets_by_its_half_life_which_may_change(device):
    channels, clusters = LAYOUTS["interleaved"]
    ours, theirs = both(device, channels, clusters, half_life_samples=3000)
    data = voltage(300 * 40, channels).reshape(2, 20, 300, channels)
    assert_same(ours, theirs, data[0])
    for stage in (ours, theirs):
        stage.covariance.half_life_samples = 900.0
    assert_same(ours, theirs, data[1])
    assert ours.covariance.half_life_samples == 900.0
    assert ours.covariance.samples < 2000
    assert_same_covariance(ours.covariance, theirs.covariance)


def test_the_covariance_of_large_clusters_is_taken_in_float32(device):
    clusters = [list(range(110))]
    ours, theirs = both(device, 110, clusters)
    assert_same(ours, theirs, voltage(300 * 12, 110).reshape(12, 300, 110))
    assert ours.covariance.snapshot().resolution > 1e-10
    assert_same_covariance(ours.covariance, theirs.covariance)


def test_a_fit_gathers_beside_the_covariance_even_while_that_is_frozen(device):
    channels, clusters = LAYOUTS["interleaved"]
    ours, theirs = both(device, channels, clusters)
    ours.accumulates = False
    data = voltage(300 * 30, channels).reshape(30, 300, channels)
    for number, block in enumerate(data):
        if number == 10:
            ours.fit_covariance = ours.new_covariance()
            theirs.covariance.reset()
        ours(block, valid=number != 20)
        theirs(block, valid=number != 20)
    assert ours.covariance.samples == 0
    assert_same_covariance(ours.fit_covariance, theirs.covariance)


def test_gaps_interrupt_as_in_the_stages(device):
    channels, clusters = LAYOUTS["neighbours"]
    ours, theirs = both(device, channels, clusters, threshold=1.0)
    for part in np.split(voltage(300 * 40, channels).reshape(40, 300, channels), 20):
        assert_same(ours, theirs, part)
        ours.interrupt()
        theirs.crossings.interrupt()


@pytest.mark.parametrize("before", [4, 20])
def test_a_change_of_amplitude_is_followed_before_and_after_the_calibration(device, before):
    channels, clusters = LAYOUTS["neighbours"]
    ours, theirs = both(device, channels, clusters)
    data = voltage(300 * 40, channels).reshape(40, 300, channels)
    assert_same(ours, theirs, data[:before])
    factor = np.array([0.5, 2.0, np.nan, 0.0, np.inf, -1.0, 1.0, 1.5])
    ours.scale_sigma(factor)
    theirs.crossings.scale_sigma(factor)
    assert_same(ours, theirs, data[before:])


def test_sigma_stays_together_over_minutes(device):
    """Two of them, 12 000 periods of the running estimate."""
    sos = design_bandpass((50.0, 300.0), 2, 1000.0)
    ours, theirs = both(device, 4, [], 500, sos, srate=1000.0, sigma_half_life_s=20.0)
    rng = np.random.default_rng(0)
    growing = np.linspace(1, 5, 240, dtype=np.float32)[:, None, None]
    assert_same(ours, theirs, rng.standard_normal((240, 500, 4)).astype(np.float32) * growing)


def test_a_dead_channel_never_spikes_until_it_wakes(device):
    ours, theirs = both(device, 4, [], sigma_half_life_s=0.05)
    data = voltage(300 * 80, 4)
    data[: 300 * 40, 2] = 0
    data[300 * 60 :, 1] = 0
    assert_same(ours, theirs, data.reshape(80, 300, 4))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_a_sample_that_is_not_finite_is_held_and_leaks_to_no_neighbour(device, value):
    channels, clusters = LAYOUTS["one of all"]
    ours, theirs = both(device, channels, clusters)
    data = voltage(300 * 30, channels).reshape(30, 300, channels)
    held = data.copy()
    data[12, 40:43, 3] = data[13, 0, 5] = data[14, 290:, :] = value
    data[15, :, 1] = value
    held[12, 40:43, 3] = held[12, 39, 3]
    held[13, 0, 5] = held[12, -1, 5]
    held[14, 290:, :] = held[14, 289]
    held[15, :, 1] = held[14, 289, 1]
    for stage in (ours, theirs.rereference):
        stage.set_weights(weights(channels, clusters))
    for number in range(30):
        one = ours(data[number]).copy()
        assert one.tolist() == theirs(held[number], number not in (12, 13, 14, 15)).tolist()
    assert ours.held_count == 3 + 1 + 80 + 300
    assert ours.covariance.rejected == 4 * 300
    assert ours.covariance.samples == 26 * 300
    np.testing.assert_allclose(ours.sigma, theirs.crossings.sigma, rtol=1e-4)


def test_a_bin_of_several_blocks_holds_the_spikes_of_all_of_them(device):
    ours, other = (both(device, 8, [], 60)[0] for _ in range(2))
    data = voltage(60 * 200, 8).reshape(100, 2, 60, 8)
    for blocks in data:
        for block in blocks:
            ours.step(block, True)
            ours.accumulate()
        expected = sum(other(block).copy() for block in blocks)
        assert ours.finish_bin().tolist() == expected.tolist()
    assert ours.covariance.samples == other.covariance.samples == 60 * 200


def test_samples_written_straight_into_the_input_give_the_same(device):
    ours, other = (both(device, 8, [], 300)[0] for _ in range(2))
    for block in voltage(300 * 30, 8).reshape(30, 300, 8):
        ours.input[:] = block
        assert ours(ours.input).tolist() == other(block).tolist()


@pytest.mark.parametrize("cut", [4, 21])
def test_a_chain_loaded_from_a_state_goes_on_bit_for_bit(device, cut):
    channels, clusters = LAYOUTS["interleaved"]
    first, second = (both(device, channels, clusters, 250, half_life_samples=900)[0] for _ in range(2))
    first.set_weights(weights(channels, [range(channels)]))
    data = voltage(250 * 50, channels).reshape(50, 250, channels)
    for block in data[:cut]:
        first(block)
    first.step(data[cut])
    first.accumulate()
    for block in data[:17]:
        second(block)
    second.load_state_dict(first.state_dict())
    assert first.finish_bin().tolist() == second.finish_bin().tolist()
    for block in data[cut + 1 :]:
        assert first(block).tolist() == second(block).tolist()
    assert np.array_equal(first.sigma, second.sigma)
    one, other = first.state_dict(), second.state_dict()
    assert all(torch.equal(one["covariance"][k], other["covariance"][k]) for k in ("mean", "scatter_4"))
    assert torch.equal(one["filter"]["state"], other["filter"]["state"])
    assert first.weights.version == second.weights.version


def test_a_reset_begins_anew_with_the_same_weights(device):
    channels, clusters = LAYOUTS["neighbours"]
    ours, _ = both(device, channels, clusters)
    ours.set_weights(weights(channels, clusters))
    data = voltage(300 * 30, channels).reshape(30, 300, channels)
    before = [ours(block).tolist() for block in data]
    ours.reset()
    assert not ours.calibrated
    assert ours.covariance.samples == 0
    assert [ours(block).tolist() for block in data] == before


def test_a_snapshot_that_was_asked_for_is_of_that_moment(device):
    channels, clusters = LAYOUTS["interleaved"]
    ours, _ = both(device, channels, clusters)
    data = voltage(300 * 4, channels).reshape(4, 300, channels)
    ours(data[0])
    requested, now = ours.covariance.request_snapshot(), ours.covariance.snapshot()
    ours(data[1])
    later = requested()
    assert later.samples == now.samples == 300
    assert all(np.array_equal(a, b) for a, b in zip(later.scatter, now.scatter, strict=True))
    with pytest.raises(ValueError, match="read-only"):
        later.scatter[0][0, 0] = 1.0


def test_the_steady_path_keeps_no_memory_on_the_host(device):
    ours, _ = both(device, 8, [[0, 1, 2, 3], [4, 5, 6, 7]])
    block = voltage(300, 8)
    for _ in range(20):
        ours(block)
    ours_only = [tracemalloc.Filter(True, "*/neuroloop/signal/*")]
    tracemalloc.start()
    try:
        for _ in range(5):
            ours(block)
        before = tracemalloc.take_snapshot().filter_traces(ours_only)
        for _ in range(100):
            ours(block)
        after = tracemalloc.take_snapshot().filter_traces(ours_only)
    finally:
        tracemalloc.stop()
    grown = [line for line in after.compare_to(before, "lineno") if line.size_diff > 0]
    assert sum(line.size_diff for line in grown) < 2000, grown[:5]


def test_memory_grows_with_the_channels_and_is_reported(device):
    small, large = (both(device, c, [[0, 1]])[0].memory_bytes for c in (16, 32))
    assert 300 * 16 * 4 * 3 < small < large < 10_000_000


@layouts
def test_the_steps_of_a_block_read_nothing_back_and_mix_no_devices(channels, clusters):
    """PyTorch's meta device has shapes and no values: a step that a graph could not capture is an error on it."""
    chain = TorchSpikeChain(SOS, channels, FS, 250, clusters, device="meta")
    assert chain.rereference.out.device.type == "meta"


def test_a_block_of_another_shape_is_refused():
    ours, _ = both("cpu", 8, [])
    with pytest.raises(ValueError, match=r"expected \(300, 8\), got \(299, 8\)"):
        ours(np.zeros((299, 8), np.float32))


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA GPU")
def test_blocks_are_replayed_from_graphs_on_a_gpu():
    ours, _ = both("cuda", 8, [[0, 1]])
    assert ours.device.capture_error is None
    assert ours.is_captured
