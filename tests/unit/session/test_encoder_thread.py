"""The encoders' thread: it waits for the stimulus and for nothing longer, and its queue is bounded."""

import threading
import time

import numpy as np
import pytest
from pylsl import local_clock

from neuroloop.config import EncoderSettings, StimulusSettings
from neuroloop.errors import StreamError
from neuroloop.models.lnp import LNP, LNPSettings
from neuroloop.session.alignment import compile_for_every_format
from neuroloop.session.encoder_loading import compile_encoders
from neuroloop.session.encoder_thread import QUEUE_LENGTH, EncoderBin, EncoderThread, Noted, spikes
from neuroloop.session.messages import BinTime
from neuroloop.session.running import ModelVersion
from neuroloop.session.running_encoder import RunningEncoder
from neuroloop.session.stimulus import Stimulus, make_source
from neuroloop.session.streams import StreamDescription

BIN_S = 0.02


def described(**changes):
    fields = {
        "name": "movie",
        "type": "Stimulus",
        "source_id": "movie",
        "hostname": "here",
        "channel_count": 1,
        "nominal_srate": 100.0,
        "format": "float32",
        "channels": ("1",),
        "units": ("",),
        "positions": (None,),
    }
    return StreamDescription(**fields | changes)


def settings(**changes):
    return StimulusSettings(name="movie", **changes)


class Running:
    """A thread whose stimulus the test writes, and what it tells."""

    def __init__(self, **changes):
        self.stimulus = Stimulus("demo", settings(**changes), lambda event: None)
        self.stimulus.source = make_source(self.stimulus.settings, described(), np.dtype("f4"))
        self.told = []
        self.thread = EncoderThread("demo", EncoderSettings(), self.stimulus, self.tell, 1000 * BIN_S)
        self.seq = 0

    def tell(self, told):
        self.told += [one for one in told if not isinstance(one, Noted)]

    def write(self, time_s, value):
        ring = self.stimulus.source.ring
        slot, _ = ring.room()
        ring.samples[slot], ring.times[slot] = value, time_s
        ring.commit(1, time_s)
        self.stimulus._bell.set()

    def bin(self, **changes):
        time = BinTime(self.seq, 0, 1, BIN_S * (self.seq + 1), 0.0)
        self.seq += 1
        given = {"rates": np.zeros(2, np.float32), "reason": None, "gap": False}
        bin = EncoderBin(time, channels=("a", "b"), bin_s=BIN_S, given=local_clock(), **given | changes)
        return self.thread.put(bin)

    def load(self):
        bank = LNP(["a"], (1, 1, 1), LNPSettings(lags=1), space=[[[[[1.0]]]]], time=[[[1.0]]])
        model = ModelVersion("m", 1, "sha256:0")
        encoder = RunningEncoder("m", "active", bank, model, None, 60.0)
        self.thread.run_between_bins(lambda: self.thread.encoding.swap(encoder))

    def messages(self, count):
        end = time.monotonic() + 30
        while len(self.told) < count:
            assert time.monotonic() < end, f"{count} messages did not come"
            time.sleep(0.002)
        return self.told


@pytest.fixture(scope="module", autouse=True)
def compiled():
    """What a session compiles before it runs."""
    compile_for_every_format()
    compile_encoders()


@pytest.fixture
def running():
    """A function that makes one; it ends with the test."""
    made = []

    def make(**changes):
        made.append(Running(**changes))
        return made[-1]

    yield make
    for one in made:
        one.thread.end()


def test_a_bin_is_answered_as_soon_as_the_stimulus_has_passed_its_end(running):
    one = running(patience_ms=10_000)
    one.thread.start()
    one.write(0.005, 1.0)
    one.bin()
    one.load()
    one.bin()
    one.write(0.015, 3.0)
    one.write(0.025, 5.0)
    time.sleep(0.05)
    assert one.told == []  # nothing says that the second bin is over
    one.write(0.045, 7.0)
    (message,) = one.messages(1)
    assert (message["seq"], message["frames"], message["gap"]) == (1, 1, False)
    assert message["rates"] == pytest.approx([np.log1p(np.exp(5.0)) / BIN_S], rel=1e-5)
    assert message["late_ms"] >= 50
    assert one.thread.impatient == 0


def test_a_bin_whose_frames_do_not_come_is_answered_with_the_last_one_when_patience_is_over(running):
    one = running(patience_ms=60, hold_s=0.05)
    one.write(0.005, 2.0)
    one.load()
    for _ in range(4):
        one.bin()
    one.thread.start()
    messages = one.messages(4)
    assert [message["frames"] for message in messages] == [1, 0, 0, 0]
    assert [message["reason"] for message in messages] == [None, None, "no stimulus", "no stimulus"]
    assert messages[0]["late_ms"] >= 59
    assert one.thread.impatient == 4
    assert one.thread.latency.summary()["late"]["max"] < 2000


def test_frames_that_come_too_late_are_announced_once_and_no_fit_learns_from_their_bins(running):
    one = running(patience_ms=20)
    one.load()
    one.write(0.005, 1.0)
    for _ in range(2):
        one.bin()
    one.thread.start()
    one.messages(2)
    one.write(0.025, 2.0)
    one.write(0.035, 2.0)
    one.bin()
    one.messages(4)
    for time_s in (0.045, 0.065, 0.085, 0.105):
        one.write(time_s, 3.0)
    one.bin()
    one.bin()
    told = one.messages(7)
    events = [event[0] for event in told if isinstance(event, tuple)]
    assert events == ["stimulus_late", "stimulus_in_time"]
    assert one.thread.late_frames == 3
    assert one.thread.encoding.history.since(0, 9).usable.tolist() == [True, False, False, True, True]


def test_without_a_stimulus_nobody_waits(running):
    one = running(patience_ms=10_000)
    one.stimulus.source = None
    one.load()
    for _ in range(3):
        one.bin()
    one.thread.start()
    assert [message["reason"] for message in one.messages(3)] == ["no stimulus"] * 3


def test_a_full_queue_loses_its_bins_and_no_exchange(running):
    one = running(patience_ms=1)
    happened = threading.Event()
    one.thread.run_between_bins(happened.set)
    lost = [one.bin() for _ in range(QUEUE_LENGTH)]
    assert lost[-1] == list(range(QUEUE_LENGTH - 1))
    assert one.thread.skipped == QUEUE_LENGTH - 1
    assert one.thread.waiting == 2
    one.thread.start()
    assert happened.wait(30)


def test_a_bin_after_bins_that_were_lost_follows_on_nothing(running):
    one = running(patience_ms=1, hold_s=1000)
    one.write(0.005, 2.0)
    one.load()
    one.bin()
    one.seq += 1
    one.bin()
    one.bin()
    one.thread.start()
    one.messages(3)
    assert one.thread.encoding.history.unbroken(10).frames.shape[0] == 2


def test_nobody_asks_for_frames_and_the_newest_stay(running):
    one = running()
    capacity = one.stimulus.source.ring.capacity
    for number in range(capacity):
        one.write(number / 100, number)
    one.stimulus.let_go()
    assert one.stimulus.source.ring.room()[1] == capacity // 2


def test_counts_are_whole_where_rounding_made_them_other():
    bin_s = 0.02
    rates = np.array([3, 0, 77], np.float32) * np.float32(1 / bin_s)
    assert spikes(rates, bin_s).tolist() == [3, 0, 77]
    assert spikes(np.array([12.5], np.float32), bin_s).tolist() == [0.25]


@pytest.mark.parametrize(
    ("wanted", "found", "words"),
    [
        ({}, {"format": "string"}, "expected numbers, got format string"),
        ({"channel_count": 3}, {}, r"expected 3 channels \(stimulus.channel_count\), got 1"),
        ({"nominal_srate": 60}, {}, r"expected 60 Hz \(stimulus.nominal_srate\), got 100"),
        ({"frame": [1, 2, 3]}, {}, r"expected 6 channels for frames of \(1, 2, 3\) \(stimulus.frame\), got 1"),
    ],
)
def test_a_stream_that_is_not_the_stimulus_is_refused(wanted, found, words):
    with pytest.raises(StreamError, match=words):
        make_source(settings(**wanted), described(**found), np.dtype("f4"))


def test_an_irregular_stimulus_is_taken_by_its_timestamps():
    source = make_source(settings(), described(nominal_srate=0.0), np.dtype("f4"))
    assert (source.timeline, source.period_s) == (None, 0.0)
