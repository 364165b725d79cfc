"""The recorder beside a loop: what disks do to it, and that nobody waits for it."""

import errno
import json
import subprocess
import threading
import time
from collections import deque

import msgpack
import numpy as np
import pytest
from tests.processes import wait_until

from neuroloop.config import RecordingSettings
from neuroloop.errors import Conflict
from neuroloop.recording.description import losses
from neuroloop.recording.reader import open_xdf
from neuroloop.recording.recorded import blobs, revived
from neuroloop.recording.writer import XdfWriter, stream_header
from neuroloop.session.inlet import Markers, Receiving
from neuroloop.session.recorder import Recorder
from neuroloop.session.recorder_sources import Feed
from neuroloop.session.ring import Ring

CHANNELS = ["a", "b"]
RAW = stream_header(name="raw", type="EEG", channels=CHANNELS, format="int16", nominal_srate=1000.0)
SMALL = RecordingSettings(least_free_mb=0, buffer_mb=0.01)


class Sender:
    """Writes into a ring as an acquire thread does, and reads it as a loop does."""

    def __init__(self, capacity=400):
        self.ring = Ring(capacity, 2, np.dtype(np.int16))
        self.receiving = Receiving(RAW, self.ring, 0)
        self.measured = deque([(1.0, 0.25)])

    def send(self, count):
        ring = self.ring
        while count:
            slot, room = ring.room()
            part = min(count, room, ring.most_at_once)
            numbers = np.arange(ring.written, ring.written + part)
            ring.samples[slot : slot + part] = numbers[:, None] % 1000
            ring.times[slot : slot + part] = numbers / 1000
            ring.commit(part, 0.0)
            ring.times[slot : slot + part] += 5  # as a loop smooths them
            ring.consumed = ring.written
            count -= part

    def feed(self):
        return Feed(lambda: self.receiving, lambda: self.measured)


def send_to_the_end(sender, recorder):
    """As fast as it writes, until it ends."""
    while recorder.is_alive():
        sender.send(200)
        wait_until(lambda: read_so_far(recorder) == sender.ring.written or not recorder.is_alive())


class Slow(XdfWriter):
    """A disk that takes nothing until it is let."""

    def __init__(self, path):
        super().__init__(path)
        self.may = threading.Event()
        self.may.set()
        self.is_stuck = threading.Event()

    def samples(self, stream_id, times, values):
        if not self.may.is_set():
            self.is_stuck.set()
        self.may.wait(60)
        super().samples(stream_id, times, values)


class Full(XdfWriter):
    """A disk that has room for so many bytes."""

    room = 20_000

    def _write(self, data):
        if self.bytes_written + len(data) > self.room:
            raise OSError(errno.ENOSPC, "No space left on device")
        super()._write(data)


@pytest.fixture
def sender():
    return Sender()


@pytest.fixture
def start(tmp_path, sender):
    """A function that starts a recorder; all have ended after the test."""
    running = []

    def start(path=None, feeds=None, settings=SMALL, make_writer=XdfWriter):
        made = []
        running.append(
            Recorder(
                "s",
                path or tmp_path / "recordings" / "r.xdf",
                feeds or [sender.feed()],
                settings,
                make_writer=lambda path: made.append(make_writer(path)) or made[0],
            )
        )
        running[-1].start()
        running[-1].opened.result(10)
        return running[-1], made[0]

    yield start
    for recorder in running:
        recorder.end()
        recorder.join(10)
        assert not recorder.is_alive()


def read(recorder):
    with open_xdf(recorder.path) as file:
        (raw,) = (stream for stream in file.streams if stream.name == "raw")
        times, values = raw.read()
        return times, values[:, 0], losses(file), raw.clock_offsets


def test_samples_and_clock_offsets_are_written_as_they_were_received(start, sender):
    recorder, _ = start()
    for _ in range(20):
        sender.send(50)
        wait_until(lambda: recorder._sources.lost == 0 and read_so_far(recorder) == sender.ring.written)
    recorder.end()
    told = recorder.closed.result(10)
    times, values, lost, offsets = read(recorder)
    np.testing.assert_array_equal(times, np.arange(1000) / 1000)
    np.testing.assert_array_equal(values, np.arange(1000) % 1000)
    assert (lost, offsets) == ([], ((1.0, 0.25),))
    assert (told["state"], told["bytes"]) == ("stopped", recorder.path.stat().st_size)


def read_so_far(recorder):
    return max([source.at for source in recorder._sources] or [0])


def test_a_slow_disk_costs_samples_that_are_counted_at_once_and_told_in_the_file(start, sender):
    recorder, writer = start(make_writer=Slow)
    sender.send(100)
    wait_until(lambda: read_so_far(recorder) == 100)
    writer.may.clear()
    sender.send(10)
    assert writer.is_stuck.wait(10)
    began = time.perf_counter()
    for _ in range(40):
        sender.send(100)
    packed = msgpack.packb({"time": 1.0, "event": "e", "text": "x" * 100})
    for _ in range(200):
        recorder.put("events", packed, len(packed))
    assert time.perf_counter() - began < 1.0  # nobody waited for the disk
    assert recorder.lost_samples >= 4000 - sender.ring.capacity
    assert recorder.describe()["lost_messages"] > 50
    wait_until(lambda: recorder.is_behind)
    assert recorder.describe()["state"] == "recording"
    writer.may.set()


def test_what_a_slow_disk_did_not_take_is_a_table_in_the_recording(start, sender):
    recorder, writer = start(make_writer=Slow)
    sender.send(100)
    wait_until(lambda: read_so_far(recorder) == 100)
    writer.may.clear()
    sender.send(10)
    assert writer.is_stuck.wait(10)
    for _ in range(40):
        sender.send(100)
    event = msgpack.packb({"time": 1.0, "event": "e", "text": "x" * 100})
    for _ in range(200):
        recorder.put("events", event, len(event))
    writer.may.set()
    wait_until(lambda: read_so_far(recorder) == 4110)
    sender.send(50)
    wait_until(lambda: read_so_far(recorder) == 4160)
    recorder.end()
    told = recorder.closed.result(10)
    times, values, lost, _ = read(recorder)
    counts = np.rint(times * 1000).astype(int)
    np.testing.assert_array_equal(values, counts % 1000)
    missing = [line for line in lost if line["what"] == "samples"]
    assert sum(line["count"] for line in missing) == told["lost_samples"] == 4160 - len(counts) > 3000
    for line in missing:
        assert not np.isin(np.arange(line["first"], line["first"] + line["count"]), counts).any()
    (messages,) = (line for line in lost if line["what"] == "messages")
    assert messages["count"] == told["lost_messages"] > 50


def test_a_full_disk_ends_the_recording_with_a_file_that_can_be_read(start, sender):
    recorder, _ = start(make_writer=Full)
    send_to_the_end(sender, recorder)
    told = recorder.closed.result(10)
    assert (told["state"], "No space left" in told["detail"]) == ("failed", True)
    times, values, _, _ = read(recorder)
    assert len(times) > 500
    np.testing.assert_array_equal(values, np.arange(len(times)) % 1000)
    assert told["bytes"] == recorder.path.stat().st_size


@pytest.fixture
def small_disk(tmp_path):
    """A file system of 96 KB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=96k", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip("no file system can be mounted here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_real_full_disk_leaves_what_was_written_before(start, sender, small_disk):
    recorder, _ = start(path=small_disk / "r.xdf")
    send_to_the_end(sender, recorder)
    assert "No space left" in recorder.closed.result(10)["detail"]
    times, _, _, _ = read(recorder)
    np.testing.assert_array_equal(times, np.arange(len(times)) / 1000)
    assert len(times) > 2000


def test_a_recording_stops_before_the_disk_is_full(start, sender, small_disk):
    recorder, _ = start(path=small_disk / "r.xdf", settings=RecordingSettings(least_free_mb=0.05))
    send_to_the_end(sender, recorder)
    told = recorder.closed.result(10)
    assert (told["state"], "recording.least_free_mb" in told["detail"]) == ("stopped", True)
    with open_xdf(recorder.path) as file:
        assert all(stream.footer is not None for stream in file.streams)


def test_a_recording_does_not_begin_where_there_is_no_room_or_no_folder(tmp_path, sender):
    (tmp_path / "file").write_text("")
    for path, settings, words in (
        (tmp_path / "r.xdf", RecordingSettings(least_free_mb=1e12), "recording.least_free_mb"),
        (tmp_path / "file" / "r.xdf", SMALL, "Not a directory|File exists"),
    ):
        recorder = Recorder("s", path, [sender.feed()], settings)
        recorder.start()
        with pytest.raises(Conflict, match=words):
            recorder.opened.result(10)
        assert recorder.describe()["state"] == "failed"


def test_markers_of_numbers_and_of_texts_keep_their_format(start):
    texts = Markers(stream_header(name="texts", type="Markers", channels=["m", "n"], format="string"))
    numbers = Markers(stream_header(name="numbers", type="Markers", channels=["m"], format="int32"))
    texts.samples.extend([(1.5, ["go", "left"]), (2.5, ["", "ü"])])
    numbers.samples.append((3.5, [7]))
    recorder, _ = start(feeds=[Feed(lambda one=one: one, lambda: None) for one in (texts, numbers)])
    wait_until(lambda: not texts.samples and not numbers.samples)
    recorder.end()
    recorder.closed.result(10)
    with open_xdf(recorder.path) as file:
        assert file.read("texts").values == [["go", "left"], ["", "ü"]]
        assert file.read("numbers").times.tolist() == [3.5]
        assert file.read("numbers").values.tolist() == [[7]]


def test_messages_and_notes_read_back_to_the_bit(start):
    values = [0.1, 1e-300, float(np.float32(1 / 3)), 30000.5]
    recorder, _ = start()
    message = {"type": "prediction", "time": 12.3456789012345, "seq": 7, "scores": values, "label": None}
    rates = {"type": "rates", "time": 12.5, "rates": [float(np.float32(value)) for value in values]}
    for topic, one in (("predictions", message), ("rates", rates)):
        packed = msgpack.packb(one)
        recorder.put(topic, packed, len(packed))
    weights = bytes(range(256))
    recorder.put("note", {"kind": "command", "arguments": {"weights": weights}}, len(weights))
    recorder.end()
    recorder.closed.result(10)
    with open_xdf(recorder.path) as file:
        assert json.loads(file.read("s predictions").values[0][0]) == message
        found = file.read("s rates")
        np.testing.assert_array_equal(found.values, [np.array(values, np.float32)])
        assert found.times.tolist() == [12.5]
        notes = [revived(json.loads(row[0])) for row in file.read("s control").values]
        assert weights in [note.get("arguments", {}).get("weights") for note in notes]


def model_of(size, seed):
    """The note of a command that loads so many bytes."""
    weights = np.random.default_rng(seed).bytes(size)
    return {"kind": "command", "name": "decoder_load", "arguments": {"weights": weights, "state": "carry"}}


def notes_in(recorder):
    with open_xdf(recorder.path) as file:
        found = blobs(file)
        texts = [row[0] for row in file.read("s control").values]
        notes = [revived(json.loads(text), found) for text in texts if "made_by" not in text and "ring" not in text]
        return notes, max(map(len, texts)), file.stream("s blobs").sample_count


def test_a_model_larger_than_the_buffer_is_recorded_in_pieces_and_once(start, sender):
    recorder, _ = start()
    given = [model_of(1_000_000, 1), model_of(300_000, 2), model_of(1_000_000, 1)]
    for note in given:
        recorder.put("note", note, 1_000_000)
        wait_until(lambda: recorder._notes.size == 0)
    recorder.end()
    assert recorder.closed.result(10)["lost_messages"] == 0
    notes, longest, pieces = notes_in(recorder)
    assert notes == given
    assert longest < 1000
    assert pieces == 21 + 7


def test_samples_are_looked_after_while_a_large_model_is_written(start, sender):
    recorder, _ = start(settings=RecordingSettings(least_free_mb=0, buffer_mb=1))
    told = []
    drain = recorder._drain
    recorder._drain = lambda: told.append(sender.send(100)) or drain()
    recorder.put("note", model_of(10_000_000, 1), 10_000_000)
    wait_until(lambda: recorder._notes.size == 0)
    recorder.end()
    assert recorder.closed.result(10)["lost_samples"] == 0
    times, _, lost, _ = read(recorder)
    assert (len(times), lost) == (100 * len(told), [])
    assert len(notes_in(recorder)[0]) == 1


def test_a_note_waits_for_a_slow_disk_only_while_others_leave_room(start, sender):
    recorder, writer = start(make_writer=Slow)
    writer.may.clear()
    sender.send(10)
    assert writer.is_stuck.wait(10)
    recorder.put("note", model_of(1_000_000, 1), 1_000_000)
    recorder.put("note", {"kind": "late"}, 512)
    packed = msgpack.packb({"time": 1.0, "event": "e"})
    recorder.put("events", packed, len(packed))
    assert dict(recorder.lost_messages) == {"note": 1}
    writer.may.set()
    recorder.end()
    recorder.closed.result(10)
    assert [note["kind"] for note in notes_in(recorder)[0]] == ["command"]
