"""Encoders that are recorded and replayed: whatever came when, late, twice or never, their answers are the same."""

import threading
from types import SimpleNamespace

import numpy as np
import pytest
from tests.integration.models import bank, encoder_loading
from tests.processes import wait_until
from tests.unit.recording.live import SRATE, Live
from typer.testing import CliRunner

from neuroloop.cli import app
from neuroloop.recording.verification import verify
from neuroloop.recording.writer import stream_header
from neuroloop.session.encoder_loading import build
from neuroloop.session.inlet import Receiving
from neuroloop.session.loop_state import lacking
from neuroloop.session.stimulus import Stimulus
from neuroloop.session.streams import StreamDescription

SRATES = (0.0, 100.0, 30.0)
PIXELS = ("p1", "p2", "p3", "p4")
COUNTS = {
    "front_end": {"kind": "counts"},
    "bin_ms": 20.0,
    "encoder": {"online": True},
}


class StimulusByHand(Stimulus):
    """Frames come when the test says so."""

    def start(self):
        self.inlet = SimpleNamespace(clock_offset=0.0, receiving=None, measured=[], state="connected", last_arrival=0)

    def stop(self):
        return


class LiveWithStimulus(Live):
    make_stimulus = StimulusByHand

    def __init__(self, folder, srate, recording=True, **stimulus):
        self.srate, self.frames = srate, 0.0  # seconds of frames that were sent
        changes = COUNTS | {"recording": {"automatic": recording, "least_free_mb": 0}}
        super().__init__(folder, **changes, stimulus={"name": "movie", "patience_ms": 1.0, **stimulus})
        self.stimulus = self.loop.encoders.stimulus
        self.turn()
        self.find()

    def find(self, source_id="movie"):
        """A stream of frames: another one, or one that was lost and is back."""
        header = {"name": "movie", "type": "V", "channels": PIXELS, "format": "float32", "nominal_srate": self.srate}
        places = ("",) * 4, (None,) * 4
        stream = StreamDescription("movie", "V", source_id, "h", 4, self.srate, "float32", PIXELS, *places)
        ring = self.stimulus._prepare(self.stimulus.inlet, stream, np.dtype(np.float32))
        self.stimulus.inlet.receiving = Receiving(stream_header(**header), ring, ring.written)

    def show(self, seconds, jitter):
        """So much of the stimulus comes."""
        ring, period = self.stimulus.source.ring, 1 / (self.srate or 70.0)
        for number in range(round(seconds / period)):
            if number % 16 == 0:
                self.be_shown(ring)
            slot, room = ring.room()
            self.frames += period
            if room == 0:
                ring.overrun(0.0)
                continue
            ring.samples[slot] = self.random.normal(0, 1, 4)
            ring.times[slot] = self.frames + (self.random.normal(0, jitter) if jitter else 0.0)
            ring.commit(1, self.loop.clock())
        self.stimulus._bell.set()
        self.be_shown(ring)

    def be_shown(self, ring):
        """As `be_recorded`, for frames."""
        if (recorder := self.loop.recordings._recorder) is None:
            return
        wait_until(lambda: any(s.ring is ring and s.at == ring.written for s in recorder._sources))

    def answered(self):
        """The encoders have come to the newest bin."""
        wait_until(lambda: self.loop.encoders.waiting == 0)


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
