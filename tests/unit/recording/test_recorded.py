"""Recordings of sessions, as a replay reads them."""

import json

import numpy as np
import pytest

from neuroloop.errors import ModelError
from neuroloop.recording import XdfWriter, open_xdf, recorded, stream_header
from neuroloop.recording.recorded import RecordedSession, revived

NOTES = [
    {"kind": "session", "settings": {}, "seq": 0},
    {"kind": "ring", "ring": 7, "stream": 1, "first": 100},
]
LOST = [{"what": "samples", "stream": 1, "first": 1000, "count": 500, "why": "slow"}]


def text(writer, type, rows):
    stream = writer.add_stream(stream_header(name=f"s {type}", type=type, channels=["text"], format="string"))
    writer.samples(stream, np.arange(len(rows), dtype=float), [[json.dumps(row)] for row in rows])


@pytest.fixture
def path(tmp_path, monkeypatch):
    """Counts 100 to 999 and 1500 to 2999 of a ring, the value of a sample being its count."""
    monkeypatch.setattr(recorded, "PIECE", 256)
    path = tmp_path / "r.xdf"
    with XdfWriter(path) as writer:
        raw = stream_header(name="raw", type="EEG", channels=["a"], format="int32", nominal_srate=1000.0)
        stream = writer.add_stream(raw)
        counts = np.concatenate([np.arange(100, 1000), np.arange(1500, 3000)])
        for part in np.array_split(counts, 7):
            writer.samples(stream, part / 1000, part[:, None].astype(np.int32))
        text(writer, "neuroloop-control", NOTES)
        text(writer, "neuroloop-lost", LOST)
    return path


def test_samples_are_found_by_their_count_in_the_ring_around_what_was_lost(path):
    with open_xdf(path) as file:
        ring = RecordedSession(file).ring(7)
        assert (ring.first, ring.stop) == (100, 3000)
        assert [ring.whole_until(count) for count in (100, 999, 1000, 1500)] == [1000, 1000, 1000, 3000]
        found = []
        for first, stop in ((100, 1000), (1500, 3000)):
            while first < stop:
                times, values = ring.read(first, stop)
                assert 0 < len(times) <= 256
                found += values[:, 0].tolist()
                first += len(times)
        assert found == [*range(100, 1000), *range(1500, 3000)]
        ring.close()


def test_a_ring_without_a_sample_and_a_file_of_another_program_are_refused(path, tmp_path):
    with open_xdf(path) as file, pytest.raises(ModelError, match="ends before the first sample"):
        RecordedSession(file).ring(8)
    XdfWriter(tmp_path / "empty.xdf").close()
    with open_xdf(tmp_path / "empty.xdf") as file, pytest.raises(ModelError, match="no session of neuroloop made it"):
        RecordedSession(file)


def test_bytes_in_notes_come_back():
    assert revived({"a": [{"base64": "AAEC"}, 1], "b": {"c": None}}) == {"a": [b"\0\1\2", 1], "b": {"c": None}}


def test_bytes_that_a_note_names_and_the_recording_lacks_are_told():
    with pytest.raises(ModelError, match="expected the bytes of SHA-256 abc, which a note names, got 0 bytes"):
        revived({"arguments": {"weights": {"blob": "abc"}}}, {})
