"""What is written, read by pyxdf."""

import errno
import os
import time

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from neuroloop.errors import Conflict, ModelError
from neuroloop.recording.reader import XdfFile
from neuroloop.recording.writer import XdfWriter, stream_header
from neuroloop_sources.xdf.layout import NUMBERS

pyxdf = pytest.importorskip("pyxdf")


def load(path, **options):
    return pyxdf.load_xdf(str(path), dejitter_timestamps=False, synchronize_clocks=False, **options)


def header(name="array", channels=("a", "b"), format="float32", nominal_srate=100.0, **more):
    return stream_header(name=name, type="EEG", channels=channels, format=format, nominal_srate=nominal_srate, **more)


@st.composite
def streams(draw):
    """Streams of any format, and their samples in chunks of any size."""
    drawn = []
    for number in range(draw(st.integers(1, 3))):
        format = draw(st.sampled_from([*NUMBERS, "string"]))
        channels = [f"ch{channel}" for channel in range(draw(st.integers(1, 3)))]
        chunks = []
        for _ in range(draw(st.integers(0, 3))):
            count = draw(st.integers(0, 4))
            times = draw(st.lists(st.floats(allow_nan=False), min_size=count, max_size=count))
            if format == "string":
                row = st.lists(st.text(max_size=300), min_size=len(channels), max_size=len(channels))
                values = draw(st.lists(row, min_size=count, max_size=count))
            else:
                size = count * len(channels) * NUMBERS[format].itemsize
                data = draw(st.binary(min_size=size, max_size=size))
                values = np.frombuffer(data, NUMBERS[format]).reshape(count, len(channels))
            chunks.append((np.array(times), values))
        drawn.append((f"stream {number}", channels, format, chunks))
    return drawn


@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@given(streams())
@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_pyxdf_reads_exactly_what_was_written(tmp_path, drawn):
    path = tmp_path / f"{time.monotonic_ns()}.xdf"
    with XdfWriter(path) as writer:
        ids = [writer.add_stream(header(name, channels, format)) for name, channels, format, _ in drawn]
        for turn in range(3):
            for stream_id, (*_, chunks) in zip(ids, drawn, strict=True):
                for times, values in chunks[turn : turn + 1]:
                    writer.samples(stream_id, times, values)
            writer.boundary()
    assert path.stat().st_size == writer.bytes_written
    found, file_header = load(path)
    assert file_header["info"]["version"] == ["1.0"]
    for stream, (name, channels, format, chunks) in zip(found, drawn, strict=True):
        assert stream["info"]["name"] == [name]
        described = stream["info"]["desc"][0]["channels"][0]["channel"]
        assert [channel["label"][0] for channel in described] == channels
        times = np.concatenate([times for times, _ in chunks]) if chunks else np.zeros(0)
        assert stream["time_stamps"].tobytes() == times.tobytes()
        if format == "string":
            assert stream["time_series"] == [row for _, values in chunks for row in values]
        else:
            assert stream["time_series"].tobytes() == b"".join(values.tobytes() for _, values in chunks)
        assert int(stream["footer"]["info"]["sample_count"][0]) == len(times)


def test_a_footer_says_the_first_and_last_timestamp_and_the_clock_offsets(tmp_path):
    with XdfWriter(tmp_path / "a.xdf") as writer:
        stream = writer.add_stream(header())
        writer.samples(stream, [0.1, 0.2], np.zeros((2, 2), np.float32))
        writer.clock_offset(stream, 5.3, -0.1)
        writer.samples(stream, [0.30000000000000004], np.zeros((1, 2), np.float32))
    (found,), _ = load(writer.path)
    footer = found["footer"]["info"]
    assert float(footer["first_timestamp"][0]) == 0.1
    assert float(footer["last_timestamp"][0]) == 0.30000000000000004
    assert footer["clock_offsets"][0]["offset"] == [{"time": ["5.3"], "value": ["-0.1"]}]
    assert (found["clock_times"], found["clock_values"]) == ([5.3], [-0.1])


def test_pyxdf_synchronises_what_was_written_by_the_clock_offsets(tmp_path):
    generator = np.random.default_rng(0)
    times = 1000 + np.arange(5000) / 100
    with XdfWriter(tmp_path / "a.xdf") as writer:
        stream = writer.add_stream(header())
        for start in range(0, 5000, 500):
            writer.samples(stream, times[start : start + 500], np.zeros((500, 2), np.float32))
            collected = float(times[start])
            writer.clock_offset(stream, collected, -900 + 1e-5 * collected + generator.normal(0, 1e-5))
    (found,), _ = pyxdf.load_xdf(str(writer.path), dejitter_timestamps=False, synchronize_clocks=True)
    np.testing.assert_allclose(found["time_stamps"], times - 900 + 1e-5 * times, rtol=0, atol=1e-4)
    with XdfFile(writer.path) as file:
        np.testing.assert_allclose(file.streams[0].synchronised(), found["time_stamps"], rtol=0, atol=1e-6)
        np.testing.assert_array_equal(file.streams[0].times(), times)


def test_a_header_is_kept_to_the_byte(tmp_path):
    text = header(units=("microvolts", "µV"), description={"manufacturer": "<we> & co"}) + "<!-- as it came -->\n"
    with XdfWriter(tmp_path / "a.xdf") as writer:
        writer.add_stream(text)
    assert text.encode() in writer.path.read_bytes()
    (found,), _ = load(writer.path)
    assert found["info"]["desc"][0]["manufacturer"] == ["<we> & co"]
    assert found["info"]["desc"][0]["channels"][0]["channel"][1]["unit"] == ["µV"]


def test_a_file_that_is_there_is_not_written_over(tmp_path):
    path = tmp_path / "a.xdf"
    path.write_text("precious")
    with pytest.raises(Conflict, match=r"there is a file already"):
        XdfWriter(path)
    assert path.read_text() == "precious"


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("not XML", "expected XML"),
        ("<info><name>a</name></info>", "channel_count: expected a number"),
        ("<info><channel_count>1.5</channel_count></info>", "channel_count: expected a number, 0 or more, got '1.5'"),
        (header().replace("float32", "float16"), "channel_format: expected one of float32"),
        (header(name="\0"), "expected XML"),
    ],
)
def test_a_header_that_no_reader_could_use_is_refused(tmp_path, text, complaint):
    with XdfWriter(tmp_path / "a.xdf") as writer, pytest.raises(ModelError, match=complaint):
        writer.add_stream(text)
    assert load(writer.path)[0] == []


@pytest.mark.parametrize("values", [np.zeros((2, 3), np.float32), np.zeros((1, 2), np.float32), np.zeros((2, 2))])
def test_samples_of_another_shape_or_format_are_refused(tmp_path, values):
    with XdfWriter(tmp_path / "a.xdf") as writer:
        stream = writer.add_stream(header())
        with pytest.raises(ModelError, match=r"samples of stream 'array': expected \(2, 2\) float32"):
            writer.samples(stream, np.zeros(2), values)


def test_a_text_too_few_is_refused(tmp_path):
    with XdfWriter(tmp_path / "a.xdf") as writer:
        stream = writer.add_stream(header(format="string"))
        with pytest.raises(ModelError, match=r"expected 2 texts for each of \(1,\) timestamps"):
            writer.samples(stream, [0.0], [["one"]])


def test_a_disk_that_takes_a_part_of_a_chunk_leaves_whole_chunks_and_the_writer_goes_on(tmp_path, monkeypatch):
    writer = XdfWriter(tmp_path / "a.xdf")
    stream = writer.add_stream(header())
    writer.samples(stream, [1.0], np.full((1, 2), 1, np.float32))
    pwrite, calls = os.pwrite, []

    def full(file, data, offset):
        calls.append(offset)
        if len(calls) > 1:
            raise OSError(errno.ENOSPC, "no space left on device")
        return pwrite(file, data[:20], offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="no space"):
        writer.samples(stream, [2.0], np.full((1, 2), 2, np.float32))
    assert len(calls) == 2
    assert writer.path.stat().st_size == writer.bytes_written
    monkeypatch.undo()
    writer.samples(stream, [3.0], np.full((1, 2), 3, np.float32))
    writer.close()
    (found,), _ = load(writer.path)
    assert found["time_stamps"].tolist() == [1.0, 3.0]
    assert found["footer"]["info"]["sample_count"] == ["2"]


def test_an_array_of_256_channels_costs_a_small_part_of_a_core(tmp_path):
    seconds = 2
    values = np.random.default_rng(0).standard_normal((600, 256), np.float32)
    times = np.arange(600) / 30_000
    with XdfWriter(tmp_path / "a.xdf") as writer:
        stream = writer.add_stream(header(channels=[str(number) for number in range(256)], nominal_srate=30_000.0))
        began = time.process_time()
        for _ in range(seconds * 50):
            writer.samples(stream, times, values)
        cost = (time.process_time() - began) / seconds
    assert cost < 0.1
