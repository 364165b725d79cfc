"""Recordings as MNE has them."""

import sys

import numpy as np
import pytest

from neuroloop.errors import ModelError
from neuroloop.recording import XdfWriter, stream_header, to_mne
from neuroloop.recording.mne_export import LONGEST_PAUSE_S

mne = pytest.importorskip("mne")

SRATE = 200.0
VALUES = np.random.default_rng(0).normal(0, 20, (1000, 3)).astype(np.float32)


def record(path, times, *, type="EEG", units=("microvolts", "mV", "V"), cues=(), offset=0.0):
    with XdfWriter(path) as writer:
        array = writer.add_stream(
            stream_header(
                name="eeg", type=type, channels=["Fp1", "Cz", "Oz"], format="float32", nominal_srate=SRATE, units=units
            )
        )
        markers = writer.add_stream(stream_header(name="cues", type="Markers", channels=["cue"], format="string"))
        writer.clock_offset(array, float(times[0]), offset)
        for start in range(0, len(times), 64):
            writer.samples(array, times[start : start + 64], VALUES[start : start + 64])
        for time, text in cues:
            writer.samples(markers, [time + offset], [[text]])
    return path


def marks(raw):
    return [(round(mark["onset"], 9), round(mark["duration"], 9), mark["description"]) for mark in raw.annotations]


def test_voltages_are_in_volts_under_their_labels_with_the_markers_in_seconds(tmp_path):
    times = 40 + np.arange(1000) / SRATE
    cues = [(39.0, "before"), (40.5, "left"), (41.0025, "right"), (50.0, "after")]
    raw = to_mne(record(tmp_path / "a.xdf", times, cues=cues, offset=-7.0))
    assert raw.ch_names == ["Fp1", "Cz", "Oz"]
    assert raw.get_channel_types() == ["eeg"] * 3
    assert raw.info["sfreq"] == SRATE
    np.testing.assert_allclose(raw.get_data(), (VALUES * [1e-6, 1e-3, 1]).T, rtol=1e-12)
    assert marks(raw) == [(0.5, 0.0, "left"), (1.0025, 0.0, "right")]


def test_a_pause_is_filled_and_marked_and_what_follows_is_at_its_time(tmp_path):
    times = np.arange(1000) / SRATE
    times[300:] += 0.005
    times[600:] += 2.0
    cues = [(times[299], "before"), (times[600] - 1.0, "within"), (times[700], "behind")]
    raw = to_mne(record(tmp_path / "a.xdf", times, cues=cues))
    data = raw.get_data()
    assert raw.n_times == 1000 + 1 + 400
    assert not data[:, 300].any()
    assert not data[:, 601:1001].any()
    np.testing.assert_allclose(data[0, np.r_[:300, 301:601, 1001:1401]], VALUES[:, 0] * np.float64(1e-6), rtol=1e-6)
    assert marks(raw) == [
        (1.495, 0.0, "before"),
        (1.5, 0.005, "BAD_ACQ_SKIP"),
        (3.005, 2.0, "BAD_ACQ_SKIP"),
        (round(times[600] - 1.0, 9), 0.0, "within"),
        (round(times[700], 9), 0.0, "behind"),
    ]


def test_a_clock_that_goes_back_and_a_pause_of_days_are_marked_and_not_filled(tmp_path):
    times = 1000 + np.arange(1000) / SRATE
    times[300:] -= 500
    times[600:] += 3 * LONGEST_PAUSE_S
    raw = to_mne(record(tmp_path / "a.xdf", times))
    assert raw.n_times == 1000
    assert marks(raw) == [(1.5, 0.0, "BAD boundary"), (3.0, 0.0, "BAD boundary")]


def test_jitter_is_no_pause(tmp_path):
    times = np.arange(1000) / SRATE + np.random.default_rng(0).uniform(0, 0.02, 1000)
    raw = to_mne(record(tmp_path / "a.xdf", times))
    assert raw.n_times == 1000
    assert not len(raw.annotations)


def test_channels_of_a_type_that_mne_does_not_know_keep_their_values(tmp_path):
    raw = to_mne(record(tmp_path / "a.xdf", np.arange(1000) / SRATE, type="Ephys"))
    assert raw.get_channel_types() == ["misc"] * 3
    np.testing.assert_array_equal(raw.get_data(), VALUES.T)


def test_a_stream_that_is_not_there_is_refused(tmp_path):
    path = record(tmp_path / "a.xdf", np.arange(1000) / SRATE)
    with pytest.raises(ModelError, match="no stream 'emg'"):
        to_mne(path, "emg")


def test_without_mne_the_error_says_what_to_install(tmp_path, monkeypatch):
    path = record(tmp_path / "a.xdf", np.arange(1000) / SRATE)
    monkeypatch.setitem(sys.modules, "mne", None)
    with pytest.raises(ModelError, match=r"pip install 'neuroloop\[datasets\]'"):
        to_mne(path)
