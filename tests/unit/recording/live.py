"""A session whose samples and turns are the test's, as a library of the tests of its recordings."""

import time
from concurrent.futures import Future

import msgpack
import numpy as np
from tests.integration.models import loading, trained, weights
from tests.processes import wait_until

from neuroloop.config import parse_session
from neuroloop.recording.writer import stream_header
from neuroloop.session.chain import make_chain
from neuroloop.session.commands import HANDLERS
from neuroloop.session.inbox import Command, Found, Inbox, MarkerLabel
from neuroloop.session.inlet import Receiving, SampleInlet
from neuroloop.session.loop import Loop
from neuroloop.session.stimulus import Stimulus
from neuroloop.session.streams import StreamDescription

BY_COMMAND = {"recording": {"automatic": False, "least_free_mb": 0}}
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


def play(live, random, steps, jitter, rate=0.25):
    """Let samples and whatever else come, at random moments."""
    for _ in range(steps):
        live.send(int(random.integers(1, 60)), jitter)
        if random.random() < rate:
            something(live, random)
        live.turn(int(random.integers(3)))
        if random.random() < 0.1:
            time.sleep(0.003)  # what works beside the loop is done at last
