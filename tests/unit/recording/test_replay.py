"""A loop that is driven by hand, recorded and replayed: whatever came at whatever moment, the bins are the same."""

import json
import threading
import time

import numpy as np
import pytest
from tests.integration.models import loading
from tests.processes import wait_until
from tests.unit.recording.live import BY_COMMAND, HEADSET, Live, play

from neuroloop.errors import Conflict, ModelError
from neuroloop.recording.description import of_type
from neuroloop.recording.reader import open_xdf
from neuroloop.recording.verification import verify
from neuroloop.recording.what_if import what_if
from neuroloop.session.shadow import Shadow


@pytest.fixture(autouse=True)
def _quick_recorder(monkeypatch):
    monkeypatch.setattr("neuroloop.session.recorder.TURN_S", 0.0005)
    monkeypatch.setattr("tests.processes.PAUSE_S", 0.0005)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_comes_at_whatever_moment_the_replay_is_the_same(tmp_path, seed):
    random = np.random.default_rng(seed)
    live = Live(tmp_path)
    jitter = float(random.choice([0.0, 0.002]))
    play(live, random, 250, jitter)
    path = live.end()
    verdict = verify(path)
    assert verdict.first is None, str(verdict.first)
    assert verdict.ended is None
    assert verdict.is_identical
    assert verdict.predictions == len(live.publisher.predictions) > 150
    assert verdict.others == []


def test_a_headset_with_jitter_is_replayed_to_the_bit(tmp_path):
    live = Live(tmp_path, **HEADSET)
    for number in range(200):
        live.send(16, jitter=0.004)
        live.turn(2)
        if number % 20 == 19:
            live.ask("label", label="ab"[number // 20 % 2])
    path = live.end()
    assert {p["label"] for p in live.publisher.predictions} > {"a"}
    assert verify(path).is_identical


def test_the_guard_of_a_slow_decoder_acts_at_the_same_bin_in_the_replay(tmp_path):
    live = Live(tmp_path, decoders=[{"name": "one", "budget_ms": 1e-6, "overrun_bins": 3}])
    live.send(400)
    live.catch_up()
    live.ask("decoder_load", **loading())
    while live.loop.chain.decoders.active.name != "one" or not live.replies[-1].done():
        live.send(20)
        live.turn(2)
    for _ in range(6):
        live.send(20)
        live.turn(2)
    versions = [p["model"]["name"] for p in live.publisher.predictions]
    assert versions.count("reach") > 0
    assert versions[-1] == "one"  # the guard has gone back
    assert verify(live.end()).is_identical


def test_a_shadow_that_lost_bins_and_labels_is_replayed_without_them(tmp_path, monkeypatch):
    monkeypatch.setattr("neuroloop.session.shadow.QUEUE_LENGTH", 8)
    monkeypatch.setattr("neuroloop.session.shadow.LESSONS_KEPT", 1)
    process, works = Shadow.process, threading.Event()
    monkeypatch.setattr(Shadow, "process", lambda *item: works.wait(60) and process(*item))
    works.set()
    live = Live(tmp_path)
    for number in range(120):
        if number in (30, 90):
            works.clear()
        if number in (60, 100):
            works.set()
            wait_until(live.shadow_is_idle)
        if number in (95, 110):
            live.loop.journal.sheds("shadows", number == 95)
            live.loop.shedding.change("shadows", number == 95)
        live.send(20)
        live.turn(2)
        if number > 15 and number % 3 == 0:
            live.ask("label", label="ab"[number % 2])
    shadow = live.loop.chain.decoders.shadows["two"]
    wait_until(live.shadow_is_idle)
    time.sleep(0.02)
    path = live.end()
    assert shadow.skipped > 30
    assert shadow.unlearned > 0
    answered = sum(p["decoder"] == "two" for p in live.publisher.predictions)
    assert 0 < answered < live.loop.seq - 30
    monkeypatch.setattr(Shadow, "process", process)
    verdict = verify(path)
    assert verdict.first is None, str(verdict.first)
    assert verdict.is_identical
    assert verdict.predictions == len(live.publisher.predictions)


@pytest.mark.parametrize("seed", range(5))
def test_a_recording_that_began_at_whatever_moment_is_replayed_from_when_the_state_was_taken(tmp_path, seed):
    random = np.random.default_rng(100 + seed)
    live = Live(tmp_path, **BY_COMMAND)
    jitter = float(random.choice([0.0, 0.002]))
    play(live, random, int(random.integers(50, 150)), jitter)
    live.start_recording()
    play(live, random, 100, jitter)
    live.until_replayable()
    first = live.loop.recordings.describe()["replays_from"]
    play(live, random, 80, jitter)
    path = live.end()
    verdict = verify(path)
    assert verdict.first is None, str(verdict.first)
    assert verdict.ended is None
    assert verdict.is_identical
    assert verdict.predictions == sum(p["seq"] >= first for p in live.publisher.predictions) > 40
    assert verdict.first_bin == first


def test_of_a_session_that_is_recorded_twice_both_are_replayed(tmp_path):
    random = np.random.default_rng(1)
    live = Live(tmp_path, **BY_COMMAND)
    play(live, random, 60, 0.0)
    paths = []
    for _ in range(2):
        live.start_recording()
        live.until_replayable()
        play(live, random, 60, 0.002)
        paths.append(live.stop_recording())
    live.end()
    assert paths[0] != paths[1]
    for path in paths:
        assert verify(path).is_identical


def test_a_recording_that_began_while_the_session_was_stopped_is_replayed_from_its_next_start(tmp_path):
    live = Live(tmp_path, **BY_COMMAND)
    live.turn()
    live.send(603, jitter=0.002)
    live.catch_up()
    live.ask("label", label="a")
    live.ask("stop")
    live.turn()
    wait_until(live.shadow_is_idle)
    live.start_recording()
    wait_until(lambda: live.turn() or live.loop.recordings.describe()["replays_from"] is not None)
    live.ask("start")
    live.turn()
    live.connect()
    live.count += 500
    live.send(600, jitter=0.002)
    bins = live.loop.seq
    path = live.end()
    verdict = verify(path)
    assert verdict.is_identical, str(verdict)
    assert verdict.first_bin == bins
    assert verdict.before <= 1  # what the shadow had at hand


def test_a_recording_that_could_not_begin_is_not_begun_by_a_process_in_the_place_of_this_one(tmp_path):
    live = Live(tmp_path, recording={"automatic": False, "least_free_mb": 1 << 40})
    live.turn()
    with pytest.raises(Conflict, match="free"):
        live.start_recording()
    wait_until(lambda: live.turn() or not live.loop.recordings.is_wanted)
    live.loop.close()


def test_a_recording_whose_session_has_no_quiet_moment_says_why_and_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("neuroloop.session.recorded_state.PATIENCE_S", 0.0)
    monkeypatch.setattr("neuroloop.session.recorded_state.lacking", lambda loop: "a decoder is being exchanged")
    live = Live(tmp_path, **BY_COMMAND)
    live.turn()
    live.send(300)
    live.catch_up()
    live.start_recording()
    live.send(300)
    live.catch_up()
    told = live.loop.recordings.describe()
    assert (told["replays_from"], told["lacks"]) == (None, "a decoder is being exchanged")
    path = live.end()
    with pytest.raises(ModelError, match="ended before it had the session's state"):
        verify(path)
    with open_xdf(path) as file:
        (events,) = of_type(file, "neuroloop-events")
        texts = [json.loads(row[0]) for row in events.read().values]
    (event,) = [event for event in texts if event["event"] == "recording_not_replayable"]
    assert "can't be replayed so far" in event["detail"]


def test_a_shadow_that_does_not_come_to_the_question_is_told_and_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr("neuroloop.session.loop_state.SHADOWS_S", 0.05)
    monkeypatch.setattr("neuroloop.session.recorded_state.AGAIN_S", 0.0)
    process, works = Shadow.process, threading.Event()
    monkeypatch.setattr(Shadow, "process", lambda *item: works.wait(60) and process(*item))
    works.set()
    live = Live(tmp_path, **BY_COMMAND)
    live.loop.checkpoints.begin(tmp_path / "kept" / "s", False)
    live.turn()
    live.send(300)
    live.catch_up()
    wait_until(lambda: live.turn() or live.loop.checkpoints.describe())
    works.clear()
    live.send(100)
    live.ask("label", label="a")  # waits for the shadow, as the bins do
    live.catch_up()
    live.start_recording()
    wait_until(lambda: live.turn() or "a shadow did not come" in live.loop.recordings.describe()["lacks"])
    works.set()
    live.until_replayable()
    live.send(300)
    live.catch_up()
    wait_until(live.shadow_is_idle)
    time.sleep(0.02)
    path = live.end()
    monkeypatch.setattr(Shadow, "process", process)
    assert verify(path).is_identical


def test_another_setting_is_tried_on_a_recording_that_began_while_the_session_ran(tmp_path):
    random = np.random.default_rng(3)
    live = Live(tmp_path, **BY_COMMAND, **HEADSET)
    live.turn()
    for label in "abab":
        live.send(800)
        live.catch_up()
        live.ask("label", label=label)
    live.catch_up()
    live.start_recording()
    live.until_replayable()
    play(live, random, 150, 0.0, rate=0.0)
    path = live.end()
    same = what_if(path, None, {})
    assert same.agreement == 1.0
    assert same.compared > 20
    other = what_if(path, None, {"rereference.ridge": 0.5})
    assert other.compared > 20
    assert other.changes == {"rereference.ridge": 0.5}
    assert what_if(path, None, {"bin_ms": 40}).replayed.bins == pytest.approx(same.replayed.bins / 2, abs=2)
    assert verify(path).is_identical
