"""A loop that is driven by hand, recorded and replayed: whatever came at whatever moment, the bins are the same."""

import json
import threading
import time
from concurrent.futures import Future

import msgpack
import numpy as np
import pytest
from tests.integration.models import loading, trained, weights
from tests.processes import wait_until

from neuroloop.config import parse_session
from neuroloop.errors import ModelError
from neuroloop.recording.description import of_type
from neuroloop.recording.reader import open_xdf
from neuroloop.recording.verification import verify
from neuroloop.recording.what_if import what_if
from neuroloop.recording.writer import stream_header
from neuroloop.session.chain import make_chain
from neuroloop.session.commands import HANDLERS
from neuroloop.session.inbox import Command, Found, Inbox, MarkerLabel
from neuroloop.session.inlet import Receiving, SampleInlet
from neuroloop.session.loop import Loop
from neuroloop.session.shadow import Shadow
from neuroloop.session.stimulus import Stimulus
from neuroloop.session.streams import StreamDescription

SRATE, CHANNELS = 1000.0, 4
LABELS = tuple(f"c{number}" for number in range(CHANNELS))
SETTINGS = {
    "name": "s",
    "stream": {"name": "x", "buffer_s": 1.0},
    "front_end": {"kind": "broadband", "band": [50.0, 400.0], "calibration_s": 0.1},
    "rereference": {"update_every_s": 0.1, "min_samples_per_channel": 1},
    "window": 3,
    "classes": ["a", "b"],
    "decoders": [{"name": "one"}, {"name": "two", "role": "shadow"}],
    "outlets": {"enabled": False},
    "recording": {"automatic": True, "least_free_mb": 0},
}
HEADSET = {
    "front_end": {"kind": "bandpower"},
    "decoders": [{"name": "one"}],
    "rereference": {"initial": "car"},
}


class Inlet(SampleInlet):
    def start(self):
        self.state = "connected"

    def join(self, timeout=None):
        return


class Bell(Inbox):
    def wait(self, timeout):
        return


class Publisher:
    def __init__(self):
        self.tap = None
        self.predictions = []

    def wants(self, topic):
        return False

    def __call__(self, topic, message):
        packed = msgpack.packb(message)
        if topic == b"predictions":
            self.predictions.append(message)
        if self.tap is not None:
            self.tap(topic, packed)


def at(recorder, ring):
    return max([source.at for source in recorder._sources if source.ring is ring], default=-1)


class Live:
    """A session whose samples and turns are the test's."""

    make_stimulus = Stimulus

    def __init__(self, folder, **changes):
        self.session = parse_session(SETTINGS | changes)
        self.inbox, self.publisher = Bell(), Publisher()
        given = {"make_inlet": Inlet, "make_stimulus": self.make_stimulus, "recordings": folder}
        self.loop = Loop(self.session, self.publisher, self.inbox, **given)
        self.random = np.random.default_rng(0)
        self.count = 0  # samples of time that have passed
        self.replies = []
        self.loop.recordings.begin()
        self.loop.start()
        self.connect()

    def connect(self):
        description = StreamDescription(
            "x", "EEG", "x", "h", CHANNELS, SRATE, "float32", LABELS, ("",) * CHANNELS, (None,) * CHANNELS
        )
        chain = self.loop.chain
        if chain is None:
            chain = make_chain(self.session, description, np.dtype(np.float32))
        header = stream_header(name="x", type="EEG", channels=LABELS, format="float32", nominal_srate=SRATE)
        self.ring = chain.ring
        self.loop.inlet.receiving = Receiving(header, self.ring, self.ring.written)
        self.inbox.put(Found(self.loop.inlet, chain, self.ring.written))

    def send(self, count, jitter=0.0, missing=0):
        """As an acquire thread does: what has no room is dropped."""
        self.count += missing
        while count:
            slot, room = self.ring.room()
            if room == 0:
                self.ring.overrun(time.monotonic() + 1e9)
                self.count += count
                return
            part = min(count, room, self.ring.most_at_once)
            voltage = self.random.normal(0, 5, (part, CHANNELS)) + self.random.normal(0, 20, (part, 1))
            voltage[self.random.random(part) < 0.05, self.random.integers(CHANNELS)] -= 200
            late = self.random.normal(0, jitter) if jitter else 0.0
            self.ring.samples[slot : slot + part] = voltage
            self.ring.times[slot : slot + part] = (self.count + np.arange(part)) / SRATE + late
            self.ring.commit(part, self.loop.clock())
            self.count += part
            count -= part
            self.be_recorded()

    def be_recorded(self):
        """The test is faster than time; a recorder must not be lapped by that."""
        if (recorder := self.loop.recordings._recorder) is not None:
            wait_until(lambda: recorder.is_alive() and self.ring.written == at(recorder, self.ring))

    def turn(self, count=1):
        for _ in range(count):
            self.loop.turn(HANDLERS)

    def catch_up(self):
        before = None
        while before != (before := (self.loop.seq, self.ring.consumed)):
            self.turn()

    def shadow_is_idle(self):
        return self.loop.chain.decoders.shadows["two"].waiting == 0

    def ask(self, name, /, **arguments):
        self.replies.append(Future())
        self.inbox.put(Command(name, arguments, self.replies[-1]))

    def start_recording(self):
        self.ask("recording_start")
        wait_until(lambda: self.turn() or self.replies[-1].done())
        self.replies[-1].result()

    def stop_recording(self):
        """Returns the file."""
        path = self.loop.recordings._recorder.path
        self.ask("recording_stop")
        wait_until(lambda: self.turn() or self.replies[-1].done())
        self.replies[-1].result()
        return path

    def until_replayable(self):
        """The loop's state is in the recording, as soon as there is a moment for it."""

        def is_replayable():
            self.send(7)
            self.turn()
            return self.loop.recordings.describe()["replays_from"] is not None

        wait_until(is_replayable)

    def end(self):
        """Returns the newest recording."""
        self.catch_up()
        self.loop.recordings.end()
        self.loop.close()
        return self.loop.recordings._recorder.path


def something(live, random):
    """One of the things that may come from outside."""
    match random.integers(16):
        case 0 | 1:
            live.ask("label", label=str(random.choice(["a", "b"])))
        case 2:
            start = live.count / SRATE + random.uniform(-0.3, 0.3)
            live.inbox.put(MarkerLabel("a", start, start + 0.1))
        case 3:
            live.ask("rereference_mode", mode=str(random.choice(["incremental", "forgetting", "frozen"])), ridge=0.1)
        case 4:
            live.ask("rereference_fit", seconds=0.05)
        case 5:
            matrix = random.normal(0, 0.1, (CHANNELS, CHANNELS)) * (1 - np.eye(CHANNELS))
            live.ask("rereference_load", weights=matrix.tobytes(), shape=[CHANNELS, CHANNELS])
        case 6 | 7:
            state, role = str(random.choice(["carry", "reprime", "cold"])), str(random.choice(["active", "shadow"]))
            live.ask(
                "decoder_load",
                **loading(data=weights(trained(lessons=int(random.integers(3)))), state=state, role=role),
            )
        case 8:
            live.ask("decoder_rollback")
        case 9:
            live.ask("decoder_promote", name=str(random.choice(["two", "reach"])))
        case 10:  # the stream was lost, and is back
            live.count += int(random.integers(200))
            live.connect()
        case 11:
            live.ask("stop")
            live.turn()
            live.count += int(random.integers(100))
            live.ask("start")
            live.turn()
            live.connect()
        case 12:
            live.send(int(random.integers(1, 30)), missing=int(random.integers(1, 120)))
        case 13:  # the loop is held up until the ring is full
            live.send(1100)
        case 14:
            time.sleep(0.005)
        case 15:
            live.ask("label", label="nothing")


@pytest.fixture(autouse=True)
def _quick_recorder(monkeypatch):
    monkeypatch.setattr("neuroloop.session.recorder.TURN_S", 0.0005)
    monkeypatch.setattr("tests.processes.PAUSE_S", 0.0005)


@pytest.mark.parametrize("seed", range(6))
def test_whatever_comes_at_whatever_moment_the_replay_is_the_same(tmp_path, seed):
    random = np.random.default_rng(seed)
    live = Live(tmp_path)
    jitter = float(random.choice([0.0, 0.002]))
    for _ in range(250):
        live.send(int(random.integers(1, 60)), jitter)
        if random.random() < 0.25:
            something(live, random)
        live.turn(int(random.integers(3)))
        if random.random() < 0.1:
            time.sleep(0.003)  # what works beside the loop is done at last
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


BY_COMMAND = {"recording": {"automatic": False, "least_free_mb": 0}}


def play(live, random, steps, jitter, rate=0.25):
    """Let samples and whatever else come, at random moments."""
    for _ in range(steps):
        live.send(int(random.integers(1, 60)), jitter)
        if random.random() < rate:
            something(live, random)
        live.turn(int(random.integers(3)))
        if random.random() < 0.1:
            time.sleep(0.003)  # what works beside the loop is done at last


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
    assert verdict.before == 0


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
