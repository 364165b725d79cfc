"""The simulated voltage."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloop_sources import SimulatorSettings, Truth
from neuroloop_sources.voltage import Voltage

SMALL = SimulatorSettings(channel_count=12, nominal_srate=30_000, trial_s=0.05, seed=2)
LENGTH = 4000


def pieces(voltage: Voltage, cuts: list[int]) -> np.ndarray:
    edges = [0, *sorted(cuts), LENGTH]
    return np.concatenate([voltage(a, b).copy() for a, b in pairwise(edges)])


@pytest.fixture(scope="module")
def whole() -> np.ndarray:
    return Voltage(SMALL)(0, LENGTH).copy()


@settings(max_examples=30)
@given(cuts=st.lists(st.integers(0, LENGTH), max_size=40))
def test_samples_do_not_depend_to_the_bit_on_how_the_session_is_cut(whole: np.ndarray, cuts: list[int]) -> None:
    assert pieces(Voltage(SMALL), cuts).tobytes() == whole.tobytes()


def test_a_later_stretch_needs_no_earlier_one(whole: np.ndarray) -> None:
    assert Voltage(SMALL)(1490, 3170).tobytes() == whole[1490:3170].tobytes()


def test_int16_is_the_same_voltage_in_whole_microvolts(whole: np.ndarray) -> None:
    rounded = Voltage(SimulatorSettings(**{**vars(SMALL), "format": "int16"}))(0, LENGTH)
    assert rounded.dtype == np.int16
    np.testing.assert_array_equal(rounded, np.rint(whole).astype(np.int16))


def test_without_noise_there_are_spikes_where_the_truth_says_and_nothing_else() -> None:
    quiet = SimulatorSettings(channel_count=1, seed=3, noise_uv=0, common_mode_uv=0, line_uv=0)
    truth = Truth(quiet)
    samples = np.concatenate([truth.spike_samples(trial)[1] for trial in range(4)])
    trace = Voltage(quiet, truth)(0, 4 * quiet.trial_samples)[:, 0]
    alone = samples[1:-1][(np.diff(samples)[:-1] > 80) & (np.diff(samples)[1:] > 80)]
    assert len(alone) > 10
    for spike in alone:
        near = trace[spike - 30 : spike + 40]
        assert near.argmin() == 30
        assert near.min() < -40
    far = np.ones(len(trace), bool)
    for spike in samples:
        far[max(0, spike - 15) : spike + 40] = False
    assert far.sum() > 1000
    assert not trace[far].any()


def test_a_spike_is_seen_on_several_channels_deepest_on_its_own() -> None:
    quiet = SimulatorSettings(seed=3, noise_uv=0, common_mode_uv=0, line_uv=0, unit_count=1, baseline_hz=30)
    truth = Truth(quiet)
    spike = int(truth.spike_samples(0)[1][0])
    depth = -Voltage(quiet, truth)(spike, spike + 1)[0]
    seen = np.flatnonzero(depth > 0.5)
    assert len(seen) >= 3
    assert depth.argmax() == 0
    assert seen.max() < 6


def test_noise_has_the_size_and_the_rank_that_the_settings_say() -> None:
    trace = Voltage(SimulatorSettings(channel_count=16, unit_count=0))(0, 60_000).astype(np.float64)
    values = np.sqrt(np.linalg.eigvalsh(np.cov(trace.T)))
    np.testing.assert_allclose(values[:-2], 8.0, rtol=0.05)  # each channel's own; common and line noise have rank one
    assert values[-1] > 120 * np.sqrt(16) * 0.7
    assert values[-2] > 10


def test_common_noise_reaches_into_the_band_of_spikes() -> None:
    trace = Voltage(SimulatorSettings(channel_count=2, unit_count=0, line_uv=0, noise_uv=0))(0, 60_000)[:, 0]
    power = np.abs(np.fft.rfft(trace)) ** 2
    frequency = np.fft.rfftfreq(len(trace), 1 / 30_000)
    assert power[(frequency > 300) & (frequency < 6000)].sum() / power.sum() > 0.1


def test_the_line_hums_at_its_frequency() -> None:
    only_line = SimulatorSettings(channel_count=2, unit_count=0, common_mode_uv=0, noise_uv=0, line_hz=60)
    trace = Voltage(only_line)(0, 30_000)[:, 0]
    power = np.abs(np.fft.rfft(trace)) ** 2
    assert set(np.argsort(power)[-3:]) == {60, 180, 300}
