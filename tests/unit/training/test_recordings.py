import numpy as np
import pytest
from pydantic import ValidationError

from neuroloop.errors import ModelError
from neuroloop.recording.writer import XdfWriter, stream_header
from neuroloop.training.process import fit
from neuroloop.training.recording_files import find
from neuroloop.training.recordings import read
from neuroloop.training.request import FitRequest
from neuroloop_sources.loaders import open_source

SRATE, TRIAL_S, TRIALS = 128, 2.0, 24


def request(name, kind="maxrate", **more):
    recording = {"name": name, **more.pop("recording", {})}
    return FitRequest.model_validate({"name": "eeg", "kind": kind, "source": {"recording": recording}} | more)


def ignore(_progress, _loss):
    return None


@pytest.fixture(scope="module")
def eeg(tmp_path_factory):
    """A recording in which a rhythm of 10 Hz is on one of two channels, as the markers say; with a hole of 5 s."""
    generator = np.random.default_rng(4)
    samples = int(TRIALS * TRIAL_S * SRATE)
    data = generator.standard_normal((2, samples))
    rhythm = 4 * np.sin(2 * np.pi * 10 * np.arange(samples) / SRATE)
    events = (np.arange(TRIALS) * TRIAL_S * SRATE).astype(int)
    for trial, start in enumerate(events):
        data[trial % 2, start : start + int(TRIAL_S * SRATE)] += rhythm[start : start + int(TRIAL_S * SRATE)]
    times = np.arange(samples) / SRATE
    times[samples // 2 :] += 5.0
    path = tmp_path_factory.mktemp("recordings") / "eeg.npz"
    np.savez(
        path,
        data=data,
        fs=np.array(SRATE),
        ch_names=np.array(["left ear", "right ear"]),
        timestamps=times,
        run_start_sample=np.array([0]),
        event_sample=events,
        event_label=np.arange(TRIALS) % 2,
        label_names=np.array(["L", "R"]),
    )
    return path


BANDPOWER = {"front_end": {"kind": "bandpower", "bands": {"alpha": [8, 13]}}, "bin_ms": 125, "interval": [0.5, 1.9]}


def test_a_decoder_is_fitted_from_the_markers_and_the_band_power_of_a_recording(eeg):
    asked = request("eeg.npz", recording=BANDPOWER | {"labels": {"L": "left", "R": "right"}})
    data = read(eeg, asked)
    assert data["classes"].tolist() == ["left", "right"]
    assert data["rates"].shape == (TRIALS * TRIAL_S / 0.125, 2)
    assert len(np.unique(data["trial_numbers"])) == TRIALS + 1
    fitted = fit(asked, data, ignore)
    assert fitted.metrics["accuracy"] == 1.0
    assert fitted.about["channels"] == ["left ear", "right ear"]


def test_spatial_patterns_are_fitted_from_the_covariance_of_a_recording_and_rates_are_not(eeg):
    pairs = {"front_end": {"kind": "covariance", "bands": {"alpha": [8, 13]}}, "bin_ms": 125, "interval": [0.5, 1.9]}
    asked = request("eeg.npz", kind="csp", recording=pairs)
    data = read(eeg, asked)
    assert data["rates"].shape[1] == 3
    assert fit(asked, data, ignore).metrics["accuracy"] == 1.0
    for kind, front_end, words in (
        ("maxrate", pairs, "kind: maxrate takes rates"),
        ("csp", BANDPOWER, "kind: csp takes the front end covariance, got bandpower"),
        ("ridge", BANDPOWER, "ridge needs continuous targets; upload arrays"),
    ):
        with pytest.raises(ValidationError, match=words):
            request("eeg.npz", kind=kind, recording=front_end)


def test_a_hole_in_the_recorded_times_ends_a_window(eeg):
    times = read(eeg, request("eeg.npz", recording=BANDPOWER))["times"]
    steps = np.diff(times)
    assert np.count_nonzero(steps > 1.5 * np.median(steps)) == 1
    assert steps.max() == pytest.approx(5.125)


def test_an_xdf_file_gives_the_data_that_the_same_recording_gives_as_an_archive(eeg, tmp_path):
    recording = open_source(str(eeg))
    path = tmp_path / "session.xdf"
    with XdfWriter(path) as writer:
        channels = {"channels": recording.channels, "format": "float32", "nominal_srate": SRATE}
        stream = writer.add_stream(stream_header(name="headset", type="EEG", **channels))
        writer.add_stream(stream_header(name="other", type="EEG", **channels))
        writer.samples(2, [0.0], np.zeros((1, 2), np.float32))
        cues = writer.add_stream(stream_header(name="cues", type="Markers", channels=["cue"], format="string"))
        times = recording.times(0, recording.sample_count)
        for start in range(0, recording.sample_count, 100):
            stop = min(start + 100, recording.sample_count)
            writer.samples(stream, times[start:stop], recording.read(start, stop))
        markers = [(times[round(seconds * SRATE)], [text]) for seconds, text in recording.markers]
        writer.samples(cues, [time for time, _ in markers], [text for _, text in markers])
    expected = read(eeg, request("eeg.npz", recording=BANDPOWER))
    found = read(path, request(path.name, recording=BANDPOWER | {"stream": "headset"}))
    assert found.keys() == expected.keys()
    for name, array in found.items():
        np.testing.assert_array_equal(array, expected[name], err_msg=name)
    with pytest.raises(ModelError, match=r"recording 'session\.xdf': .*several streams can be meant"):
        read(path, request(path.name, recording=BANDPOWER))
    assert find(tmp_path, path.name) == path


def test_a_recording_without_two_labels_is_refused(eeg):
    asked = request("eeg.npz", recording=BANDPOWER | {"labels": {"L": "left"}})
    with pytest.raises(ModelError, match="two labels or more, got: left"):
        read(eeg, asked)
    with pytest.raises(ModelError, match=r"recording 'eeg\.npz': run: "):
        read(eeg, request("eeg.npz", recording=BANDPOWER | {"run": 9}))
    with pytest.raises(ModelError, match=r"alpha: got \[8, 130\]"):
        read(eeg, request("eeg.npz", recording={"front_end": {"kind": "bandpower", "bands": {"alpha": [8, 130]}}}))


@pytest.mark.parametrize(
    "name", ["../server.yaml", "/etc/passwd", "eeg.npz/..", "missing.npz", "notes.txt", "a\0.npz", "é" * 200 + ".npz"]
)
def test_only_recordings_in_the_folder_of_recordings_are_read(eeg, name):
    (eeg.parent / "notes.txt").write_text("not a recording")
    with pytest.raises(ModelError, match="recording: expected"):
        find(eeg.parent, name)
    assert find(eeg.parent, "eeg.npz") == eeg


@pytest.mark.realdata
def test_places_are_decoded_from_hippocampal_cells_that_a_rat_has_run_past(recordings):
    path = recordings / "hc_linear_track.npz"
    asked = request(path.name, "poisson", recording={"rate": 50}, held_out=0.3)
    fitted = fit(asked, read(path, asked), ignore)
    assert len(fitted.about["classes"]) == 8
    assert fitted.metrics["accuracy"] > 0.4  # 0.125 by chance
