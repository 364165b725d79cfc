"""Recordings from files."""

import sys
from collections import Counter
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from neuroloop_sources import SourceError
from neuroloop_sources.loaders import open_source


@pytest.fixture
def mirror(recordings: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("NEUROLOOP_DATA", str(recordings))
    return recordings


@pytest.mark.realdata
@pytest.mark.usefixtures("mirror")
def test_eegbci_is_read_in_microvolts_with_its_annotations() -> None:
    recording = open_source("eegbci", subject=1, runs=[6])
    assert (recording.name, recording.type, recording.nominal_srate) == ("S001R06", "EEG", 160.0)
    assert len(recording.channels) == len(recording.positions_mm) == 64
    assert recording.channels[:3] == ("FC5", "FC3", "FC1")
    assert set(recording.units) == {"microvolts"}
    assert Counter(text for _, text in recording.markers) == {"T0": 15, "T1": 7, "T2": 8}
    assert 10 < np.abs(recording.read(0, 1600)).mean() < 200


@pytest.mark.realdata
def test_an_edf_file_reads_the_same_in_any_pieces(recordings: Path) -> None:
    file = recordings / "MNE-eegbci-data/files/eegmmidb/1.0.0/S001/S001R01.edf"
    recording = open_source(str(file))
    whole = recording.read(0, recording.sample_count)
    assert whole.shape == (9600, 64)
    edges = [0, 3, 1599, 1601, 4800, 9600]
    parts = [recording.read(a, b) for a, b in pairwise(edges)]
    assert np.concatenate(parts).tobytes() == whole.tobytes()


@pytest.mark.realdata
@pytest.mark.usefixtures("mirror")
def test_several_runs_of_eegbci_are_one_after_the_other() -> None:
    both = open_source("eegbci", runs=[1, 2])
    assert both.sample_count == 2 * 9600
    assert both.markers == ((0.0, "T0"), (60.0, "T0"))


@pytest.mark.realdata
def test_a_run_of_the_muse_archive_has_its_flicker_markers_and_lsl_times(recordings: Path) -> None:
    recording = open_source(str(recordings / "muse_ssvep_subject1.npz"), runs=[2])
    assert recording.channels == ("TP9", "AF7", "AF8", "TP10", "Right AUX")
    assert (recording.nominal_srate, recording.sample_count) == (256.0, 30720)
    assert {text for _, text in recording.markers} == {"20Hz", "30Hz"}
    assert recording.times is not None
    assert recording.times(0, 1)[0] == 0
    assert recording.times(30719, 30720)[0] == pytest.approx(120, abs=0.2)


@pytest.mark.realdata
def test_the_track_archive_becomes_counts_that_tell_where_the_animal_runs(recordings: Path) -> None:
    recording = open_source(str(recordings / "hc_linear_track.npz"))
    assert (recording.nominal_srate, len(recording.channels), recording.format) == (50.0, 31, "int16")
    labels = sorted({text for _, text in recording.markers})
    assert labels == [f"p{part}-{way}" for part in range(4) for way in ("in", "out")]
    windows = [round(seconds * 50) for seconds, _ in recording.markers]
    counts = np.stack([recording.read(start, start + 25).sum(axis=0) for start in windows]).astype(float)
    index = np.array([labels.index(text) for _, text in recording.markers])
    folds = np.array_split(np.arange(len(index)), 10)
    right = 0
    for fold in folds:
        others = np.setdiff1d(np.arange(len(index)), fold)
        rates = np.stack([counts[others][index[others] == k].mean(axis=0) for k in range(8)]) + 0.02
        right += int(((counts[fold] @ np.log(rates).T - rates.sum(axis=1)).argmax(axis=1) == index[fold]).sum())
    assert right / len(index) == pytest.approx(0.61, abs=0.03)  # what the data's description says


@pytest.mark.realdata
def test_no_spike_is_lost_at_another_rate(recordings: Path) -> None:
    file = str(recordings / "hc_linear_track.npz")
    coarse, fine = open_source(file, rate=10), open_source(file)
    total = coarse.read(0, 9800).sum(axis=0)
    np.testing.assert_array_equal(fine.read(0, 49_000).sum(axis=0), total)
    assert total.sum() > 10_000


@pytest.mark.realdata
def test_the_stimulus_archive_has_stimulus_and_spike_counts(recordings: Path) -> None:
    recording = open_source(str(recordings / "grasshopper_auditory_lnp.npz"), runs=[2])
    samples = recording.read(0, recording.sample_count)
    assert (recording.nominal_srate, samples.shape) == (1000.0, (10_000, 2))
    assert samples[:, 1].sum() == 868


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"missing\.edf: no such file"):
        open_source(str(tmp_path / "missing.edf"))


@pytest.mark.parametrize("name", ["notes.txt", "broken.npz", "broken.edf"])
def test_a_file_that_is_no_recording_is_named_in_one_line(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("nothing of the kind\n")
    with pytest.raises(SourceError, match=name) as caught:
        open_source(str(tmp_path / name))
    assert "\n" not in str(caught.value)


def test_an_archive_of_an_unknown_form_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    with pytest.raises(SourceError, match=r"it holds a; known are: eeg .* track .* stimulus"):
        open_source(str(tmp_path / "other.npz"))


def test_without_mne_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "mne", None)
    with pytest.raises(SourceError, match=r"neuroloop\[datasets\]"):
        open_source("eegbci")


@pytest.mark.parametrize(("subject", "run"), [(0, 1), (110, 1), (1, 15)])
def test_a_subject_or_run_that_eegbci_does_not_have_is_refused(subject: int, run: int) -> None:
    with pytest.raises(SourceError, match="expected 1 to"):
        open_source("eegbci", subject=subject, runs=[run])
