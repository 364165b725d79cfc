"""Spike times out of recordings of a loop that is driven by hand, against the rates that it recorded."""

import numpy as np
import pytest
from tests.unit.recording.live import BY_COMMAND, CHANNELS, HEADSET, LABELS, SETTINGS, SRATE, Live, play

from neuroloop.errors import ModelError
from neuroloop.recording.reader import open_xdf
from neuroloop.recording.recorded import RecordedSession
from neuroloop.recording.spike_times import spike_times

BIN = 20  # samples
OWN_RATES = {"window": 1}  # each vector is of one bin
RINGS = {"front_end": SETTINGS["front_end"] | {"refractory_ms": 15.0}}  # the filter does, after a peak


@pytest.fixture(autouse=True)
def _quick_recorder(monkeypatch):
    monkeypatch.setattr("neuroloop.session.recorder.TURN_S", 0.0005)
    monkeypatch.setattr("tests.processes.PAUSE_S", 0.0005)


class Peaks(Live):
    """Quiet noise, with a peak at certain samples of certain channels."""

    peaks = frozenset()

    def send(self, count, jitter=0.0, missing=0):
        self.count += missing
        while count:
            slot, room = self.ring.room()
            part = min(count, room, self.ring.most_at_once)
            samples = self.count + np.arange(part)
            voltage = np.clip(self.random.normal(0, 5, (part, CHANNELS)), -8, 8)
            for sample, channel in self.peaks:
                voltage[samples == sample, channel] = -100
            self.ring.samples[slot : slot + part] = voltage
            self.ring.times[slot : slot + part] = samples / SRATE
            self.ring.commit(part, self.loop.clock())
            self.count += part
            count -= part
            self.be_recorded()
            self.catch_up()


def bins_of(path):
    """End and rates of each bin, as recorded."""
    with open_xdf(path) as file:
        return [(time, rates.copy()) for time, rates in RecordedSession(file).rates()]


def check(path):
    """The spikes of each observed bin are those of its recorded rates, to the bit. Returns how many there are."""
    found, total, observed = spike_times(path), 0, 0
    for end, rates in bins_of(path):
        if not any(start + 1e-6 < end < stop + 1e-6 for start, stop in found.observed):
            continue
        borders = np.array([end - BIN / SRATE, end]) - 0.5 / SRATE
        counts = [np.diff(np.searchsorted(times, borders))[0] for times in found.times]
        assert (np.array(counts, np.float32) * np.float32(SRATE / BIN)).tobytes() == rates.tobytes()
        total += sum(counts)
        observed += 1
    assert total == sum(map(len, found.times))
    assert observed * BIN / SRATE == pytest.approx(np.diff(found.observed).sum())
    return total, found


def test_known_spikes_are_at_the_times_of_their_samples_and_a_hole_is_not_observed(tmp_path):
    live = Peaks(tmp_path, **RINGS, rereference={"enabled": False}, settle_ms=40)
    known = {(600, 0), (603, 1), (619, 1), (620, 2), (1410, 0), (1500, 0)}
    live.peaks = known | {(50, 3), (1205, 2), (1252, 2)}  # these: calibration, a bin with a gap, a filter that settles
    live.send(1210)
    live.send(890, missing=37)
    found = spike_times(live.end())
    assert (found.channels, found.columns) == (LABELS, tuple(range(CHANNELS)))
    for channel, times in enumerate(found.times):
        samples = sorted(sample for sample, one in known if one == channel)
        np.testing.assert_allclose(times, np.array(samples) / SRATE, atol=1e-9)
    np.testing.assert_allclose(found.observed, [[0.1, 1.2], [1.3, 2.12]], atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_whatever_came_the_spikes_of_every_bin_are_those_of_its_rates(tmp_path, seed):
    random = np.random.default_rng(seed)
    live = Live(tmp_path, **OWN_RATES)
    play(live, random, 150, 0.0)
    matrix = random.normal(0, 0.1, (CHANNELS, CHANNELS)) * (1 - np.eye(CHANNELS))
    live.ask("rereference_load", weights=matrix.tobytes(), shape=[CHANNELS, CHANNELS])
    play(live, random, 50, 0.0)
    version = live.loop.chain.rereferencing.weights.version
    total, _ = check(live.end())
    assert version > 0
    assert total > 50


def test_a_recording_that_began_while_the_session_ran_has_those_from_then_on(tmp_path):
    random = np.random.default_rng(1)
    live = Live(tmp_path, **BY_COMMAND, **OWN_RATES)
    play(live, random, 80, 0.0)
    live.start_recording()
    live.until_replayable()
    began = live.count / SRATE
    play(live, random, 100, 0.0)
    total, found = check(live.end())
    assert total > 50
    assert found.observed[0, 0] > began - 1.0


def test_the_first_bin_whose_rates_are_others_is_named(tmp_path, monkeypatch):
    live = Peaks(tmp_path)
    live.send(1000)
    path = live.end()
    recorded = bins_of(path)
    recorded[30][1][2] += 50
    recorded[35][1][1] += 50
    monkeypatch.setattr(RecordedSession, "rates", lambda session: iter(recorded))
    with pytest.raises(ModelError, match=r"bin 30: expected the recorded rate 50.0 of channel 3, got 0.0"):
        spike_times(path)
    del recorded[20]
    with pytest.raises(ModelError, match=r"bin 20: expected its end at 0.44\d*, as recorded, got 0.42"):
        spike_times(path)


def test_bins_whose_rates_were_not_recorded_are_not_observed(tmp_path, monkeypatch):
    live = Peaks(tmp_path, **RINGS)
    live.peaks = {(700, 0), (900, 0)}
    live.send(1000)
    path = live.end()
    recorded = bins_of(path)
    monkeypatch.setattr(RecordedSession, "rates", lambda session: iter(recorded[:40]))
    found = spike_times(path)
    np.testing.assert_allclose(found.times[0], [0.7], atol=1e-9)
    assert found.observed[-1, 1] == pytest.approx(0.8)
    monkeypatch.setattr(RecordedSession, "rates", lambda session: iter(()))
    with pytest.raises(ModelError, match="no bin whose spikes were counted"):
        spike_times(path)


def test_a_recording_that_lacks_samples_in_the_middle_is_refused(tmp_path, monkeypatch):
    live = Peaks(tmp_path)
    live.send(1000)
    path = live.end()
    ring = RecordedSession.ring

    def torn(session, serial):
        samples = ring(session, serial)
        samples.whole_until = lambda count: max(count, 590)
        return samples

    monkeypatch.setattr(RecordedSession, "ring", torn)
    with pytest.raises(ModelError, match="the replay ends 21 bins before the recording"):
        spike_times(path)


def test_a_session_that_counted_no_spikes_is_refused(tmp_path):
    live = Live(tmp_path, **HEADSET)
    live.send(100)
    with pytest.raises(ModelError, match="expected a session of front end broadband, got bandpower"):
        spike_times(live.end())
