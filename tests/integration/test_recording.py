"""Recordings of a session, read by pyxdf and compared with what was sent and published."""

import json
import os
import signal

import numpy as np
import pylsl
import pytest
from tests.integration.conftest import ALL, Refused

pyxdf = pytest.importorskip("pyxdf")

RECORDING = {"automatic": True, "least_free_mb": 1}


def read(path):
    """The streams of a recording, as they were received, by their type or else their name."""
    streams, _ = pyxdf.load_xdf(str(path), synchronize_clocks=False, dejitter_timestamps=False, verbose=False)
    return {stream["info"]["name"][0].split()[-1]: stream for stream in streams}


def texts(stream):
    return [json.loads(row[0]) for row in stream["time_series"]]


@pytest.fixture
def recorded(start_counts, unique_name):
    """A session on counts that is recorded from its start."""
    return start_counts({"name": unique_name}, recording=RECORDING)


def path_of(session):
    (path,) = session.recordings.glob("*.xdf")
    return path


def counting(samples, channels=4, first=0, dtype=np.float32):
    """Numbers that tell which sample and channel they are."""
    return (np.arange(first, first + samples)[:, None] * channels + np.arange(channels)).astype(dtype)


def on_disk(session, **counts):
    """Wait until so many samples of these streams are in the file."""

    def there():
        found = read(path_of(session))
        return all(name in found and len(found[name]["time_stamps"]) >= count for name, count in counts.items())

    session.until(there, f"{counts} on the disk")


@pytest.mark.parametrize("dtype", [np.int16, np.float32])
def test_a_recording_has_every_sample_with_its_timestamp_as_it_was_sent(start_counts, open_source, unique_name, dtype):
    format = {np.int16: pylsl.cf_int16, np.float32: pylsl.cf_float32}[dtype]
    session = start_counts({"name": unique_name}, recording=RECORDING)
    source = open_source(unique_name, channel_count=8, format=format, labels=list("ABCDEFGH"))
    source.wait_for_consumers()
    sent = counting(1500, 8, dtype=dtype)
    source.push(sent, chunk=7)
    session.bins(75)
    assert session.command("recording_stop")["state"] == "stopped"
    stream = read(path_of(session))[unique_name]
    np.testing.assert_array_equal(stream["time_series"], sent)
    np.testing.assert_allclose(stream["time_stamps"] - source.start, np.arange(1500) / 1000, atol=1e-9)
    channels = stream["info"]["desc"][0]["channels"][0]["channel"]
    assert [channel["label"][0] for channel in channels] == list("ABCDEFGH")
    assert stream["info"]["source_id"] == [unique_name]
    assert stream["time_series"].dtype == dtype
    offsets = stream["footer"]["info"]["clock_offsets"][0]["offset"]
    assert abs(float(offsets[0]["value"][0])) < 0.001


def test_jittered_timestamps_are_recorded_as_they_came_and_not_as_they_were_smoothed(
    recorded, open_source, unique_name
):
    source = open_source(unique_name)
    source.wait_for_consumers()
    start, jitter = pylsl.local_clock(), np.random.default_rng(0).normal(0, 0.0007, 60)
    times = start + np.arange(60) * 0.01 + jitter
    for number, time in enumerate(times):
        source.outlet.push_chunk(counting(10, first=10 * number), time)
    recorded.until(lambda: recorded.command("status")["stream"]["samples"] == 600, "all samples")
    recorded.command("recording_stop")
    stream = read(path_of(recorded))[unique_name]
    np.testing.assert_allclose(stream["time_stamps"][9::10], times, atol=1e-12)


def test_what_is_published_is_in_the_recording(recorded, open_source, unique_name):
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(counting(400))
    recorded.bins(20)
    recorded.command("label", label="a")
    source.push(counting(400), missing=30)
    recorded.bins(41)
    status = recorded.command("status")["recording"]
    assert (status["state"], status["lost_samples"], status["lost_messages"]) == ("recording", 0, 0)
    recorded.command("recording_annotate", text="he blinked", time=source.start)
    stopped = recorded.command("recording_stop")
    assert stopped["bytes"] == path_of(recorded).stat().st_size
    found = read(path_of(recorded))
    predictions = recorded.predictions()
    assert texts(found["predictions"]) == predictions[: len(found["predictions"]["time_stamps"])]
    rates = recorded.messages["rates"]
    np.testing.assert_array_equal(found["rates"]["time_series"], [m["rates"] for m in rates][: len(predictions)])
    np.testing.assert_array_equal(found["rates"]["time_stamps"], [m["time"] for m in rates][: len(predictions)])
    assert found["labels"]["time_series"][0][0] == "a"
    assert found["annotations"]["time_series"] == [["he blinked"]]
    assert sum(event["missing_samples"] for event in texts(found["events"]) if event["event"] == "gap") == 30
    notes = texts(found["control"])
    settings = next(note for note in notes if note["kind"] == "session")["settings"]
    assert settings == recorded.settings.model_dump(mode="json")
    assert [note["arguments"] for note in notes if note["kind"] == "command"] == [{"label": "a"}]


def test_markers_are_recorded_as_they_came(start_counts, open_source, unique_name):
    markers = pylsl.StreamOutlet(
        pylsl.StreamInfo(f"{unique_name}-m", "Markers", 1, 0.0, pylsl.cf_string, f"{unique_name}-m")
    )
    marker = {"stream": {"name": f"{unique_name}-m"}, "labels": {"go left": "a"}, "window": [-0.1, 0.0]}
    session = start_counts({"name": unique_name}, recording=RECORDING, markers=[marker])
    source = open_source(unique_name)
    source.wait_for_consumers()
    assert markers.wait_for_consumers(60)
    source.push(counting(400))
    session.bins(20)
    sent = [
        ("nothing", source.start + 0.3),
        ("go left", source.start + 0.4),
    ]  # both have come when one is learned
    for text, time in sent:
        markers.push_sample([text], time)
    session.event("label_learned")
    session.command("recording_stop")
    found = read(path_of(session))[f"{unique_name}-m"]
    assert list(zip([row[0] for row in found["time_series"]], found["time_stamps"], strict=True)) == sent


def test_a_stream_that_vanishes_and_returns_goes_on_in_its_recording(recorded, open_source, unique_name):
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(counting(200))
    recorded.bins(10)
    start, source.outlet = source.start, None
    recorded.event("stream_lost")
    again = open_source(unique_name)
    again.start, again.sent = start, 200
    again.wait_for_consumers()
    again.push(counting(200, first=200), missing=500)
    recorded.bins(45)
    recorded.command("recording_stop")
    stream = read(path_of(recorded))[unique_name]
    np.testing.assert_array_equal(stream["time_series"], counting(400))
    assert stream["time_stamps"][200] - stream["time_stamps"][199] == pytest.approx(0.501, abs=1e-6)


def test_a_recording_starts_and_stops_on_request_with_the_samples_between(counts, open_source, unique_name):
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(counting(200))
    counts.bins(10)
    with pytest.raises(Refused, match="is not being recorded"):
        counts.command("recording_stop")
    assert counts.command("recording_start")["state"] == "recording"
    with pytest.raises(Refused, match="is running; stop it first"):
        counts.command("recording_start")
    on_disk(counts, control=3)
    source.push(counting(200, first=200))
    counts.bins(20)
    first = counts.command("recording_stop")
    source.push(counting(200, first=400))
    counts.bins(30)
    np.testing.assert_array_equal(read(path_of(counts))[unique_name]["time_series"], counting(200, first=200))
    assert counts.command("recording_start")["name"] != first["name"]
    counts.command("recording_stop")


def test_a_session_that_is_killed_leaves_a_file_with_all_but_the_last_moment(start_session, open_source, unique_name):
    session = start_session(
        exit_code=-signal.SIGKILL,
        name=unique_name,
        stream={"name": unique_name},
        front_end={"kind": "counts"},
        classes=ALL,
        outlets={"enabled": False},
        recording=RECORDING,
    )
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(counting(1000))
    session.bins(50)
    on_disk(session, **{unique_name: 1000, "predictions": 50})
    source.push(counting(500, first=1000))
    os.kill(session.process.pid, signal.SIGKILL)
    session.process.wait()
    found = read(path_of(session))
    count = len(found[unique_name]["time_stamps"])
    assert count >= 1000
    np.testing.assert_array_equal(found[unique_name]["time_series"], counting(count))
    assert [message["seq"] for message in texts(found["predictions"])][:50] == list(range(50))


def test_a_recording_does_not_begin_on_a_disk_that_is_full(start_counts, open_source, unique_name):
    session = start_counts({"name": unique_name}, recording={"automatic": True, "least_free_mb": 1e9})
    assert "MB of free space (recording.least_free_mb)" in session.event("recording_failed")["detail"]
    with pytest.raises(Refused, match=r"least_free_mb\) in"):
        session.command("recording_start")
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(counting(200))
    session.bins(10)


def test_a_file_that_is_deleted_ends_the_recording_and_not_the_session(recorded, open_source, unique_name):
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(counting(200))
    recorded.bins(10)
    path_of(recorded).unlink()
    assert "was deleted" in recorded.event("recording_failed")["detail"]
    assert recorded.command("status")["recording"]["state"] == "failed"
    source.push(counting(200))
    recorded.bins(20)
