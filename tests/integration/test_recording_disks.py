"""What disks do to the recording of a real session, and that its loop goes on as before.

`python -m tests.benchmarks disks` compares the loop's latency at 96 channels and 30 kHz.
"""

import time

import numpy as np
import pylsl
import pytest
from tests.disks import Throttle, small_disk
from tests.integration.test_recording import counting, on_disk, path_of

from neuroloop.recording.description import losses
from neuroloop.recording.reader import open_xdf

SLOW = {"automatic": True, "least_free_mb": 1, "buffer_mb": 0.01}
BUFFER = {"buffer_s": 0.5}
BIN_MS = 20.0


def stream(session, source, seconds):
    """Samples that say which they are, in real time."""
    for _ in range(round(seconds / 0.05)):
        source.push(counting(50, first=source.sent), chunk=5)
        session.receive(0)
        time.sleep(max(0.0, source.start + source.sent / 1000 - pylsl.local_clock()))
    session.bins(source.sent // 20)


def process_ms(session, first):
    """The median time from sample to answer of the bins from `first` on."""
    return float(np.median([p["latency_ms"]["process"] for p in session.predictions()[first:]]))


def read(session, name):
    with open_xdf(path_of(session)) as file:
        times, values = file.read(name)
        return times, values, [line for line in losses(file) if line["what"] == "samples"]


def test_a_disk_that_takes_nothing_for_seconds_costs_samples_that_are_told_everywhere_and_no_bin(
    start_counts, open_source, unique_name, tmp_path
):
    disk = Throttle(tmp_path)
    session = start_counts({"name": unique_name, **BUFFER}, recording=SLOW, environment=disk.environment)
    source = open_source(unique_name)
    source.wait_for_consumers()
    stream(session, source, 0.5)
    on_disk(session, **{unique_name: 500})
    disk.set("0")
    stream(session, source, 3.5)
    status = session.command("status")
    assert status["recording"]["lost_samples"] > 1000
    assert status["recording"]["lost_messages"] > 0
    assert (status["missed_bins"], status["missing_samples"]) == (0, 0)
    assert process_ms(session, 25) < BIN_MS
    session.event("recording_behind")
    session.event("recording_lost")
    disk.set("")
    stream(session, source, 0.5)
    stopped = session.command("recording_stop")
    assert session.event("recording_stopped")["lost_samples"] == stopped["lost_samples"]
    times, values, lost = read(session, unique_name)
    counts = np.rint((times - source.start) * 1000).astype(int)
    np.testing.assert_array_equal(values, counting(source.sent)[counts])
    assert sum(line["count"] for line in lost) == stopped["lost_samples"] == source.sent - len(counts)
    assert 1000 < sum(event["samples"] for event in session.events("recording_lost")) <= stopped["lost_samples"]
    for line in lost:
        assert not np.isin(np.arange(line["first"], line["first"] + line["count"]), counts).any()


def test_a_disk_that_is_full_ends_the_recording_with_an_event_and_no_bin_is_lost(
    start_counts, open_source, unique_name
):
    full = {"automatic": False, "least_free_mb": 0}
    session = start_counts({"name": unique_name, "buffer_s": 60}, recording=full)  # faster than real time
    with small_disk(session.recordings, "256k") as is_mounted:
        if not is_mounted:
            pytest.skip("no file system can be mounted here")
        session.command("recording_start")
        source = open_source(unique_name)
        source.wait_for_consumers()
        source.push(counting(200))
        while not session.events("recording_failed"):
            source.push(counting(1000, first=source.sent), chunk=100)
            session.bins(source.sent // 20)
        status = session.command("status")
        assert status["recording"]["state"] == "failed"
        assert "No space left" in status["recording"]["detail"]
        assert "No space left" in session.event("recording_failed")["detail"]
        assert (status["missed_bins"], status["missing_samples"]) == (0, 0)
        source.push(counting(200, first=source.sent))
        session.bins(source.sent // 20)
        times, values, lost = read(session, unique_name)
        assert not lost
        assert len(times) > 1000
        np.testing.assert_array_equal(values, counting(len(times)))
