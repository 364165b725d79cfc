"""Recordings of real sessions, replayed: every prediction the same, whatever happened."""

import json
import os
import signal
import time

import numpy as np
import pylsl
import pytest
from tests.integration.conftest import ALL
from tests.integration.models import loading, trained, weights
from tests.integration.test_recording import RECORDING, on_disk, path_of

from neuroloop.configs import example
from neuroloop.models.maxrate import MaxRate
from neuroloop.recording.reader import open_xdf
from neuroloop.recording.spike_times import spike_times
from neuroloop.recording.verification import verify
from neuroloop.recording.what_if import Model, what_if
from neuroloop.server_config import load

BROADBAND = {
    "front_end": {"kind": "broadband", "band": [100.0, 450.0], "calibration_s": 0.2},
    "rereference": {"update_every_s": 0.25, "min_samples_per_channel": 1},
    "window": 5,
    "classes": ALL,
    "outlets": {"enabled": False},
}


def noise(samples, channels=8, seed=0):
    """Independent noise on a common mode; spikes on the first half of the channels, or for even seeds on the second."""
    random = np.random.default_rng(seed)
    made = random.normal(0, 20, (samples, 1)) + random.normal(0, 5, (samples, channels))
    fires = random.random(made.shape) < 0.02
    fires[:, : channels // 2] &= bool(seed % 2)
    fires[:, channels // 2 :] &= not seed % 2
    for width in range(3):
        made -= 150 * np.roll(fires, width, axis=0)
    return made.astype(np.float32)


@pytest.fixture
def broadband(start_session, unique_name):
    """A function that starts a recorded session on voltage."""

    def start(exit_code=0, **changes):
        settings = {"name": unique_name, "stream": {"name": unique_name}, "recording": RECORDING}
        return start_session(exit_code=exit_code, **settings | BROADBAND | changes)

    return start


@pytest.fixture
def source(open_source, unique_name):
    return open_source(unique_name, channel_count=8, nominal_srate=2000.0)


def stream_live(session, source, seconds, seed, missing=0):
    """Send spikes at about twice real time, and wait until they were answered."""
    send_live(session, source, noise(round(seconds * source.nominal_srate), seed=seed), missing)


def send_live(session, source, data, missing=0, speed=2.0):
    """Send so many times real time, in 50 ms of data or less, and wait until it was answered."""
    step = min(100, round(0.05 * source.nominal_srate))
    for first in range(0, len(data), step):
        source.push(data[first : first + step], chunk=33, missing=missing if first == 0 else 0)
        time.sleep(step / source.nominal_srate / speed)  # a session that learns beside its loop must have the time to
    session.receive()


def kill(session, predictions):
    """End the process in the middle of its work, when so many predictions are on the disk."""
    on_disk(session, predictions=predictions)
    os.kill(session.process.pid, signal.SIGKILL)
    session.process.wait()


def checked(path, predictions):
    verdict = verify(path)
    assert verdict.first is None, str(verdict.first)
    assert verdict.ended is None
    assert verdict.is_identical
    assert verdict.predictions >= predictions
    return verdict


def has_spikes(path, least, runs):
    """Each at the time of a sample, and in one of so many intervals or more."""
    found = spike_times(path)
    with open_xdf(path) as file:
        (samples,) = [stream for stream in file.streams if stream.info.nominal_srate == 2000.0]
        stamps = samples.synchronised()
    times = np.sort(np.concatenate(found.times))
    after = np.clip(np.searchsorted(stamps, times), 1, len(stamps) - 1)
    assert np.minimum(np.abs(stamps[after] - times), np.abs(times - stamps[after - 1])).max() < 0.1 / 2000.0
    starts, ends = found.observed.T
    at = np.searchsorted(starts, times + 1e-6) - 1
    assert (times < ends[at]).all()
    assert len(times) > least
    assert len(starts) >= runs


def test_labels_fits_swaps_and_a_stream_that_returns_are_replayed_to_the_bit(
    broadband, source, open_source, unique_name
):
    shadows = [{"name": "one"}, {"name": "two", "role": "shadow"}]
    session = broadband(decoders=shadows)
    source.wait_for_consumers()
    stream_live(session, source, 1.0, seed=1)
    session.command("label", label="a")
    stream_live(session, source, 0.7, seed=2)
    session.command("label", label="b")
    session.ask("decoder_load", **loading(data=weights(trained(features=8)), state="carry"))
    stream_live(session, source, 0.6, seed=3)
    session.answer("decoder_load")
    session.command("rereference_fit", seconds=0.3)
    stream_live(session, source, 0.6, seed=4)
    session.event("fit_done")
    session.command("rereference_mode", mode="incremental", ridge=0.01)
    session.ask("decoder_promote", name="two")
    stream_live(session, source, 0.6, seed=5)
    session.answer("decoder_promote")
    start, sent, source.outlet = source.start, source.sent, None
    session.event("stream_lost")
    again = open_source(unique_name, channel_count=8, nominal_srate=2000.0)
    again.start, again.sent = start, sent
    again.wait_for_consumers()
    stream_live(session, again, 0.6, seed=6, missing=4000)
    session.command("rereference_load", weights=np.zeros((8, 8)).tobytes(), shape=[8, 8])
    session.command("label", label="a")
    stream_live(session, again, 0.3, seed=7)
    session.command("stop")
    session.command("start")
    session.event("stream_connected", 3)
    again.wait_for_consumers()
    stream_live(session, again, 0.4, seed=8, missing=1000)
    bins = session.bins(300)
    session.command("recording_stop")
    assert {p["model"]["name"] for p in bins} == {"one", "reach", "two"}
    assert len({p["rereference"] for p in bins}) > 4
    assert {p["label"] for p in bins} >= {"a", "b"}
    checked(path_of(session), 300)
    has_spikes(path_of(session), 1000, runs=3)


def test_a_session_that_was_killed_is_replayed_up_to_its_last_moment(broadband, source):
    session = broadband(exit_code=-signal.SIGKILL)
    source.wait_for_consumers()
    stream_live(session, source, 1.0, seed=1)
    session.command("label", label="a")
    stream_live(session, source, 0.4, seed=2)
    kill(session, predictions=60)
    checked(path_of(session), 60)
    has_spikes(path_of(session), 100, runs=1)


SRATE = 250.0  # of the headset


def rhythm(seconds, hertz, microvolts, channels=8, seed=0):
    """A headset's noise and one rhythm, which the channels share."""
    samples = round(seconds * SRATE)
    wave = microvolts * np.sin(2 * np.pi * hertz * np.arange(samples)[:, None] / SRATE)
    return (np.random.default_rng(seed).normal(0, 5, (samples, channels)) + wave).astype(np.float32)


def test_a_headset_session_that_was_killed_is_replayed_and_so_is_the_one_that_goes_on_in_its_place(
    start_session, open_source, unique_name, tmp_path
):
    settings = load(example("headset")).sessions[0].model_dump(mode="json")
    settings |= {"name": unique_name, "stream": {"name": unique_name}, "recording": RECORDING}
    settings["markers"][0]["stream"] = {"name": f"{unique_name}-m"}
    kept = {"checkpoint": str(tmp_path / "kept")}
    session = start_session(exit_code=-signal.SIGKILL, given=kept, **settings)
    cues = pylsl.StreamOutlet(
        pylsl.StreamInfo(f"{unique_name}-m", "Markers", 1, 0.0, pylsl.cf_string, f"{unique_name}-m")
    )
    source = open_source(unique_name, channel_count=8, nominal_srate=SRATE)
    source.wait_for_consumers()
    assert cues.wait_for_consumers(60)

    def cue(session, cue, microvolts, count, seed):
        cues.push_sample([cue], source.start + source.sent / SRATE)
        send_live(session, source, rhythm(3.0, 10, microvolts, seed=seed), speed=4)
        session.event("label_learned", count)

    send_live(session, source, rhythm(1.0, 10, 5), speed=4)
    cue(session, "eyes-open", 5, 1, seed=1)
    cue(session, "eyes-closed", 40, 2, seed=2)
    send_live(session, source, rhythm(3.0, 10, 5, seed=3), speed=4)
    kill(session, predictions=2 * 95)
    session.receive()
    assert {p["label"] for p in session.predictions()} == {None, "open", "closed"}
    assert session.predictions("shadow")
    checked(path_of(session), 2 * 95)
    seq = session.predictions()[-1]["seq"] + 1
    again = start_session(given=kept | {"goes_on": True, "seq": seq}, **settings)
    again.event("stream_connected", 2)
    source.wait_for_consumers()
    send_live(again, source, rhythm(2.0, 10, 5, seed=4), missing=500, speed=4)
    cue(again, "eyes-closed", 40, 1, seed=5)
    bins = again.predictions()
    assert again.events("session_restored")
    assert (bins[0]["seq"], bins[0]["gap"]) == (seq, True)
    assert bins[0]["model"]["learned"] == 2
    assert "closed" in {p["label"] for p in bins}
    again.command("recording_stop")
    checked(path_of(again), len(bins))


BY_COMMAND = RECORDING | {"automatic": False}


def record(session):
    """Begin, and wait until the session's state is in the recording; returns the file."""
    name = session.command("recording_start")["name"]
    session.until(lambda: session.command("status")["recording"]["replays_from"] is not None, "the state")
    return session.recordings / f"{name}.xdf"


def test_recordings_that_begin_and_end_while_a_session_learns_and_swaps_are_replayed_to_the_bit(broadband, source):
    shadows = [{"name": "one"}, {"name": "two", "role": "shadow"}]
    session = broadband(decoders=shadows, recording=BY_COMMAND)
    source.wait_for_consumers()
    stream_live(session, source, 1.0, seed=1)
    session.command("label", label="a")
    session.ask("decoder_load", **loading(data=weights(trained(features=8)), state="carry"))
    stream_live(session, source, 0.7, seed=2)
    session.answer("decoder_load")
    session.command("label", label="b")
    first = record(session)
    stream_live(session, source, 0.6, seed=3)
    session.command("decoder_rollback")
    session.command("label", label="a")
    stream_live(session, source, 0.5, seed=4)
    session.command("recording_stop")
    stream_live(session, source, 0.3, seed=5)
    second = record(session)
    session.ask("decoder_promote", name="two")
    stream_live(session, source, 0.5, seed=6)
    session.answer("decoder_promote")
    session.command("label", label="b")
    stream_live(session, source, 0.5, seed=7, missing=700)
    session.command("recording_stop")
    told = session.events("recording_replayable")
    assert [f"{event['recording']}.xdf" for event in told] == [first.name, second.name]
    for path, event in zip((first, second), told, strict=True):
        verdict = checked(path, 40)
        assert verdict.first_bin == event["first_seq"] > 0
    assert len({p["rereference"] for p in session.predictions()}) > 4


@pytest.mark.parametrize("kind", ["counts", "headset"])
def test_so_are_those_of_other_front_ends(kind, start_session, open_source, unique_name):
    rate = 1000.0 if kind == "counts" else SRATE
    settings = load(example(kind)).sessions[0].model_dump(mode="json")
    settings |= {"name": unique_name, "stream": {"name": unique_name}, "recording": BY_COMMAND, "markers": []}
    settings |= {"rereference": settings["rereference"] | {"clusters": None}, "outlets": {"enabled": False}}
    session = start_session(**settings)
    source = open_source(unique_name, channel_count=8, nominal_srate=rate)
    source.wait_for_consumers()

    def send(seconds, seed):
        if kind == "counts":
            fires = (np.arange(8) < 4) == seed % 2
            data = np.random.default_rng(seed).poisson(0.02 + 0.1 * fires, (round(seconds * rate), 8))
        else:
            data = rhythm(seconds, 10, 5 + 35 * (seed % 2), seed=seed)
        send_live(session, source, data.astype(np.float32), speed=4)

    classes = session.settings.classes
    send(3.0, seed=1)
    session.command("label", label=classes[0])
    path = record(session)
    send(3.0, seed=2)
    session.command("label", label=classes[1])
    send(3.0, seed=3)
    session.command("recording_stop")
    assert {p["label"] for p in session.predictions()} > {None}
    assert checked(path, 20).first_bin > 0


def test_a_recording_that_was_changed_is_told_with_bin_and_stage(broadband, source, tmp_path):
    session = broadband()
    source.wait_for_consumers()
    stream_live(session, source, 1.0, seed=1)
    session.command("label", label="a")
    stream_live(session, source, 0.4, seed=2)
    session.bins(60)
    session.command("recording_stop")
    content = path_of(session).read_bytes()
    changed = tmp_path / "changed.xdf"
    bin_40 = next(p for p in session.predictions() if p["seq"] == 40)
    was = json.dumps(bin_40).encode()
    changed.write_bytes(content.replace(was, was.replace(b'"gap": false', b'"gap": true ', 1)))
    verdict = verify(changed)
    assert not verdict.is_identical
    assert (verdict.first.bin, verdict.first.stage, verdict.first.what) == (40, "timeline", "gap")
    assert (verdict.first.recorded, verdict.first.replayed) == (True, False)


def test_another_decoder_and_another_setting_are_compared_with_what_was_answered(broadband, source):
    session = broadband()
    source.wait_for_consumers()
    stream_live(session, source, 1.0, seed=1)
    session.command("label", label="a")
    stream_live(session, source, 0.4, seed=2)
    session.command("label", label="b")
    stream_live(session, source, 0.8, seed=3)
    session.bins(100)
    session.command("recording_stop")
    path = path_of(session)
    same = what_if(path, None, {})
    assert (same.agreement, same.replayed.labelled) == (1.0, same.recorded.labelled)
    assert same.compared > 10
    assert what_if(path, None, {"bin_ms": 10}).replayed.bins == 2 * same.replayed.bins
    stubborn = MaxRate(list(ALL), 8)
    for _ in range(3):
        stubborn.learn(np.full(8, 1e-3, np.float32), 0)
        stubborn.learn(np.full(8, 1e6, np.float32), 1)
    other = what_if(path, Model("stubborn", 3, weights(stubborn)), {})
    assert other.changes == {"decoder": "stubborn@3"}
    assert other.agreement != 1.0
    assert verify(path).is_identical
