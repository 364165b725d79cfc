"""Files of other origins, against pyxdf; and files that are cut or damaged."""

import os
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests import xdf_files as made

from neuroloop.errors import ModelError
from neuroloop.recording.reader import XdfFile, open_xdf
from neuroloop.recording.writer import XdfWriter, stream_header
from neuroloop_sources.errors import SourceError
from neuroloop_sources.xdf import layout

pyxdf = pytest.importorskip("pyxdf")

FORMATS = [*layout.NUMBERS, "string"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("xdf")


def by_pyxdf(path, synchronize_clocks=False):
    streams, _ = pyxdf.load_xdf(str(path), dejitter_timestamps=False, synchronize_clocks=synchronize_clocks)
    return {stream["info"]["stream_id"]: stream for stream in streams}


def same(ours, theirs):
    if isinstance(ours, list):
        return ours == theirs
    return ours.dtype == theirs.dtype and ours.tobytes() == theirs.tobytes()


@st.composite
def recordings(draw):
    """Files as LabRecorder writes them: chunks of several streams one among another, some timestamps left out."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    streams = {
        stream_id: (
            draw(st.sampled_from(FORMATS)),
            draw(st.integers(1, 3)),
            draw(st.sampled_from([0.0, 100.0, 30_000.0])),
        )
        for stream_id in draw(st.lists(st.integers(0, 9), min_size=1, max_size=3, unique=True))
    }
    data = made.file_header()
    for stream_id, (format, channel_count, srate) in streams.items():
        data += made.header(stream_id, f"s{stream_id}", format, channel_count, srate)
    for _ in range(draw(st.integers(0, 8))):
        stream_id = draw(st.sampled_from(list(streams)))
        format, channel_count, _ = streams[stream_id]
        match draw(st.sampled_from(["samples", "samples", "samples", "clock", "boundary", "unknown"])):
            case "samples":
                given = draw(st.lists(st.booleans(), max_size=6) | st.just([True] * 5) | st.just([True, *[False] * 5]))
                times = [float(generator.uniform(0, 1e5)) if stamp else None for stamp in given]
                values = made.values(generator, len(times), format, channel_count)
                data += made.samples(stream_id, times, values)
            case "clock":
                data += made.clock_offset(stream_id, float(generator.uniform(0, 1e5)), 0.5)
            case "boundary":
                data += made.boundary()
            case "unknown":
                data += made.chunk(draw(st.integers(7, 2**16 - 1)), b"what later versions may add")
    return data + b"".join(made.footer(stream_id, 0) for stream_id in streams)


@given(recordings())
@settings(max_examples=150)
def test_streams_of_any_kind_are_read_as_pyxdf_reads_them(folder, data):
    path = folder / "any.xdf"
    path.write_bytes(data)
    theirs = by_pyxdf(path)
    with XdfFile(path) as file:
        assert not file.damage
        assert not file.is_torn
        assert [stream.stream_id for stream in file.streams] == list(theirs)
        for stream in file.streams:
            found = theirs[stream.stream_id]
            times, values = stream.read()
            assert same(times, found["time_stamps"])
            assert same(values, found["time_series"]) or not len(times)
            assert list(zip(found["clock_times"], found["clock_values"], strict=True)) == list(stream.clock_offsets)
            assert stream.name == found["info"]["name"][0]


@given(recordings(), st.data())
@settings(max_examples=80)
def test_a_range_is_that_part_of_the_whole_whatever_was_read_before(folder, data, draw):
    path = folder / "range.xdf"
    path.write_bytes(data)
    with XdfFile(path) as file:
        for stream in file.streams:
            with XdfFile(path) as again:
                whole = again.stream(stream.stream_id).read()
            for _ in range(3):
                start, stop = draw.draw(st.integers(-9, 50)), draw.draw(st.integers(-9, 50) | st.none())
                times, values = stream.read(start, stop)
                assert same(times, whole.times[start:stop])
                assert same(values, whole.values[start:stop])


@given(st.data())
@settings(max_examples=100)
def test_a_file_cut_at_any_byte_has_everything_before_the_torn_chunk(folder, data):
    path = folder / "cut.xdf"
    path.unlink(missing_ok=True)
    generator = np.random.default_rng(0)
    formats = data.draw(st.lists(st.sampled_from(FORMATS), min_size=1, max_size=3))
    ends = []  # after each chunk: the file's length, and how many samples each stream has
    counts = [0] * len(formats)
    with XdfWriter(path) as writer:
        ends.append((writer.bytes_written, None))
        for number, format in enumerate(formats):
            text = stream_header(name=str(number), type="EEG", channels=["a", "b"], format=format)
            writer.add_stream(text)
            ends.append((writer.bytes_written, None))
        for _ in range(data.draw(st.integers(1, 6))):
            number = data.draw(st.integers(0, len(formats) - 1))
            count = data.draw(st.integers(1, 40))
            writer.samples(
                number + 1, counts[number] + np.arange(count), made.values(generator, count, formats[number])
            )
            counts[number] += count
            ends.append((writer.bytes_written, tuple(counts)))
            if data.draw(st.booleans()):
                writer.boundary()
                ends.append((writer.bytes_written, tuple(counts)))
        last = writer.bytes_written
    whole = path.read_bytes()
    cut = data.draw(st.integers(ends[0][0], len(whole)) | st.sampled_from([end for end, _ in ends]))
    path.write_bytes(whole[:cut])
    with XdfFile(path) as file:
        complete, expected = max((end for end in ends if end[0] <= cut), key=lambda end: end[0])
        if cut <= last:
            assert file.index.end == complete
            assert file.is_torn == (cut > complete)
        assert len(file.damage) == file.is_torn
        if expected:
            assert tuple(stream.sample_count for stream in file.streams) == expected
            for stream, count in zip(file.streams, expected, strict=True):
                assert stream.times().tolist() == list(range(count))


@pytest.mark.parametrize("cut", [4, 5, 9, 40])
def test_a_file_cut_within_its_header_opens_and_is_empty(tmp_path, cut):
    path = tmp_path / "a.xdf"
    XdfWriter(path).close()
    path.write_bytes(path.read_bytes()[:cut])
    with XdfFile(path) as file:
        assert file.streams == ()


def test_after_damage_reading_goes_on_at_the_next_boundary(tmp_path):
    generator = np.random.default_rng(0)
    numbers = made.values(generator, 30)
    before = made.file_header() + made.header(1, "a") + made.samples(1, np.arange(10.0), numbers[:10])
    damaged = bytearray(made.samples(1, np.arange(10.0, 20), numbers[10:20]))
    damaged[:20] = b"\xff" * 20
    rest = made.boundary() + made.samples(1, np.arange(20.0, 30), numbers[20:])
    path = tmp_path / "a.xdf"
    path.write_bytes(before + damaged + rest)
    with XdfFile(path) as file:
        times, values = file.read("a")
        (damage,) = file.damage
        assert (damage.start, damage.stop) == (len(before), len(before + damaged + made.boundary()))
        assert not file.is_torn
    assert times.tolist() == [*range(10), *range(20, 30)]
    assert values.tobytes() == np.concatenate([numbers[:10], numbers[20:]]).tobytes()


@given(st.integers(0, 10_000), st.binary(min_size=1, max_size=60))
@settings(max_examples=200)
def test_no_damage_keeps_a_file_from_being_opened_and_read(folder, place, garbage):
    """What lies behind the first boundary after the damage is there."""
    head = made.file_header() + made.header(1, "a", "int16") + made.header(2, "m", "string", 1, 0.0)
    body = b"".join(
        made.samples(1, [float(10 * n), *[None] * 9], np.full((10, 2), n, np.int16))
        + made.samples(2, [float(n)], [["text"]])
        for n in range(10)
    )
    tail = (
        made.boundary() + made.samples(1, [1000.0], np.full((1, 2), 7, np.int16)) + made.samples(2, [1000.0], [["end"]])
    )
    place = place % (len(body) - len(garbage))
    path = folder / "damaged.xdf"
    path.write_bytes(head + body[:place] + garbage + body[place + len(garbage) :] + tail)
    with XdfFile(path) as file:
        numbers, texts = (file.stream(which) for which in ("a", "m"))
        last = numbers.sample_count - 1
        assert numbers.read(last).values.tolist() == [[7, 7]]
        assert numbers.times(last).tolist() == [1000.0]
        assert texts.read().values[-1] == ["end"]


def clock_file(path, offsets, times, footer_count=None):
    data = made.file_header() + made.header(1, "a", "int8", 1)
    data += b"".join(made.clock_offset(1, time, value) for time, value in offsets)
    data += made.samples(1, times, np.zeros((len(times), 1), np.int8))
    path.write_bytes(data + made.footer(1, len(times) if footer_count is None else footer_count))


def drifting(generator, start, count, base, *, drift=2e-5, jitter=2e-5):
    times = start + np.arange(count) * 5.0 + generator.uniform(0, 0.1, count)
    return list(zip(times.tolist(), (base + drift * times + generator.normal(0, jitter, count)).tolist(), strict=True))


def late(offsets, generator):
    """Some measurements were held up by the network."""
    return [(time, value + (0.05 if generator.uniform() < 0.2 else 0.0)) for time, value in offsets]


CLOCKS = {
    "drift": lambda g: drifting(g, 100, 60, -12.0),
    "outliers": lambda g: late(drifting(g, 100, 60, 3.0), g),
    "a large outlier": lambda g: [*drifting(g, 100, 60, 3.0), (401.0, 90.0)],
    "large times": lambda g: drifting(g, 1.7e9, 60, -1.7e9),
    "one": lambda g: [(100.0, 0.25)],
    "two": lambda g: [(100.0, 0.25), (105.0, 0.26)],
    "none": lambda g: [],
    "two at once": lambda g: [(100.0, 0.25), (100.0, 0.26)],
    "back in time": lambda g: drifting(g, 5000, 20, 1.0) + drifting(g, 50, 20, 500.0),
    "reset": lambda g: drifting(g, 100, 20, 1.0) + drifting(g, 900, 20, 5000.0),
    "two resets": lambda g: drifting(g, 100, 30, 1.0) + drifting(g, 900, 30, 500.0) + drifting(g, 10, 30, -40.0),
}


@pytest.mark.parametrize("clock", CLOCKS)
def test_synchronised_times_agree_with_those_of_pyxdf(tmp_path, clock):
    generator = np.random.default_rng(3)
    offsets = CLOCKS[clock](generator)
    resets = 1 + np.flatnonzero(np.abs(np.diff([time for time, _ in offsets])) > 20)
    starts = [offsets[at][0] for at in (0, *resets)] if offsets else [100.0]
    times = np.concatenate([start - 3 + np.arange(500) / 5 for start in starts])
    clock_file(tmp_path / "a.xdf", offsets, times)
    theirs = by_pyxdf(tmp_path / "a.xdf", synchronize_clocks=True)[1]
    with XdfFile(tmp_path / "a.xdf") as file:
        (stream,) = file.streams
        assert len(stream.clock) == (len(theirs["info"]["clock_segments"]) if offsets else 0)
        np.testing.assert_allclose(stream.synchronised(), theirs["time_stamps"], rtol=0, atol=2e-6)
        np.testing.assert_array_equal(stream.synchronised(600, 900), stream.synchronised()[600:900])
        np.testing.assert_array_equal(stream.times(), times)


def test_the_offset_that_an_ending_outlet_leaves_is_left_out_as_by_pyxdf(tmp_path):
    offsets = [*drifting(np.random.default_rng(3), 100, 30, 1.0), (251.0, -7e4)]
    times = 100 + np.arange(501) / 5
    clock_file(tmp_path / "a.xdf", offsets, times, footer_count=500)
    theirs = by_pyxdf(tmp_path / "a.xdf", synchronize_clocks=True)[1]
    with XdfFile(tmp_path / "a.xdf") as file:
        np.testing.assert_allclose(file.streams[0].synchronised()[:500], theirs["time_stamps"], rtol=0, atol=2e-6)
        assert len(file.streams[0].clock_offsets) == 31


def test_labels_units_and_the_header_are_those_of_the_stream(tmp_path):
    channels = ("left ear", "right ear")
    data = made.file_header() + made.header(4, "ears", channels=channels, units=("µV", "microvolts"))
    path = tmp_path / "a.xdf"
    path.write_bytes(data + made.header(5, "twins", channels=("a", "a", ""), channel_count=3))
    with XdfFile(path) as file:
        ears, twins = file.streams
        assert (ears.channels, ears.units, ears.source_id) == (channels, ("µV", "microvolts"), "id-ears")
        assert ears.info == layout.StreamInfo("ears", "EEG", 2, 100.0, "float32")
        assert ears.sample_count == len(ears.times()) == len(ears.read().values) == 0
        assert twins.channels == ("a#1", "a#2", "3#3")
        assert twins.units == ("", "", "")


def test_a_sample_is_found_by_its_synchronised_time(tmp_path):
    data = made.file_header() + made.header(1, "a") + made.clock_offset(1, 0.0, 100.0)
    for start in range(0, 60, 6):
        data += made.samples(1, start + np.arange(6.0), np.zeros((6, 2), np.float32))
    (tmp_path / "a.xdf").write_bytes(data)
    with XdfFile(tmp_path / "a.xdf") as file:
        (stream,) = file.streams
        wanted = [0.0, 100.0, 105.5, 106.0, 141.2, 159.0, 1e9]
        assert [stream.find(time) for time in wanted] == [0, 0, 6, 6, 42, 59, 60]


def test_a_part_of_a_large_file_costs_the_memory_of_that_part(tmp_path):
    count = 3_000_000
    size = count * (9 + 256 * 4)
    channels = [str(number) for number in range(256)]
    head = made.file_header() + made.header(1, "large", channel_count=256, channels=channels)
    content = b"\1\0\0\0" + layout.pack_length(count)
    head += layout.pack_length(2 + len(content) + size) + b"\3\0" + content
    path = tmp_path / "large.xdf"
    with path.open("wb") as file:
        file.write(head)
        file.truncate(len(head) + size)  # 3 GB, of which the disk has nothing
        file.seek(len(head) + size - 4)
        file.write(np.float32(5).tobytes())
    tracemalloc.start()
    with XdfFile(path) as file:
        values = file.read("large", count - 3).values
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert values.shape == (3, 256)
    assert values[-1, -1] == 5
    assert peak < 1 << 20


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", r"a.xdf: expected an XDF file, which begins with b'XDF:', got b''"),
        (b"\x1f\x8b\x08\x00", "it is compressed: unpack it first"),
        (b"EDF+", r"expected an XDF file"),
    ],
)
def test_a_file_that_is_no_xdf_is_refused(tmp_path, data, complaint):
    path = tmp_path / "a.xdf"
    path.write_bytes(data)
    with pytest.raises(ModelError, match=complaint), open_xdf(path):
        pass


def test_a_file_that_is_not_there_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"b\.xdf: cannot be opened: No such file"), open_xdf(tmp_path / "b.xdf"):
        pass


def test_an_unknown_stream_is_refused_with_those_that_there_are(tmp_path):
    path = tmp_path / "a.xdf"
    path.write_bytes(made.file_header() + made.header(3, "a") + made.header(7, "a"))
    with open_xdf(path) as file:
        assert file.stream(7).stream_id == 7
        with (
            pytest.raises(ModelError, match=r"no stream 'b': the file has 3 \('a'\), 7 \('a'\)"),
            open_xdf(path) as same,
        ):
            same.stream("b")
        with pytest.raises(ModelError, match=r"2 have this name, choose by number"), open_xdf(path) as same:
            same.stream("a")


def test_a_file_that_shrinks_while_it_is_read_is_an_error_and_not_the_end(tmp_path):
    path = tmp_path / "a.xdf"
    path.write_bytes(made.file_header() + made.header(1, "a") + made.samples(1, [1.0], np.zeros((1, 2), np.float32)))
    with open_xdf(path) as file:
        os.truncate(path, 20)
        with pytest.raises(SourceError, match="it has shrunk"):
            file.read(1)
