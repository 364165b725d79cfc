"""Files that a crash left open, and what they are after their repair."""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import xdf_files as made

from neuroloop.errors import Conflict, ModelError
from neuroloop.recording.reader import XdfFile
from neuroloop.recording.repair import repair
from neuroloop.recording.writer import XdfWriter, stream_header

CHANNELS = ["a", "b"]


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """A recording without its footers, as bytes, and where they would begin."""
    path = tmp_path_factory.mktemp("repair") / "whole.xdf"
    generator = np.random.default_rng(0)
    with XdfWriter(path) as writer:
        array = writer.add_stream(stream_header(name="array", type="EEG", channels=CHANNELS, format="int16"))
        markers = writer.add_stream(stream_header(name="cues", type="Markers", channels=["cue"], format="string"))
        writer.add_stream(stream_header(name="silent", type="EEG", channels=CHANNELS, format="float32"))
        for turn in range(5):
            writer.samples(array, turn + np.arange(10) / 10, made.values(generator, 10, "int16"))
            writer.clock_offset(array, turn + 0.5, 0.25)
            writer.samples(markers, [turn + 0.3], [["left"]])
        end = writer.bytes_written
    return path.read_bytes(), end


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("torn")


@given(share=st.floats(0, 1))
@settings(max_examples=150)
def test_a_file_cut_at_any_byte_becomes_whole_and_loses_no_whole_chunk(recorded, folder, share):
    whole, _ = recorded
    data = whole[: round(4 + share * (len(whole) - 4))]
    path = folder / "a.xdf"
    path.write_bytes(data)
    with XdfFile(path) as file:
        end = file.index.end
        before = {stream.stream_id: stream.read() for stream in file.streams}
        lacking = tuple(stream.name for stream in file.streams if stream.footer is None)
    report = repair(path)
    assert report.cut == len(data) - end
    assert report.footers == lacking
    assert path.read_bytes()[:end] == data[:end]
    if report.cut:
        assert report.kept is not None
        assert report.kept.read_bytes() == data[end:]
    with XdfFile(path) as file:
        assert not file.damage
        assert file.index.header
        for stream in file.streams:
            times, values = stream.read()
            assert times.tobytes() == before[stream.stream_id].times.tobytes()
            assert np.array_equal(values, before[stream.stream_id].values)
            assert int(stream.footer.findtext("sample_count")) == len(times)
    again = path.read_bytes()
    assert not repair(path).changed
    assert path.read_bytes() == again


def test_the_footers_are_those_that_the_writer_would_have_written(recorded, tmp_path):
    whole, end = recorded
    path = tmp_path / "a.xdf"
    path.write_bytes(whole[:end] + b"\x04\xff\xff")
    report = repair(path)
    assert path.read_bytes() == whole
    assert str(report).splitlines() == [
        f"{path}: cut off 3 bytes that are no whole chunk; they are in {path}.cut",
        f"{path}: wrote the footers of array, cues, silent",
    ]


def test_pyxdf_reads_a_repaired_file(recorded, tmp_path):
    pyxdf = pytest.importorskip("pyxdf")
    whole, end = recorded
    path = tmp_path / "a.xdf"
    path.write_bytes(whole[: end - 2])
    repair(path)
    streams, _ = pyxdf.load_xdf(str(path), dejitter_timestamps=False)
    assert [stream["footer"]["info"]["sample_count"] for stream in streams] == [["50"], ["4"], ["0"]]


def test_a_whole_file_is_left_as_it_is(recorded, tmp_path):
    path = tmp_path / "a.xdf"
    path.write_bytes(recorded[0])
    os.utime(path, (1, 1))
    report = repair(path)
    assert not report.changed
    assert str(report) == f"{path}: nothing to repair"
    assert path.stat().st_mtime == 1
    assert list(tmp_path.iterdir()) == [path]


def test_damage_within_a_file_is_told_and_stays(tmp_path):
    path = tmp_path / "a.xdf"
    damaged = made.file_header() + made.header(1, "a") + b"\x99" * 50
    rest = made.boundary() + made.samples(1, [1.0], np.ones((1, 2), np.float32))
    path.write_bytes(damaged + rest)
    report = repair(path)
    assert (report.cut, report.footers) == (0, ("a",))
    assert len(report.damage) == 1
    assert "damage that stays: bytes" in str(report)
    assert path.read_bytes().startswith(damaged + rest)


def test_a_repair_that_ended_half_way_is_done_again(recorded, tmp_path, monkeypatch):
    whole, end = recorded
    path = tmp_path / "a.xdf"
    path.write_bytes(whole[: end - 2])

    def killed(_file):
        raise KeyboardInterrupt

    for call in (1, 2):
        calls = []
        monkeypatch.setattr(
            os, "fsync", lambda file, call=call, calls=calls: calls.append(file) or len(calls) < call or killed(file)
        )
        with pytest.raises(KeyboardInterrupt):
            repair(path)
        monkeypatch.undo()
        with XdfFile(path) as file:
            assert file.stream("array").sample_count == 50
            assert file.stream("cues").sample_count == 4
        path.write_bytes(path.read_bytes()[:-1])  # the last write may have been torn as well
    repair(path)
    with XdfFile(path) as file:
        assert not file.damage
        assert all(stream.footer is not None for stream in file.streams)


def test_a_file_that_is_being_recorded_is_refused(tmp_path):
    with (
        XdfWriter(tmp_path / "a.xdf") as writer,
        pytest.raises(Conflict, match="it is being recorded; stop the recording first"),
    ):
        repair(writer.path)
    assert not repair(writer.path).changed


@pytest.mark.parametrize(("data", "complaint"), [(b"RIFF", "expected an XDF file"), (None, "cannot be repaired")])
def test_what_is_no_xdf_file_is_refused_and_left(tmp_path, data, complaint):
    path = tmp_path / "a.xdf"
    if data is not None:
        path.write_bytes(data)
    with pytest.raises(ModelError, match=complaint):
        repair(path)
    assert data is None or path.read_bytes() == data
