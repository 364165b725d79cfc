"""What is shown of the samples of a bin, and when."""

from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroloop.session.blocks import Block
from neuroloop.session.messages import BinTime
from neuroloop.session.signals import Signals

BLOCK, BLOCKS, CHANNELS = 5, 4, 3


class Shown:
    """Signals, and what they publish."""

    def __init__(self, nominal_srate):
        self.wanted, self.shed, self.messages = True, [], []
        self.pipeline = SimpleNamespace(bin_samples=BLOCK * BLOCKS, nominal_srate=nominal_srate)
        shedding = SimpleNamespace(leaves_out=lambda what: what in self.shed)
        self.signals = Signals(SimpleNamespace(session=SimpleNamespace(name="s"), shedding=shedding), self)
        self._index = self._seq = 0

    def wants(self, topic):
        assert topic == b"signals"
        return self.wanted

    def __call__(self, topic, message):
        self.messages.append(message)

    def blocks(self, samples):
        for part in np.split(samples, len(samples) // BLOCK):
            self.signals.block(Block(part.astype(np.float32), self._index, 0.0, 0, 0, 0), self.pipeline)
            self._index += BLOCK

    def finish(self, process_ms=0.1, gap=False):
        first = self._seq * BLOCK * BLOCKS
        self.signals.bin(BinTime(self._seq, first, first + BLOCK * BLOCKS - 1, 1.5, 0.0, 0.0, process_ms), gap)
        self._seq += 1


def bin_of(seed):
    return np.random.default_rng(seed).standard_normal((BLOCK * BLOCKS, CHANNELS)).astype(np.float32)


@given(seed=st.integers(0, 2**16))
def test_an_array_shows_the_lowest_and_the_highest_sample_of_each_channel(seed):
    shown, samples = Shown(30_000.0), bin_of(seed)
    shown.blocks(samples)
    shown.finish()
    [message] = shown.messages
    assert message["low"] == [samples.min(axis=0).tolist()]
    assert message["high"] == [samples.max(axis=0).tolist()]
    assert (message["type"], message["seq"], message["samples"], message["time"]) == ("signals", 0, [0, 19], 1.5)


@pytest.mark.parametrize("nominal_srate", [250.0, 1000.0])
def test_a_headset_shows_every_sample(nominal_srate):
    shown = Shown(nominal_srate)
    for seed in range(3):
        shown.blocks(bin_of(seed))
        shown.finish()
    assert [message["low"] for message in shown.messages] == [bin_of(seed).tolist() for seed in range(3)]
    assert all(message["high"] == message["low"] for message in shown.messages)


def test_a_bin_is_shown_whole_or_not_at_all():
    shown, samples = Shown(30_000.0), bin_of(0)
    shown.wanted = False
    shown.blocks(samples[: 2 * BLOCK])
    shown.wanted = True
    shown.blocks(samples[2 * BLOCK :])
    shown.finish()
    assert shown.messages == []
    shown.blocks(samples)
    shown.finish()
    assert [message["seq"] for message in shown.messages] == [1]


def test_a_bin_without_a_sample_says_so():
    shown = Shown(30_000.0)
    shown.finish(process_ms=None, gap=True)
    assert [(message["low"], message["high"], message["gap"]) for message in shown.messages] == [([], [], True)]


def test_an_overloaded_session_shows_none():
    shown = Shown(30_000.0)
    shown.shed = ["signals"]
    shown.blocks(bin_of(0))
    shown.finish()
    shown.finish(process_ms=None, gap=True)
    assert shown.messages == []
