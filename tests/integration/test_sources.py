"""The sources over real LSL: what arrives is what was known beforehand."""

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pylsl
import pytest

from neuroloop.recording.writer import XdfWriter, stream_header
from neuroloop_sources import Recording, SimulatorSettings, Truth, play, run
from neuroloop_sources.loaders import open_source
from neuroloop_sources.outlets import FORMATS
from neuroloop_sources.recordings import reader
from neuroloop_sources.voltage import Voltage

TIMEOUT_S = 20.0
SESSION = {"channel_count": 6, "trial_s": 0.2, "seed": 11}


class Receiver:
    """Inlets of a source's two streams."""

    def __init__(self, name: str) -> None:
        markers, samples = (pylsl.resolve_byprop("name", n, 1, TIMEOUT_S) for n in (f"{name}-markers", name))
        self.marker_inlet = pylsl.StreamInlet(markers[0], recover=False)
        self.inlet = pylsl.StreamInlet(samples[0], recover=False)
        self.info = self.inlet.info(TIMEOUT_S)
        self.marker_inlet.open_stream(TIMEOUT_S)
        self.inlet.open_stream(TIMEOUT_S)

    def samples(self, count: int) -> tuple[np.ndarray, np.ndarray]:
        """The next `count` samples and their times."""
        dtype = FORMATS[self.info.as_xml().split("<channel_format>")[1].split("<")[0]]
        data, times = np.empty((count, self.info.channel_count()), dtype), []
        while len(times) < count:
            buffer = np.empty((count - len(times), data.shape[1]), dtype)
            _, new = self.inlet.pull_chunk(timeout=TIMEOUT_S, max_samples=len(buffer), dest_obj=buffer, min_samples=1)
            assert new, f"{len(times)} of {count} samples came"
            data[len(times) : len(times) + len(new)] = buffer[: len(new)]
            times += new
        return data, np.array(times)

    def markers(self, count: int) -> list[tuple[str, float]]:
        received = [self.marker_inlet.pull_sample(timeout=TIMEOUT_S) for _ in range(count)]
        assert all(sample is not None for sample, _ in received)
        return [(sample[0], time) for sample, time in received]


Running = tuple[Receiver, list[float]]


@contextmanager
def source(start: Callable[..., int], name: str, **arguments: Any) -> Iterator[Running]:
    """A source in a thread of its own that waits for its receiver; its start time appears in the list."""
    stop, begun, start_time = threading.Event(), threading.Event(), []

    def ready(time: float) -> None:
        start_time.append(time)
        begun.set()

    thread = threading.Thread(
        target=start, kwargs={"stop": stop, "ready": ready, "wait_for_consumers": True, **arguments}, daemon=True
    )
    thread.start()
    try:
        receiver = Receiver(name)
        assert begun.wait(TIMEOUT_S)
        yield receiver, start_time
    finally:
        stop.set()
        thread.join(TIMEOUT_S)
    assert not thread.is_alive()


@contextmanager
def simulated(settings: SimulatorSettings, **arguments: Any) -> Iterator[Running]:
    with source(lambda **rest: run(settings, **rest), settings.name, **arguments) as parts:
        yield parts


@contextmanager
def played(recording: Recording, **arguments: Any) -> Iterator[Running]:
    with source(lambda **rest: play(recording, **rest), recording.name, **arguments) as parts:
        yield parts


@pytest.mark.parametrize("format", ["float32", "int16"])
def test_what_the_simulator_streams_is_what_its_settings_say_sample_by_sample(unique_name: str, format: str) -> None:
    settings = SimulatorSettings(name=unique_name, source_id=unique_name, format=format, **SESSION)
    count, period = 30_000, 1 / 30_000
    with simulated(settings) as (receiver, start_time):
        data, times = receiver.samples(count)
        markers = receiver.markers(5)
    assert data.tobytes() == Voltage(settings)(0, count).tobytes()
    np.testing.assert_allclose(times, start_time[0] + np.arange(count) * period, rtol=0, atol=0.01 * period)
    truth = Truth(settings)
    assert [text for text, _ in markers] == [truth.label(trial) for trial in range(5)]
    expected = start_time[0] + np.arange(5) * settings.trial_samples * period
    np.testing.assert_allclose([time for _, time in markers], expected, rtol=0, atol=1e-9)


def test_the_blocking_transport_streams_the_same(unique_name: str) -> None:
    settings = SimulatorSettings(name=unique_name, source_id=unique_name, chunk_ms=2.5, **SESSION)
    with simulated(settings, blocking=True, speed=2.0) as (receiver, _):
        data, _ = receiver.samples(9000)
    assert data.tobytes() == Voltage(settings)(0, 9000).tobytes()


def test_the_simulated_stream_describes_its_channels(unique_name: str) -> None:
    settings = SimulatorSettings(name=unique_name, source_id=f"{unique_name}-id", channel_count=40)
    with simulated(settings) as (receiver, _):
        info, markers = receiver.info, receiver.marker_inlet.info(TIMEOUT_S)
    assert (info.type(), info.source_id(), info.nominal_srate()) == ("Ephys", f"{unique_name}-id", 30_000)
    assert (markers.type(), markers.source_id()) == ("Markers", f"{unique_name}-id-markers")
    assert info.get_channel_labels() == list(settings.channels)
    assert info.get_channel_units() == ["microvolts"] * 40
    channel = info.desc().child("channels").last_child()
    assert (channel.child_value("label"), channel.child_value("bank")) == ("ch040", "B")
    location = info.desc().child("channels").child("channel").next_sibling("channel").child("location")
    assert [float(location.child_value(axis)) for axis in "XYZ"] == settings.positions_mm[1].tolist()


def test_a_simulated_session_of_some_seconds_ends_by_itself(unique_name: str) -> None:
    settings = SimulatorSettings(name=unique_name, source_id=unique_name, **SESSION)
    with simulated(settings, seconds=0.1001) as (receiver, _):
        data, _ = receiver.samples(3003)
        with pytest.raises(pylsl.util.LostError):
            receiver.inlet.pull_sample(timeout=TIMEOUT_S)
    assert data.tobytes() == Voltage(settings)(0, 3003).tobytes()


def recording(name: str, **changes: Any) -> Recording:
    random = np.random.default_rng(0)
    samples = random.integers(-100, 100, (600, 3))
    facts: dict[str, Any] = {
        "name": name,
        "type": "EEG",
        "nominal_srate": 1000.0,
        "sample_count": len(samples),
        "channels": ("Fp1", "Cz", "Oz"),
        "units": ("microvolts",) * 3,
        "format": "float32",
        "read": reader(samples.astype(np.float32)),
        "markers": ((0.0, "go"), (0.10005, "stop"), (0.4, "go")),
    }
    return Recording(**{**facts, **changes})


@pytest.mark.parametrize("format", FORMATS)
def test_a_recording_is_played_in_every_numeric_format(unique_name: str, format: str) -> None:
    original = recording(unique_name)
    with played(original, format=format) as (receiver, start_time):
        data, times = receiver.samples(600)
        markers = receiver.markers(3)
    assert data.dtype == FORMATS[format]
    np.testing.assert_array_equal(data, original.read(0, 600))
    np.testing.assert_allclose(times - start_time[0], np.arange(600) / 1000, rtol=0, atol=1e-6)
    assert [text for text, _ in markers] == ["go", "stop", "go"]
    np.testing.assert_allclose([time - start_time[0] for _, time in markers], [0.0, 0.10005, 0.4], rtol=0, atol=1e-9)


@pytest.mark.parametrize("chunk", [1, 7, 250])
def test_chunks_of_any_size_carry_the_same_samples_at_the_same_times(unique_name: str, chunk: int) -> None:
    original = recording(unique_name)
    with played(original, chunk=chunk, speed=4.0, loop=True, start_time=1000.0) as (receiver, _):
        data, times = receiver.samples(900)
    np.testing.assert_array_equal(data, np.concatenate([original.read(0, 600), original.read(0, 300)]))
    np.testing.assert_allclose(times, 1000 + np.arange(900) / 1000, rtol=0, atol=1e-6)


def test_recorded_times_are_played_as_they_were(unique_name: str) -> None:
    jittered = np.arange(600) / 1000 + np.random.default_rng(1).uniform(0, 0.0009, 600)
    with played(recording(unique_name, times=reader(jittered)), recorded_times=True) as (receiver, start_time):
        _, times = receiver.samples(600)
    np.testing.assert_allclose(times - start_time[0], jittered, rtol=0, atol=1e-9)


def test_an_xdf_file_is_played_with_its_labels_pauses_and_markers(unique_name: str, tmp_path: Path) -> None:
    values = np.random.default_rng(0).integers(-100, 100, (300, 2)).astype(np.int16)
    times = 50 + np.arange(300) / 1000
    times[100:] += 0.7
    with XdfWriter(tmp_path / "session.xdf") as writer:
        array = writer.add_stream(
            stream_header(name=unique_name, type="EEG", channels=["Fp1", "Cz"], format="int16", nominal_srate=1000.0)
        )
        cues = writer.add_stream(stream_header(name="cues", type="Markers", channels=["cue"], format="string"))
        writer.samples(array, times, values)
        writer.samples(cues, [50.02, 50.95], [["go"], ["stop"]])
    original = open_source(str(writer.path))
    with played(original, recorded_times=True) as (receiver, start_time):
        data, received = receiver.samples(300)
        markers = receiver.markers(2)
        assert receiver.info.get_channel_labels() == ["Fp1", "Cz"]
    assert data.tobytes() == values.tobytes()
    np.testing.assert_allclose(received - start_time[0], times - 50, rtol=0, atol=1e-9)
    assert [text for text, _ in markers] == ["go", "stop"]
    np.testing.assert_allclose([time - start_time[0] for _, time in markers], [0.02, 0.95], rtol=0, atol=1e-6)


@contextmanager
def command(*arguments: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        [sys.executable, "-m", "neuroloop_sources", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=dict(os.environ),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def test_the_command_says_when_it_began_and_saves_the_truth(unique_name: str, tmp_path: Path) -> None:
    file = tmp_path / "truth.npz"
    flags = ["--channel-count", "4", "--trial-s", "0.1", "--seed", "3", "--seconds", "0.25", "--truth", str(file)]
    names = ["--name", unique_name, "--source-id", unique_name]
    with command("simulate", *names, *flags, "--wait", "--json") as process:
        receiver = Receiver(unique_name)
        said = json.loads(process.stdout.readline() if process.stdout else "")
        data, times = receiver.samples(7500)
        assert process.wait(TIMEOUT_S) == 0
    settings = SimulatorSettings(name=unique_name, source_id=unique_name, channel_count=4, trial_s=0.1, seed=3)
    assert said == {"ready": True, **vars(settings), "start_time": pytest.approx(times[0], abs=1e-6)}
    assert data.tobytes() == Voltage(settings)(0, 7500).tobytes()
    with np.load(file, allow_pickle=False) as saved:
        assert saved["trial_label"].tolist() == [Truth(settings).label(trial) for trial in range(3)]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_command_without_a_traceback(unique_name: str, number: signal.Signals) -> None:
    with command("simulate", "--name", unique_name, "--source-id", unique_name, "--channel-count", "4") as process:
        assert process.stdout is not None
        assert unique_name in process.stdout.readline()
        process.send_signal(number)
        _, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 0
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["play", "missing.edf"], "missing.edf"),
        (["simulate", "--chunk-ms", "0"], "chunk_ms"),
        (["faults", "--from", "a", "--to", "b", "--fault", "drop,dorp"], "dorp"),
    ],
)
def test_what_cannot_run_ends_with_one_clear_line(arguments: list[str], named: str) -> None:
    with command(*arguments) as process:
        output, errors = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == 1
    assert output == ""
    assert errors.startswith("error: ")
    assert named in errors
    assert errors.count("\n") == 1


@pytest.mark.realdata
def test_the_command_plays_a_recording(unique_name: str, recordings: Path) -> None:
    file = str(recordings / "hc_linear_track.npz")
    with command("play", file, "--name", unique_name, "--speed", "100", "--wait", "--json") as process:
        receiver = Receiver(unique_name)
        said = json.loads(process.stdout.readline() if process.stdout else "")
        _, times = receiver.samples(2000)
        markers = receiver.markers(1)
    assert (said["ready"], said["channel_count"], said["nominal_srate"]) == (True, 31, 50.0)
    np.testing.assert_allclose(times - said["start_time"], np.arange(2000) / 50, rtol=0, atol=1e-6)
    assert markers[0][0].startswith("p")
