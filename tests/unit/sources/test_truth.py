"""The truth of a simulated session."""

from pathlib import Path

import numpy as np
import pytest

from neuroloop_sources import CLASSES, SimulatorSettings, SourceError, Truth


@pytest.fixture
def truth() -> Truth:
    return Truth(SimulatorSettings(seed=5))


def test_the_same_seed_gives_the_same_session_in_whatever_order_it_is_asked_for(truth: Truth) -> None:
    again = Truth(SimulatorSettings(seed=5))
    backwards = {trial: again.spike_samples(trial) for trial in reversed(range(20))}
    for trial in range(20):
        for ours, theirs in zip(truth.spike_samples(trial), backwards[trial], strict=True):
            np.testing.assert_array_equal(ours, theirs)
        assert truth.label(trial) == again.label(trial)


def test_another_seed_gives_another_session(truth: Truth) -> None:
    other = Truth(SimulatorSettings(seed=6))
    assert [truth.direction(t) for t in range(40)] != [other.direction(t) for t in range(40)]
    assert not np.array_equal(truth.preferred, other.preferred)
    assert len(truth.spike_samples(0)[0]) != len(other.spike_samples(0)[0])


def test_a_trial_hours_ahead_costs_no_more_than_the_first(truth: Truth) -> None:
    trial = 10 * 3600 * 100
    _, samples = truth.spike_samples(trial)
    assert samples.min() >= trial * 18_000
    assert samples.max() < (trial + 1) * 18_000


def test_every_eight_trials_cue_each_direction_once(truth: Truth) -> None:
    for block in range(12):
        assert sorted(truth.direction(8 * block + k) for k in range(8)) == list(range(8))


def test_the_label_of_a_sample_is_that_of_its_trial(truth: Truth) -> None:
    assert truth.label_at(0) == truth.label_at(17_999) == truth.label(0)
    assert truth.label_at(18_000) == truth.label(1) == CLASSES[truth.direction(1)]


def test_tuning_is_von_mises_about_the_preferred_direction(truth: Truth) -> None:
    angles = np.arange(8) * np.pi / 4
    rates = np.stack([truth.rates(k) for k in range(8)])
    expected = truth.baselines * (1 + 8 * np.exp(2.5 * (np.cos(angles[:, None] - truth.preferred) - 1)))
    np.testing.assert_allclose(rates, expected)
    off = np.abs(np.angle(np.exp(1j * (angles[rates.argmax(axis=0)] - truth.preferred))))
    assert off.max() <= np.pi / 8 + 1e-9


def test_baselines_are_lognormal() -> None:
    logs = np.log(Truth(SimulatorSettings(unit_count=20_000, baseline_hz=4, baseline_spread=0.4)).baselines)
    assert logs.mean() == pytest.approx(np.log(4), abs=0.02)
    assert logs.std() == pytest.approx(0.4, abs=0.02)
    assert ((logs - logs.mean()) ** 3).mean() / logs.std() ** 3 == pytest.approx(0, abs=0.1)


def test_spike_counts_are_poisson_with_the_true_rates() -> None:
    truth = Truth(SimulatorSettings(seed=1, unit_count=40))
    trials = range(400)
    counts = np.stack([truth.counts(trial) for trial in trials])
    expected = np.stack([truth.rates(truth.direction(trial)) * 0.6 for trial in trials])
    deviation = (counts - expected) / np.sqrt(expected)
    assert deviation.mean() == pytest.approx(0, abs=0.03)
    assert deviation.var() == pytest.approx(1, abs=0.04)


def test_spikes_come_in_order_and_evenly_over_the_trial(truth: Truth) -> None:
    places = []
    for trial in range(30):
        units, samples = truth.spike_samples(trial)
        assert np.all(np.diff(samples) >= 0)
        assert units.max() < 96
        places.append(samples - trial * 18_000)
    share = np.histogram(np.concatenate(places), bins=6, range=(0, 18_000))[0] / sum(map(len, places))
    np.testing.assert_allclose(share, 1 / 6, atol=0.01)


def test_counts_of_a_part_of_a_trial_are_those_of_the_spikes_in_it(truth: Truth) -> None:
    units, samples = truth.spike_samples(3)
    inside = (samples >= 3 * 18_000 + 3000) & (samples < 3 * 18_000 + 15_000)
    np.testing.assert_array_equal(truth.counts(3, 0.1, 0.5), np.bincount(units[inside], minlength=96))
    np.testing.assert_array_equal(truth.counts(3, 0.0, 0.3) + truth.counts(3, 0.3), truth.counts(3))


def test_the_ideal_decoder_is_hardly_ever_wrong_and_guesses_without_evidence(truth: Truth) -> None:
    right = [truth.ideal_decode(trial, 0.1, 0.6) == truth.label(trial) for trial in range(200)]
    assert np.mean(right) >= 0.97
    few = Truth(SimulatorSettings(unit_count=2))
    assert np.mean([few.ideal_decode(trial, 0.1, 0.2) == few.label(trial) for trial in range(400)]) < 0.6


def test_what_is_saved_is_the_truth(truth: Truth, tmp_path: Path) -> None:
    truth.save(tmp_path / "truth.npz", 5)
    with np.load(tmp_path / "truth.npz", allow_pickle=False) as saved:
        assert saved["trial_label"].tolist() == [truth.label(trial) for trial in range(5)]
        fourth = (saved["spike_sample"] >= saved["trial_start_sample"][3]) & (
            saved["spike_sample"] < saved["trial_start_sample"][4]
        )
        np.testing.assert_array_equal(saved["spike_unit"][fourth], truth.spike_samples(3)[0])
        np.testing.assert_array_equal(saved["spike_sample"][fourth], truth.spike_samples(3)[1])
        np.testing.assert_array_equal(saved["rates_hz"][2], truth.rates(2))


@pytest.mark.parametrize(
    ("key", "value"),
    [("channel_count", 0), ("nominal_srate", 0), ("trial_s", -1), ("format", "int8"), ("noise_uv", -1), ("name", "")],
)
def test_a_setting_that_cannot_be_is_refused_by_name(key: str, value: object) -> None:
    with pytest.raises(SourceError, match=key):
        SimulatorSettings(**{key: value})
