"""Recordings as NWB files, read by pynwb and judged by nwbinspector."""

import json
import sys

import numpy as np
import pytest
from tests.unit.recording.live import LABELS
from tests.unit.recording.test_spike_times import RINGS, Peaks
from typer.testing import CliRunner

from neuroloop.cli import app
from neuroloop.config import parse_session
from neuroloop.errors import ConfigError, ModelError
from neuroloop.recording import XdfWriter, stream_header, to_nwb
from neuroloop.recording.spike_times import spike_times

pynwb = pytest.importorskip("pynwb")
nwb_series = pytest.importorskip("neuroloop.recording.nwb_series")

SRATE = 1000.0
FIRST = 5000.0
SAMPLES = 2500
BINS = 100
SUBJECT = {"id": "M7", "species": "Homo sapiens", "age": "P30Y", "sex": "F"}
VALUES = np.random.default_rng(0).integers(-3000, 3000, (SAMPLES, 3)).astype(np.int16)
RATES = np.random.default_rng(1).random((BINS, 3)).astype(np.float32)
SETTINGS = parse_session({"name": "s", "stream": {"name": "array"}, "classes": ["left", "right"]}).model_dump(
    mode="json"
)


def times(count=SAMPLES):
    return FIRST + np.arange(count) / SRATE


def add_array(writer, stamps, units=("microvolts",) * 3, type="Ephys", offset=0.0):
    channels = ["a", "b", "c"]
    header = stream_header(
        name="array", type=type, channels=channels, format="int16", nominal_srate=SRATE, units=units, source_id="amp"
    )
    stream = writer.add_stream(header)
    writer.clock_offset(stream, float(stamps[0]), offset)
    for start in range(0, len(stamps), 300):
        writer.samples(stream, stamps[start : start + 300], VALUES[start : start + 300])
    return stream


def add_text(writer, name, type, rows, channels=("text",)):
    stream = writer.add_stream(stream_header(name=name, type=type, channels=channels, format="string"))
    writer.samples(stream, [time for time, _ in rows], [row for _, row in rows])


def prediction(number):
    """Nothing for five bins, then a label; another version from bin 50 on."""
    index = None if number < 5 else number % 2
    return {
        "time": FIRST + 0.02 * (number + 1),
        "index": index,
        "scores": None if index is None else [1.0 - index, float(index)],
        "decoder": "reach",
        "role": "active",
        "model": {"name": "reach", "version": 1 if number < 50 else 2},
    }


@pytest.fixture
def session(tmp_path):
    """A recording as a session makes it."""
    path = tmp_path / "s-1.xdf"
    with XdfWriter(path) as writer:
        stream = add_array(writer, times())
        begun = {"kind": "session", "settings": SETTINGS, "is_fresh": False, "is_running": True}
        notes = [begun, {"kind": "ring", "ring": 0, "stream": stream, "first": 0}]
        add_text(writer, "s control", "neuroloop-control", [(FIRST - 0.5, [json.dumps(note)]) for note in notes])
        cues = [(FIRST + 0.1, ["go"]), (FIRST + 1.1, ["stop"])]
        add_text(writer, "cues", "Markers", cues)
        labels = [("left", 0.1, 0.6), ("right", 1.1, 1.6)]
        rows = [(FIRST + a, [label, repr(FIRST + a), repr(FIRST + b), "25"]) for label, a, b in labels]
        add_text(writer, "s labels", "Markers", rows, ("label", "start", "end", "bins"))
        ends = FIRST + 0.02 * np.arange(1, BINS + 1)
        rates = stream_header(name="s rates", type="neuroloop-rates", channels=["1", "2", "3"], format="float32")
        writer.samples(writer.add_stream(rates), ends, RATES)
        answers = [(end, [json.dumps(prediction(number))]) for number, end in enumerate(ends)]
        add_text(writer, "s predictions", "neuroloop-predictions", answers)
    return path


@pytest.fixture
def exported(tmp_path):
    """A function that exports a recording and reads it back."""
    opened = []

    def export(path, **options):
        target = tmp_path / f"{path.stem}.nwb"
        to_nwb(path, target, **options)
        opened.append(pynwb.NWBHDF5IO(str(target), "r"))
        return opened[-1].read()

    yield export
    for io in opened:
        io.close()


def stamps_of(series):
    if series.timestamps is not None:
        return series.timestamps[:]
    return series.starting_time + np.arange(len(series.data)) / series.rate


def test_voltages_are_as_recorded_with_electrodes_and_in_volts(session, exported):
    nwb = exported(session, subject=SUBJECT)
    array = nwb.acquisition["array"]
    assert array.data.dtype == np.int16
    np.testing.assert_array_equal(array.data[:], VALUES)
    assert (array.conversion, array.rate) == (1e-6, SRATE)
    np.testing.assert_allclose(stamps_of(array), times() - FIRST + 0.5, atol=1e-9)
    assert list(array.electrodes.to_dataframe()["channel_name"]) == ["a", "b", "c"]
    assert (nwb.subject.subject_id, nwb.session_id, nwb.units) == ("M7", "s-1", None)


def test_labels_are_trials_and_markers_stay_markers(session, exported):
    nwb = exported(session)
    trials = nwb.trials.to_dataframe()
    assert list(trials["label"]) == ["left", "right"]
    np.testing.assert_allclose(trials[["start_time", "stop_time"]], [[0.6, 1.1], [1.6, 2.1]], atol=1e-9)
    cues = nwb.events["cues"].to_dataframe()
    assert list(cues["annotation"]) == ["go", "stop"]
    np.testing.assert_allclose(cues["timestamp"], [0.6, 1.6], atol=1e-9)
    assert set(nwb.acquisition) == {"array"}


def test_rates_and_answers_are_series_at_the_ends_of_their_bins(session, exported):
    nwb = exported(session)
    ends = 0.5 + 0.02 * np.arange(1, BINS + 1)
    rates = nwb.processing["ecephys"]["rates"]
    np.testing.assert_array_equal(rates.data[:], RATES)
    assert rates.unit == "hertz"
    np.testing.assert_allclose(stamps_of(rates), ends, atol=1e-9)
    answers = nwb.processing["behavior"]
    labels, scores = answers["labels_reach"], answers["scores_reach"]
    assert labels.data[:8].tolist() == [-1] * 5 + [1, 0, 1]
    assert np.isnan(scores.data[:5]).all()
    assert scores.data[5:7].tolist() == [[0.0, 1.0], [1.0, 0.0]]
    np.testing.assert_allclose(stamps_of(labels), ends, atol=1e-9)
    models = nwb.events["models_reach"].to_dataframe()
    assert list(models["annotation"]) == ["reach@1, active", "reach@2, active"]
    np.testing.assert_allclose(models["timestamp"], ends[[0, 50]], atol=1e-9)


def test_a_pause_is_kept_in_timestamps_by_the_recorders_clock(tmp_path, exported):
    path, stamps = tmp_path / "paused.xdf", times()
    stamps[1000:] += 2.0
    with XdfWriter(path) as writer:
        add_array(writer, stamps, offset=-7.0)
    array = exported(path).acquisition["array"]
    assert array.rate is None
    np.testing.assert_allclose(array.timestamps[:], stamps - FIRST, atol=1e-9)


def test_units_that_differ_are_told_for_each_channel(tmp_path, exported):
    path = tmp_path / "units.xdf"
    with XdfWriter(path) as writer:
        add_array(writer, times(), units=("mV", "V", "microvolts"))
    assert exported(path).acquisition["array"].channel_conversion[:].tolist() == [1e-3, 1.0, 1e-6]


def test_positions_of_electrodes_are_in_micrometres(tmp_path, exported):
    path = tmp_path / "placed.xdf"
    header = stream_header(name="cap", type="EEG", channels=["Cz"], format="float32", nominal_srate=SRATE)
    place = "<location><X>1.5</X><Y>-2</Y><Z>90</Z></location></channel>"
    with XdfWriter(path) as writer:
        writer.samples(writer.add_stream(header.replace("</channel>", place)), times(10), np.ones((10, 1), np.float32))
    electrodes = exported(path).electrodes.to_dataframe()
    assert electrodes[["rel_x", "rel_y", "rel_z"]].iloc[0].tolist() == [1500.0, -2000.0, 90000.0]


def test_what_is_no_voltage_is_a_plain_series(tmp_path, exported):
    path = tmp_path / "counts.xdf"
    with XdfWriter(path) as writer:
        add_array(writer, times(), units=("", "", ""), type="Counts")
    nwb = exported(path)
    assert type(nwb.acquisition["array"]) is pynwb.TimeSeries
    assert "a, b, c" in nwb.acquisition["array"].comments
    assert nwb.electrodes is None


def test_a_stream_is_read_in_parts_and_never_whole(session, tmp_path, monkeypatch):
    monkeypatch.setattr(nwb_series, "CHUNK_BYTES", 600)
    monkeypatch.setattr(nwb_series, "PAGE", 500)
    largest = []
    read = nwb_series.XdfStream.read

    def spied(stream, start=0, stop=None):
        samples = read(stream, start, stop)
        if stream.name == "array":
            largest.append(len(samples.times))
        return samples

    monkeypatch.setattr(nwb_series.XdfStream, "read", spied)
    to_nwb(session, tmp_path / "parts.nwb")
    assert max(largest) <= 800
    with pynwb.NWBHDF5IO(str(tmp_path / "parts.nwb"), "r") as io:
        np.testing.assert_array_equal(io.read().acquisition["array"].data[:], VALUES)


@pytest.mark.parametrize(("subject", "missing"), [(SUBJECT, []), (None, ["check_subject_exists"])])
def test_the_inspector_finds_no_more_than_that_nobody_said_who_was_recorded(session, tmp_path, subject, missing):
    nwbinspector = pytest.importorskip("nwbinspector")
    to_nwb(session, tmp_path / "a.nwb", subject=subject)
    found = nwbinspector.inspect_nwbfile(nwbfile_path=tmp_path / "a.nwb")
    harmless = nwbinspector.Importance.BEST_PRACTICE_SUGGESTION
    assert [message.check_function_name for message in found if message.importance != harmless] == missing


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"age": "90"}, "as P30Y or P90D, got '90'"), ({"age": "P"}, "got 'P'"), ({"sex": "x"}, "one of F, M, O, U")],
)
def test_a_subject_that_archives_would_refuse_is_refused(session, tmp_path, changes, words):
    with pytest.raises(ConfigError, match=words):
        to_nwb(session, tmp_path / "a.nwb", subject=SUBJECT | changes)
    with pytest.raises(ConfigError, match="expected id, species, age, sex; got id"):
        to_nwb(session, tmp_path / "a.nwb", subject={"id": "M7"})


@pytest.fixture
def counted(tmp_path, monkeypatch):
    """A recording of a session that counts spikes, of which some are known, with a hole."""
    monkeypatch.setattr("neuroloop.logs.configure_log", lambda level: None)
    (tmp_path / "recordings").mkdir()
    live = Peaks(tmp_path / "recordings", **RINGS, stream={"name": "x", "channels": list(LABELS[1:])})
    live.peaks = {(600, 1), (700, 1), (1500, 3)}
    live.send(1010)
    live.send(990, missing=30)
    return live.end()


def test_units_are_the_spikes_of_each_channel_at_the_times_of_their_samples(counted, exported):
    nwb = exported(counted, find_spikes=spike_times)
    units = nwb.units.to_dataframe()
    assert list(units["channel_name"]) == list(LABELS[1:])
    raw = nwb.acquisition["x"]
    stamps = stamps_of(raw)
    peaks = [[int(np.argmin(np.abs(stamps - time))) for time in times] for times in units["spike_times"]]
    assert peaks == [[600, 700], [], [1470]]  # rows: 30 samples did not come
    for column, rows in enumerate(peaks, start=1):
        assert (raw.data[:][rows, column] == -100).all()
        np.testing.assert_allclose(units["spike_times"].iloc[column - 1], stamps[rows], atol=1e-6)
        assert units["electrodes"].iloc[column - 1]["channel_name"].tolist() == [LABELS[column]]
    (before, after) = units["obs_intervals"].iloc[0] - stamps[0]
    np.testing.assert_allclose(before[1], 1.0, atol=1e-6)
    assert 1.04 < after[0] < 1.2
    assert nwb.units.resolution == 1e-3
    assert "not sorted" in nwb.units.description


def test_the_inspector_finds_nothing_in_units(counted, tmp_path):
    nwbinspector = pytest.importorskip("nwbinspector")
    to_nwb(counted, tmp_path / "a.nwb", subject=SUBJECT, find_spikes=spike_times)
    found = nwbinspector.inspect_nwbfile(nwbfile_path=tmp_path / "a.nwb")
    harmless = nwbinspector.Importance.BEST_PRACTICE_SUGGESTION
    assert [message for message in found if message.importance != harmless] == []


def test_the_command_finds_units_and_leaves_them_out_if_told(counted, session, tmp_path):
    def units(recording, *options):
        target = tmp_path / f"{len(list(tmp_path.glob('*.nwb')))}.nwb"
        done = CliRunner().invoke(app, ["recordings", "export", str(recording), str(target), *options])
        assert (done.exit_code, target.exists()) == (0, True)
        with pynwb.NWBHDF5IO(str(target), "r") as io:
            found = io.read().units
            return done.stderr, None if found is None else [len(times) for times in found["spike_times"][:]]

    assert units(counted) == ("", [2, 0, 1])
    assert units(counted, "--no-units") == ("", None)
    told, found = units(session)
    assert found is None
    assert "without units: replay: the recording began while the session was running" in told


def test_units_have_electrodes_where_their_stream_is_not_written(counted, exported, monkeypatch):
    monkeypatch.setattr("neuroloop.recording.nwb_export.chosen_streams", lambda file, which: [])
    nwb = exported(counted, find_spikes=spike_times)
    assert set(nwb.acquisition) == set()
    assert nwb.units["electrodes"][2]["channel_name"].tolist() == [LABELS[3]]


def test_a_stream_that_is_not_there_is_refused_and_leaves_no_file(session, tmp_path):
    with pytest.raises(ModelError, match="expected stream 'emg' of numbers with samples; the file has 1 \\('array'\\)"):
        to_nwb(session, tmp_path / "a.nwb", stream="emg")
    assert not (tmp_path / "a.nwb").exists()


def test_without_pynwb_the_error_says_what_to_install(session, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynwb", None)
    with pytest.raises(ModelError, match=r"pip install 'neuroloop\[nwb\]'"):
        to_nwb(session, tmp_path / "a.nwb")


def test_the_command_names_the_file_as_bids_does(session, tmp_path):
    arguments = ["recordings", "export", session, tmp_path / "set", "--bids", "sub-M7_ses-02_task-reach"]
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    target = tmp_path / "set/sub-M7/ses-02/ecephys/sub-M7_ses-02_task-reach_ecephys.nwb"
    assert (done.exit_code, done.stdout) == (0, f"{target}\n")
    assert done.stderr.startswith("without units: replay: the recording began while the session was running")
    subject = [part for key, value in SUBJECT.items() for part in ("--subject", f"{key}={value}")]
    named = ["recordings", "export", session, tmp_path / "a.nwb", "--stream", "array", *subject, "--no-units"]
    assert CliRunner().invoke(app, [str(argument) for argument in named]).exit_code == 0
    with pynwb.NWBHDF5IO(str(tmp_path / "a.nwb"), "r") as io:
        assert io.read().subject.sex == "F"
    assert CliRunner().invoke(app, [str(argument) for argument in named]).exit_code == 1
