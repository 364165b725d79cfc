"""Blocks in, rate vectors out: the three front ends, and what is not to be trusted."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from neuroloop.config import parse_session
from neuroloop.errors import ConfigError
from neuroloop.pipeline import Pipeline
from neuroloop.session.blocks import Block, BlockCutter
from neuroloop.session.timeline import Timeline

BROADBAND = {"kind": "broadband", "band": [300, 3000], "calibration_s": 0.1}
EEG = {"kind": "bandpower", "bands": {"alpha": [8, 13], "beta": [14, 30]}}
PAIRS = EEG | {"kind": "covariance"}


def session(front_end, **changes):
    decoders = [{"name": "d", "kind": "csp" if front_end["kind"] == "covariance" else "maxrate"}]
    given = {"name": "s", "stream": {"name": "x"}, "classes": ["a", "b"], "front_end": front_end, "decoders": decoders}
    return parse_session(given | changes)


def labels(count):
    return tuple(f"c{i}" for i in range(count))


def run(pipeline, samples, missing=()):
    """All bins of an array, (samples, channels); the blocks whose numbers are in `missing` lack samples."""
    bins, size = [], pipeline.block_samples
    for number in range(len(samples) // size):
        pipeline.step(np.ascontiguousarray(samples[number * size : (number + 1) * size]), number not in missing)
        if (number + 1) * size % pipeline.bin_samples == 0:
            outcome = pipeline.finish_bin()
            bins.append((outcome.values.copy(), outcome.rates.copy(), outcome.reason, outcome.gap))
    return bins


def spiking(seconds, rate=10_000, channels=3, seed=0):
    """White noise with one clear spike per 10 ms on channel 1 only."""
    noise = np.random.default_rng(seed).standard_normal((int(seconds * rate), channels)).astype(np.float32)
    noise[50::100, 1] -= 40
    return noise


def test_broadband_gives_spikes_per_second_of_each_channel():
    pipeline = Pipeline(session(BROADBAND, rereference={"enabled": False}), 10_000, labels(3))
    bins = run(pipeline, spiking(1.0))
    trusted = np.array([values for values, _, reason, _ in bins if reason is None])
    assert trusted.mean(axis=0)[1] == pytest.approx(100, rel=0.02)
    assert trusted.mean(axis=0)[[0, 2]].max() < 1


def test_bins_before_the_thresholds_are_calibrated_are_marked_and_stay_out_of_the_rates():
    pipeline = Pipeline(session(BROADBAND, rereference={"enabled": False}), 10_000, labels(3))
    bins = run(pipeline, spiking(0.3))
    reasons = [reason for _, _, reason, _ in bins]
    assert reasons[0] == "settling"
    assert set(reasons[1:5]) == {"calibrating"}
    assert reasons[6:] == [None] * len(reasons[6:])
    assert bins[4][1].max() == 0


def test_a_block_with_missing_samples_marks_its_bin_and_the_filter_settles_again():
    pipeline = Pipeline(session(BROADBAND, rereference={"enabled": False}), 10_000, labels(3))
    last_of_bin_10 = 11 * pipeline.bin_samples // pipeline.block_samples - 1
    bins = run(pipeline, spiking(0.5), missing={last_of_bin_10})
    reasons = [(reason, gap) for _, _, reason, gap in bins]
    assert reasons[10] == ("gap", True)
    assert reasons[11] == ("settling", False)
    assert reasons[12] == (None, False)
    np.testing.assert_array_equal(bins[10][1], bins[9][1])


def test_rates_are_the_mean_over_the_window_of_trusted_bins():
    pipeline = Pipeline(session({"kind": "counts"}, window=3), 50, labels(2))
    samples = np.array([[1, 0], [2, 0], [3, 4], [4, 4], [5, 4]], np.float32)
    bins = run(pipeline, samples, missing={3})
    np.testing.assert_allclose(bins[1][1], [75, 0])
    np.testing.assert_allclose(bins[2][1], [100, 200 / 3])
    np.testing.assert_array_equal(bins[3][1], bins[2][1])
    np.testing.assert_allclose(bins[4][1], [50 * 10 / 3, 50 * 8 / 3], rtol=1e-6)


@pytest.mark.parametrize(("unit", "expected"), [("counts", 100.0), ("rates", 2.0)])
def test_counts_add_up_over_the_bin_and_rates_are_averaged(unit, expected):
    pipeline = Pipeline(session({"kind": "counts", "unit": unit}), 200, labels(1))
    assert pipeline.bin_samples == 4
    bins = run(pipeline, np.array([[1], [3], [2], [2]], np.float32))
    assert bins[0][0][0] == pytest.approx(4 * expected if unit == "counts" else expected)


def test_bandpower_is_the_mean_square_of_each_band():
    rate = 250.0
    time = np.arange(0, 20, 1 / rate)
    wave = 10 * np.sin(2 * np.pi * 10 * time) + 4 * np.sin(2 * np.pi * 20 * time) + 4000
    pipeline = Pipeline(session(EEG, bin_ms=100, rereference={"enabled": False}), rate, labels(1))
    assert pipeline.features == ("c0:alpha", "c0:beta")
    bins = run(pipeline, wave.astype(np.float32)[:, None])
    trusted = np.array([values for values, _, reason, _ in bins if reason is None])[100:]
    np.testing.assert_allclose(trusted.mean(axis=0), [50, 8], rtol=0.05)


def test_the_mean_over_the_window_is_the_covariance_of_the_window():
    rate, window = 250, 5
    samples = np.random.default_rng(0).standard_normal((1000, 3)).astype(np.float32)
    samples[:, 2] -= samples[:, 0]
    pipeline = Pipeline(session(PAIRS, bin_ms=100, window=window), rate, labels(3))
    assert pipeline.features[:4] == ("c0*c0:alpha", "c0*c1:alpha", "c0*c2:alpha", "c1*c1:alpha")
    _, rates, reason, _ = run(pipeline, samples)[-1]
    assert reason is None
    sos = signal.butter(4, (8, 13), btype="bandpass", fs=rate, output="sos")
    last = signal.sosfilt(sos, samples.astype(float) - samples[0], axis=0)[-window * 25 :]
    expected = (last.T @ last / len(last))[np.triu_indices(3)]
    np.testing.assert_allclose(rates[:6], expected, rtol=1e-4, atol=1e-4 * expected.max())
    assert rates[2] < 0


def test_more_pairs_of_channels_than_a_session_can_hold_are_refused():
    with pytest.raises(ConfigError, match="covariance of 300 channels in 2 bands is 90300 features; at most 65536"):
        Pipeline(session(PAIRS), 250, labels(300))


@pytest.mark.parametrize("front_end", [EEG, PAIRS], ids=lambda f: f["kind"])
def test_an_offset_of_the_amplifier_rings_no_filter(front_end):
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((2000, 2)).astype(np.float32)
    settled = []
    for offset in (0.0, 5000.0):
        pipeline = Pipeline(session(front_end, bin_ms=100, rereference={"enabled": False}), 250, labels(2))
        bins = run(pipeline, noise + np.float32(offset))
        settled.append(next(values for values, _, reason, _ in bins if reason is None))
    np.testing.assert_allclose(settled[1], settled[0], rtol=0.15)


def test_relative_power_sums_to_one_over_the_bands():
    front_end = EEG | {"scale": "relative"}
    pipeline = Pipeline(session(front_end, bin_ms=100, rereference={"enabled": False}), 250, labels(2))
    noise = np.random.default_rng(0).standard_normal((1000, 2)).astype(np.float32)
    values = run(pipeline, noise)[-1][0]
    np.testing.assert_allclose(values.reshape(2, 2).sum(axis=1), 1, rtol=1e-5)


def test_a_reset_forgets_the_window_but_not_the_thresholds():
    pipeline = Pipeline(session(BROADBAND, rereference={"enabled": False}), 10_000, labels(3))
    run(pipeline, spiking(0.5))
    pipeline.reset()
    bins = run(pipeline, spiking(0.1, seed=1))
    assert [reason for _, _, reason, _ in bins] == ["settling", None, None, None, None]
    assert bins[0][1].max() == 0


@pytest.mark.parametrize("front_end", [BROADBAND, {"kind": "counts"}, EEG, PAIRS], ids=lambda f: f["kind"])
def test_a_state_dict_brings_a_pipeline_to_the_same_bits(front_end):
    rate = 10_000 if front_end is BROADBAND else 250
    settings_ = session(front_end, bin_ms=20, rereference={"enabled": False})
    samples = np.abs(spiking(1.0, rate))
    one, other = Pipeline(settings_, rate, labels(3)), Pipeline(settings_, rate, labels(3))
    half = len(samples) // 2 // one.bin_samples * one.bin_samples
    run(one, samples[:half])
    other.load_state_dict(one.state_dict())
    for left, right in zip(run(one, samples[half:]), run(other, samples[half:]), strict=True):
        assert left[0].tobytes() == right[0].tobytes()
        assert left[1].tobytes() == right[1].tobytes()


@pytest.mark.parametrize("front_end", [BROADBAND, {"kind": "counts"}, EEG, PAIRS], ids=lambda f: f["kind"])
@given(blocks=st.integers(0, 120), missing=st.sets(st.integers(0, 160), max_size=4))
@settings(max_examples=8, deadline=None)
def test_the_state_after_any_block_brings_another_pipeline_to_the_same_bits(front_end, blocks, missing):
    rate = 2500 if front_end is BROADBAND else 250
    front_end = front_end | {"band": [300, 1000]} if front_end is BROADBAND else front_end
    settings_ = session(front_end, bin_ms=40, block_ms=8, rereference={"clusters": 2}, window=4)
    samples = np.abs(spiking(1.4, rate, channels=4))
    one, other = (Pipeline(settings_, rate, labels(4)) for _ in range(2))

    def step(pipeline, number):
        size = pipeline.block_samples
        pipeline.step(np.ascontiguousarray(samples[number * size : (number + 1) * size]), number not in missing)
        ends = (number + 1) * size % pipeline.bin_samples == 0
        outcome = pipeline.finish_bin() if ends else None
        told = outcome and (outcome.values.tobytes(), outcome.rates.tobytes(), outcome.reason, outcome.gap)
        pipeline.accumulate()
        return told

    for number in range(blocks):
        step(one, number)
    other.load_state_dict(one.stream_state())
    if one.front_end.rereference is not None:
        kept = one.front_end.rereference.covariance.state_dict()
        other.front_end.rereference.covariance.load_state_dict(kept)
    for number in range(blocks, len(samples) // one.block_samples):
        assert step(one, number) == step(other, number)
    if one.front_end.rereference is not None:
        mine, yours = (pipeline.front_end.rereference.covariance.snapshot() for pipeline in (one, other))
        assert (mine.samples, mine.mean.tobytes()) == (yours.samples, yours.mean.tobytes())
        assert [part.tobytes() for part in mine.scatter] == [part.tobytes() for part in yours.scatter]


@given(stops=st.lists(st.integers(0, 4000), max_size=30))
@settings(max_examples=20)
def test_rates_do_not_depend_to_the_bit_on_how_the_samples_were_chunked(stops):
    samples = spiking(0.4, channels=4)
    times = 7 + np.arange(len(samples)) / 10_000
    times[2000:] += 0.0303

    def rates(arrivals):
        pipeline = Pipeline(session(BROADBAND, rereference={"clusters": 2}), 10_000, labels(4))
        cutter = BlockCutter(pipeline.block_samples, pipeline.bin_samples, np.arange(4), 10_000, "hold", samples.dtype)
        timeline, clock, out, consumed = Timeline(10_000, "auto"), times.copy(), [], 0
        for stop in arrivals:
            released, gaps = timeline.follow(clock, stop)
            cutter.add_gaps(gaps)
            while not isinstance(piece := cutter.cut(samples, clock, consumed, released), int):
                if not isinstance(piece, Block):
                    pipeline.reset()
                    continue
                consumed = piece.consumed
                pipeline.step(piece.samples, piece.missing == 0)
                if (piece.index + pipeline.block_samples) % pipeline.bin_samples == 0:
                    out.append(pipeline.finish_bin().rates.tobytes())
            consumed = piece
        return out

    assert rates([*sorted(stops), 4000]) == rates([4000])


def test_the_band_pass_of_the_broadband_front_end_is_scipys():
    pipeline = Pipeline(session(BROADBAND, rereference={"enabled": False}), 10_000, labels(1))
    sos = signal.butter(4, (300, 3000), "bandpass", fs=10_000, output="sos")
    samples = np.ascontiguousarray(spiking(1.0, channels=2, seed=3)[:, 1:])
    samples[:, 0] -= samples[0, 0]  # both start from rest
    expected = signal.sosfilt(sos, samples[:, 0].astype(float))
    below = expected < -4.5 * np.median(np.abs(expected)) / 0.6745
    onsets = np.flatnonzero(below[1:] & ~below[:-1]) + 1
    spikes = onsets[np.r_[True, np.diff(onsets) >= 10]]
    bins = run(pipeline, samples)
    counted = sum(values[0] * 0.02 for values, _, reason, _ in bins[10:] if reason is None)
    assert counted == pytest.approx(np.sum(spikes >= 2000), rel=0.05)


def test_a_notch_takes_line_noise_out_of_the_spike_band():
    noise = spiking(2.0)
    hum = 30 * np.sin(2 * np.pi * 400 * np.arange(len(noise)) / 10_000)[:, None].astype(np.float32)
    sigma = {}
    for notch in ([], [400]):
        settings_ = session(BROADBAND | {"notch": notch, "calibration_s": 1}, rereference={"enabled": False})
        pipeline = Pipeline(settings_, 10_000, labels(3))
        run(pipeline, noise + hum)
        sigma[len(notch)] = pipeline.front_end.sigma[0]
    assert sigma[0] > 15
    assert sigma[1] < 2
