"""Encoders that are recorded and replayed: whatever came when, late, twice or never, their answers are the same."""

import threading

import numpy as np
import pytest
from tests.integration.models import bank, encoder_loading
from tests.processes import wait_until
from tests.unit.recording.live import SRATE
from tests.unit.recording.live_stimulus import LiveWithStimulus
from typer.testing import CliRunner

from neuroloop.cli import app
from neuroloop.recording.verification import verify
from neuroloop.session.encoder_loading import build
from neuroloop.session.loop_state import lacking

SRATES = (0.0, 100.0, 30.0)


def something(live, random):
    match random.integers(9):
        case 0 | 1:
            version = int(random.integers(1, 9))
            shadow = {"role": "shadow", "encoder": "beside"} if random.random() < 0.5 else {}
            name = {"cells": ("c0", "c2"), "frame": (1, 2, 2)}
            live.ask("encoder_load", **encoder_loading(version, bank(**name, gain=1.0 + version).save(), **shadow))
        case 2:
            live.ask("encoder_rollback")
        case 3:
            live.ask("encoder_promote", name="beside")
        case 4:
            live.stimulus.inlet.clock_offset = float(random.normal(0, 0.01))
        case 5:
            live.frames += random.uniform(0, 0.2)
            live.find()
        case 6:
            live.find(f"movie-{random.integers(99)}")
        case 7:
            live.show(random.uniform(0.1, 1.0), 0.0)  # ahead of its bins, or more than there is room for
        case 8:
            live.send(int(random.integers(1, 90)), missing=int(random.integers(1, 90)))


@pytest.fixture(autouse=True)
def _quick_recorder(monkeypatch):
    monkeypatch.setattr("neuroloop.session.recorder.TURN_S", 0.0005)
    monkeypatch.setattr("tests.processes.PAUSE_S", 0.0005)
    monkeypatch.setattr("neuroloop.session.shedding.OVERLOAD_SHARE", 2.0)  # a test that never waits is no overload


def begun(folder, srate, **changes):
    """A session with an encoder."""
    live = LiveWithStimulus(folder, srate, buffer_s=1.0, **changes)
    live.ask("encoder_load", **encoder_loading(1))
    wait_until(lambda: live.turn() or live.loop.encoders.has_any)
    return live


def play(live, random, steps, jitter):
    """Let samples, frames and whatever else come, at random moments."""
    for _ in range(steps):
        live.send(int(random.integers(1, 60)))
        live.turn(int(random.integers(3)))
        if live.frames < live.count / SRATE and random.random() < 0.8:
            live.show(random.uniform(0, 1.1) * (live.count / SRATE - live.frames), jitter)
        if random.random() < 0.15:
            something(live, random)
        if random.random() < 0.3:
            live.answered()


def ended(live):
    live.catch_up()
    live.answered()
    live.turn(3)
    return live.end()


@pytest.mark.parametrize("seed", [0, 1, 2, 3, 25, 41])
def test_whatever_came_at_whatever_moment_encoders_answer_the_same(tmp_path, seed):
    random = np.random.default_rng(seed)
    live = begun(tmp_path, float(random.choice(SRATES)))
    play(live, random, 150, float(random.choice([0.0, 0.002])))
    verdict = verify(ended(live))
    assert verdict.first is None, str(verdict.first)
    assert verdict.is_identical
    assert verdict.encodings > 50


@pytest.mark.parametrize("seed", range(8))
def test_in_a_recording_that_began_at_whatever_moment_encoders_answer_the_same(tmp_path, seed):
    random = np.random.default_rng(200 + seed)
    live = begun(tmp_path, float(random.choice(SRATES)), recording=False)
    jitter = float(random.choice([0.0, 0.002]))
    play(live, random, int(random.integers(20, 120)), jitter)
    live.start_recording()
    play(live, random, 40, jitter)
    live.until_replayable()
    first = live.loop.recordings.describe()["replays_from"]
    play(live, random, 80, jitter)
    verdict = verify(ended(live))
    assert verdict.first is None, str(verdict.first)
    assert verdict.is_identical
    assert verdict.first_bin == first
    assert verdict.encodings > 30
    assert verdict.unchecked == 0


def record(live):
    """From now on, with nothing that comes until the state is taken."""
    live.start_recording()
    wait_until(lambda: live.turn() or live.loop.recordings.describe()["replays_from"] is not None)


def test_a_stimulus_that_was_found_and_not_used_when_the_state_was_taken_is_used_from_there_on(tmp_path):
    live = begun(tmp_path, 100.0, recording=False)
    play(live, np.random.default_rng(7), 40, 0.002)
    live.frames = live.count / SRATE
    live.catch_up()
    live.answered()
    live.find("another")
    ring = live.stimulus.source.ring
    live.show(0.9, 0.008)
    wait_until(lambda: ring.consumed > 0)  # the oldest were judged, and let go of
    record(live)
    for _ in range(40):
        live.send(60)
        live.turn(3)
        live.show(0.06, 0.008)
    verdict = verify(ended(live))
    assert verdict.is_identical, str(verdict)
    assert verdict.encodings > 100


def test_a_state_waits_for_an_encoder_that_is_being_loaded(tmp_path, monkeypatch):
    is_built = threading.Event()
    live = begun(tmp_path, 100.0, recording=False)
    live.answered()
    wait_until(lambda: live.turn() or lacking(live.loop) is None)
    monkeypatch.setattr("neuroloop.session.encoders.build", lambda *asked: is_built.wait(60) and build(*asked))
    live.ask("encoder_load", **encoder_loading(2))
    live.turn(3)
    assert lacking(live.loop) == "an encoder is being loaded"
    is_built.set()
    wait_until(lambda: live.turn() or lacking(live.loop) is None)
    live.loop.close()


def test_an_encoder_that_can_not_go_on_makes_no_state(tmp_path, monkeypatch):
    live = begun(tmp_path, 100.0, recording=False)
    live.send(200)
    live.show(0.2, 0.0)
    live.catch_up()
    live.answered()
    thread, told = live.loop.encoders._thread, []
    run_between_bins, event = thread.run_between_bins, live.loop.event

    def break_first(take):  # in one step: the next bin would show that it is broken, and it would be taken out
        def run():
            thread.encoding.view.active.bank._state.ring[:] = np.inf
            take()

        run_between_bins(run)

    def listen(kind, detail, **facts):
        told.extend([detail] if kind == "recording_not_replayable" else [])
        event(kind, detail, **facts)

    monkeypatch.setattr(thread, "run_between_bins", break_first)
    monkeypatch.setattr(live.loop, "event", listen)
    live.start_recording()
    wait_until(lambda: live.turn() or told)
    assert "'retina' holds values that are not finite" in told[0]
    live.end()


def test_what_a_recording_without_the_encoders_state_does_not_compare_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("neuroloop.session.encoders.Encoders.remember", lambda self: lambda: None)
    monkeypatch.setattr("neuroloop.logs.configure_log", lambda level: None)
    live = begun(tmp_path, 100.0, recording=False)
    record(live)
    for _ in range(30):
        live.send(20)
        live.show(0.02, 0.0)
        live.turn(2)
    path = ended(live)
    verdict = verify(path)
    assert (verdict.is_identical, verdict.encodings) == (True, 0)
    assert verdict.unchecked > 20
    said = CliRunner().invoke(app, ["replay", str(path), "--verify"])
    assert f"{verdict.unchecked} answers of encoders not compared" in said.output
    assert said.exit_code == 0
