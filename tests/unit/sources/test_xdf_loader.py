"""XDF files as recordings."""

from pathlib import Path

import numpy as np
import pytest
from tests import xdf_files as made

from neuroloop_sources import SourceError
from neuroloop_sources.loaders import open_source
from neuroloop_sources.player import make_feed
from neuroloop_sources.recordings import pauses

SRATE = 100.0
VALUES = made.values(np.random.default_rng(0), 300, "int16")
CUES = [("left", 4.995), ("right", 5.5), ("late", 9.0)]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """An EEG stream from second 5 by a clock 1000 s behind, with a pause of 2 s after its first second, and markers."""
    times = 5 + np.arange(300) / SRATE
    times[100:] += 2
    data = made.file_header()
    data += made.header(1, "eeg", "int16", srate=SRATE, units=("microvolts", "µV"))
    data += made.header(2, "cues", "string", 1, 0.0, type="Markers")
    data += made.header(3, "triggers", "int32", 1, 0.0, type="markers")
    data += made.header(4, "empty", srate=SRATE)
    data += made.header(5, "log", "string", 1, 0.0, type="Log") + made.samples(5, [1006.0], [["not a marker"]])
    data += made.clock_offset(1, 5.0, 1000.0)
    for start in range(0, 300, 25):
        data += made.samples(1, times[start : start + 25] - 1e-12, VALUES[start : start + 25])
    data += made.samples(2, [1000 + time for _, time in CUES], [[text] for text, _ in CUES])
    data += made.samples(3, [1007.0], np.array([[7]], np.int32))
    path = tmp_path / "session.xdf"
    path.write_bytes(data)
    return path


def test_the_only_stream_that_can_be_played_is_read_with_its_labels_and_format(file: Path) -> None:
    recording = open_source(str(file))
    assert (recording.name, recording.type, recording.nominal_srate, recording.format) == ("eeg", "EEG", SRATE, "int16")
    assert (recording.channels, recording.units) == (("eeg0", "eeg1"), ("microvolts", "µV"))
    assert recording.sample_count == 300
    assert recording.read(90, 120).tobytes() == VALUES[90:120].tobytes()


def test_markers_are_at_their_place_among_the_samples_by_the_synchronised_clocks(file: Path) -> None:
    """Of the pause there are no samples; a marker in the middle of it is half-way between those around it."""
    markers = open_source(str(file)).markers
    assert [text for _, text in markers] == ["left", "right", "7", "late"]
    expected = [-0.005, 0.5, 0.99 + 0.01 * 1.01 / 2.01, 2.0]
    np.testing.assert_allclose([seconds for seconds, _ in markers], expected, atol=1e-6)


def test_markers_of_one_stream_alone_can_be_asked_for(file: Path) -> None:
    """Of a sample of several channels, the first one is the marker."""
    labels = made.header(6, "labels", "string", 2, 0.0, type="Markers")
    file.write_bytes(file.read_bytes() + labels + made.samples(6, [1005.25], [["rest", "1005.75"]]))
    texts = {
        which: [text for _, text in open_source(str(file), markers=which).markers] for which in ("labels", "2", "log")
    }
    assert texts == {"labels": ["rest"], "2": ["left", "right", "late"], "log": ["not a marker"]}
    assert len(open_source(str(file)).markers) == 5
    with pytest.raises(SourceError, match="no stream 'cue'"):
        open_source(str(file), markers="cue")


def test_recorded_times_are_the_synchronised_ones(file: Path) -> None:
    feed = make_feed(open_source(str(file)), recorded_times=True)
    assert feed.offsets is not None
    np.testing.assert_allclose(feed.offsets(99, 102), [0.99, 3.0, 3.01], atol=1e-6)
    assert feed.samples(0, 300).tobytes() == VALUES.tobytes()


def test_where_several_streams_can_be_meant_one_is_named(file: Path) -> None:
    more = made.header(9, "array", srate=30_000.0) + made.samples(9, [1.0], np.ones((1, 2), np.float32))
    file.write_bytes(file.read_bytes() + more)
    with pytest.raises(
        SourceError, match=r"several streams can be meant; name one; the file has 1: 'eeg', EEG, 2 x int16"
    ):
        open_source(str(file))
    assert open_source(str(file), stream="array").nominal_srate == 30_000
    assert open_source(str(file), stream="9").name == "array"


@pytest.mark.parametrize(
    ("stream", "words"),
    [("cues", "it is text"), ("triggers", "it has no nominal rate"), ("4", "it is empty"), ("eog", "no stream 'eog'")],
)
def test_a_stream_that_cannot_be_played_is_refused_with_the_reason(file: Path, stream: str, words: str) -> None:
    with pytest.raises(SourceError, match=words):
        open_source(str(file), stream=stream)


def test_a_file_without_such_a_stream_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.xdf"
    path.write_bytes(made.file_header() + made.header(2, "cues", "string", 1, 0.0))
    with pytest.raises(SourceError, match=r"no stream of samples at a regular rate; the file has 2: 'cues'"):
        open_source(str(path))


def test_runs_and_streams_are_asked_only_of_what_has_them(file: Path) -> None:
    with pytest.raises(SourceError, match=r"run: .* has no runs"):
        open_source(str(file), runs=[1])
    with pytest.raises(SourceError, match=r"stream: only for \.xdf files"):
        open_source("eegbci", stream="eeg")


def test_electrode_positions_are_read_where_every_channel_has_one(tmp_path: Path) -> None:
    places = [(0.0, 0.04, 1.5), (-1.0, 2.0, 0.0)]
    head = made.header(1, "array")
    for label, place in zip(("array0", "array1"), places, strict=True):
        axes = "".join(f"<{axis}>{value}</{axis}>" for axis, value in zip("XYZ", place, strict=True))
        text = f"<label>{label}</label>"
        head = head.replace(text.encode(), f"{text}<location>{axes}</location>".encode())
    head = made.chunk(2, head[head.index(b"\1\0\0\0<?xml") :])
    path = tmp_path / "a.xdf"
    path.write_bytes(made.file_header() + head + made.samples(1, [1.0], np.ones((1, 2), np.float32)))
    assert open_source(str(path)).positions_mm == tuple(places)


def test_a_pause_is_told_from_jitter_and_from_a_clock_that_goes_back() -> None:
    regular = np.arange(1000) / SRATE
    late = regular.copy()
    late[300:] += 0.01
    late[600:] += 5
    missing = pauses(late, 1 / SRATE)
    assert np.flatnonzero(missing).tolist() == [300, 600]
    np.testing.assert_allclose(missing[[300, 600]], [0.01, 5])
    jittered = late + 0.02 * np.random.default_rng(0).uniform(size=1000)
    missing = pauses(jittered, 1 / SRATE)
    assert np.flatnonzero(missing).tolist() == [600]
    assert missing[600] == pytest.approx(5, abs=0.03)
    back = regular.copy()
    back[500:] -= 100
    assert np.flatnonzero(pauses(back, 1 / SRATE)).tolist() == [500]
    assert not pauses(regular * 1.001, 1 / SRATE).any()
