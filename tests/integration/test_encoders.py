"""Encoders in a live session: a second LSL stream brings the stimulus, and the decoders' loop never waits for it."""

import threading

import numpy as np
import pytest
from tests.integration.conftest import Refused
from tests.integration.models import bank, encoder_loading, weights
from tests.integration.test_recording import RECORDING, path_of
from tests.integration.test_replay import BY_COMMAND, checked, record

from neuroloop_sources import SimulatorSettings, run

BIN_S = 0.02
FRAMES_PER_BIN = 2  # the stimulus has 100 Hz


class Pair:
    """Spike counts of 4 channels at 1 kHz and a stimulus of 2 x 2 pixels, on one clock."""

    def __init__(self, open_source, name):
        self.counts = open_source(name)
        self.stimulus = open_source(f"{name}-movie", 4, 1000 * FRAMES_PER_BIN / 20, source_id=f"{name}-movie")
        self.generator = np.random.default_rng(1)
        self.frames, self.spikes = [], []

    def wait_for_consumers(self):
        self.counts.wait_for_consumers()
        self.stimulus.wait_for_consumers()

    def push(self, bins, stimulus=True, missing=0):
        """So many bins, after as many missing ones; with or without their stimulus."""
        counts = self.generator.poisson(0.02, (20 * bins, 4)).astype(np.float32)
        self.spikes += list(counts.reshape(bins, 20, 4).sum(axis=1))
        self.counts.push(counts, missing=20 * missing)
        self.stimulus.start = self.counts.start
        self.stimulus.sent += FRAMES_PER_BIN * missing
        if stimulus:
            frames = self.generator.standard_normal((FRAMES_PER_BIN * bins, 4)).astype(np.float32)
            self.frames += list(frames.reshape(bins, FRAMES_PER_BIN, 4).mean(axis=1))
            self.stimulus.push(frames)
        else:
            self.stimulus.sent += FRAMES_PER_BIN * bins


@pytest.fixture
def pair(open_source, unique_name):
    return Pair(open_source, unique_name)


@pytest.fixture
def session(start_counts, pair, unique_name):
    """A session that has answered ten bins and found its stimulus."""
    stimulus = {"source_id": f"{unique_name}-movie", "frame": [1, 2, 2], "patience_ms": 500, "hold_s": 0.1}
    session = start_counts({"source_id": unique_name}, stimulus=stimulus)
    pair.wait_for_consumers()
    pair.push(10)
    session.bins(10)
    session.until(lambda: session.command("status")["stimulus"]["kept_bins"] == 10, "the frames")
    return session


def swap(session, pair, command="encoder_load", /, **arguments):
    """The receipt of a command; five bins are pushed when it has taken effect."""
    count = len(session.events("encoder_swapped")) + 1
    session.ask(command, **arguments)
    session.event("encoder_swapped", count)
    pair.push(5)
    return session.answer(command)


def encodings(session, count, encoder="retina"):
    """The messages of an encoder, when there are so many."""

    def found():
        return [message for message in session.messages["encoders"] if message["encoder"] == encoder]

    return session.until(lambda: len(found()) >= count and found(), f"{count} answers of {encoder}")


def test_an_encoder_answers_every_bin_with_the_rates_of_its_bank_and_scores_them(session, pair):
    receipt = swap(session, pair, **encoder_loading(1))
    pair.push(30)
    messages = encodings(session, 35)
    assert (receipt["bin"], receipt["previous"], receipt["encoder"], receipt["role"]) == (10, None, "retina", "active")
    assert receipt["current"] == encoder_loading(1)["model"] | {"learned": 0}
    assert (receipt["missed_bins"], receipt["window_bins"]) == (0, 10)
    assert [message["seq"] for message in messages] == list(range(10, 45))
    times = {prediction["seq"]: prediction["time"] for prediction in session.bins(45)}
    assert [message["time"] for message in messages] == [times[message["seq"]] for message in messages]
    rates = bank().run(np.array(pair.frames).reshape(-1, 1, 2, 2))[10:]
    np.testing.assert_allclose([message["rates"] for message in messages], rates / BIN_S, rtol=1e-4)
    counts = np.array(pair.spikes)[10:, [0, 2]]
    assert [message["counts"] for message in messages] == counts.tolist()
    assert {(message["frames"], message["reason"], message["gap"]) for message in messages} == {(2, None, False)}
    last = messages[-1]
    assert last["model"] == receipt["current"]
    assert last["residual"] == pytest.approx((counts - rates).mean(axis=0) / BIN_S, rel=0.02, abs=0.5)
    pearson = [np.corrcoef(rates[:, cell], counts[:, cell])[0, 1] for cell in (0, 1)]
    assert last["correlation"] == pytest.approx(pearson, abs=0.05)
    status = session.command("status")
    (described,) = status["encoders"]
    assert (described["model"], described["bins"] >= 35, described["past"]) == (receipt["current"], True, [])
    assert status["stimulus"]["state"] in ("connected", "stalled")  # nobody pushes any more
    assert status["stimulus"]["frame"] == [1, 2, 2]
    assert status["stimulus"]["late_ms"]["p50"] < 500
    assert status["stimulus"]["impatient_bins"] <= 3  # the last of each push, which no later frame passes
    assert (status["stimulus"]["skipped"], status["missed_bins"]) == (0, 0)


UNFIT = (
    (encoder_loading(1) | {"weights": b"x"}, "expected weights with digest sha256:.*, got sha256:"),
    (encoder_loading(1, weights()), r"expected an encoder \(kind 'lnp'\)"),
    (encoder_loading(1, bank(frame=(1, 3, 2)).save()), r"expected frames of 4 values.*got 6, \(1, 3, 2\)"),
    (encoder_loading(1, bank(cells=("c0", "x1")).save()), r"the session's channels \(c0, c1, c2, c3\).*none: x1"),
    (encoder_loading(1, role="chief"), "role: Input should be 'active' or 'shadow'"),
    (encoder_loading(1, encoder="../x"), "encoder: String should match"),
)


def test_encoders_that_do_not_fit_are_refused_and_nothing_changes(session, pair):
    swap(session, pair, **encoder_loading(1))
    for arguments, words in UNFIT:
        with pytest.raises(Refused, match=words):
            session.command("encoder_load", **arguments)
    with pytest.raises(Refused, match="no earlier version of the encoder is kept"):
        session.command("encoder_rollback")
    pair.push(5)
    assert {message["model"]["version"] for message in encodings(session, 10)} == {1}


def test_without_a_stimulus_in_the_configuration_the_refusal_says_what_to_configure(counts):
    for command, arguments in (("encoder_load", encoder_loading(1)), ("encoder_rollback", {})):
        with pytest.raises(Refused, match=r"has no stimulus.*add `stimulus` to its configuration"):
            counts.command(command, **arguments)
    status = counts.command("status")
    assert (status["encoders"], status["stimulus"]) == ([], None)


def test_without_a_stimulus_on_the_network_nothing_can_be_loaded(start_counts, open_source, unique_name):
    session = start_counts({"source_id": unique_name}, stimulus={"source_id": f"{unique_name}-movie"})
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(np.ones((200, 4), np.float32))
    session.bins(10)
    with pytest.raises(Refused, match="the stimulus stream has not been found yet"):
        session.command("encoder_load", **encoder_loading(1))


def test_a_hole_in_the_neural_stream_is_a_gap_and_the_encoder_begins_anew(session, pair):
    swap(session, pair, **encoder_loading(1))
    pair.push(5, missing=3)
    messages = encodings(session, 13)
    assert [message["reason"] for message in messages[5:]] == ["gap"] * 3 + ["settling"] * 4 + [None]
    assert [message["gap"] for message in messages[5:]] == [True] * 3 + [False] * 5
    assert {message["rates"] for message in messages if message["gap"]} == {None}


def test_a_stimulus_that_stops_is_held_for_a_while_and_then_a_gap_and_the_decoders_do_not_care(session, pair):
    swap(session, pair, **encoder_loading(1))
    pair.push(10, stimulus=False)
    messages = encodings(session, 15)
    assert [message["reason"] for message in messages[5:]] == [None] * 4 + ["no stimulus"] * 6
    assert [message["frames"] for message in messages[4:]] == [2] + 10 * [0]
    assert messages[10]["late_ms"] >= 400
    assert max(prediction["latency_ms"]["process"] for prediction in session.bins(25)) < 400
    pair.push(6)
    assert [message["reason"] for message in encodings(session, 21)[15:]] == ["settling"] * 4 + [None] * 2
    status = session.command("status")
    assert 10 <= status["stimulus"]["impatient_bins"] <= 13
    assert status["missed_bins"] == 0


def test_versions_are_rolled_back_and_shadows_come_and_go(session, pair):
    swap(session, pair, **encoder_loading(1))
    swap(session, pair, **encoder_loading(2, bank(gain=3.0).save()))
    shadow = swap(session, pair, **encoder_loading(3, role="shadow", encoder="candidate"))
    assert (shadow["encoder"], shadow["role"], shadow["previous"]) == ("candidate", "shadow", None)
    receipt = swap(session, pair, "encoder_rollback")
    assert (receipt["previous"]["version"], receipt["current"]["version"], receipt["bin"]) == (2, 1, 25)
    versions = [message["model"]["version"] for message in encodings(session, 20)]
    assert versions == [1] * 5 + [2] * 10 + [1] * 5
    candidate = encodings(session, 10, "candidate")
    active = {message["seq"]: message["rates"] for message in encodings(session, 20) if message["seq"] >= 25}
    assert [message["rates"] for message in candidate[5:]] == list(active.values())  # the same weights
    assert session.command("encoder_remove", name="candidate")["model"]["version"] == 3
    with pytest.raises(Refused, match="no shadow 'candidate'"):
        session.command("encoder_remove", name="candidate")
    with pytest.raises(Refused, match="'retina' is the active one"):
        session.command("encoder_remove", name="retina")


def test_a_promoted_shadow_costs_no_bin_and_a_rollback_makes_it_a_shadow_again(session, pair):
    swap(session, pair, **encoder_loading(1))
    swap(session, pair, **encoder_loading(2, bank(gain=3.0).save(), role="shadow", encoder="candidate"))
    receipt = swap(session, pair, "encoder_promote", name="candidate")
    assert (receipt["bin"], receipt["encoder"], receipt["role"]) == (20, "candidate", "active")
    assert receipt["missed_bins"] == 0
    assert (receipt["previous"]["version"], receipt["current"]["version"]) == (1, 2)
    promoted = session.events("encoder_swapped")[-1]
    assert (promoted["by"], promoted["current"], promoted["bin"]) == ("promote", receipt["current"], 20)
    back = swap(session, pair, "encoder_rollback")
    assert (back["previous"]["version"], back["current"]["version"]) == (2, 1)
    candidate = encodings(session, 15, "candidate")
    assert [message["role"] for message in candidate] == ["shadow"] * 5 + ["active"] * 5 + ["shadow"] * 5
    assert [message["seq"] for message in candidate] == list(range(15, 30))
    assert {message["reason"] for message in candidate} == {None}
    assert [message["seq"] for message in encodings(session, 15)] == [*range(10, 20), *range(25, 30)]


def test_encoders_and_their_stimulus_outlive_a_stop(session, pair):
    swap(session, pair, **encoder_loading(1))
    session.command("stop")
    assert session.command("status")["stimulus"]["state"] == "stopped"
    session.command("start")
    session.until(lambda: len(session.events("stream_connected")) == 4, "both streams")
    pair.push(10, missing=7)
    messages = encodings(session, 15)
    assert [message["reason"] for message in messages[5:]] == ["settling"] * 4 + [None] * 6
    assert messages[-1]["frames"] == 2


def test_thirty_swaps_of_encoders_cost_a_live_array_no_bin(start_session, open_source, unique_name):
    movie = open_source(f"{unique_name}-movie", 16, 1000.0, source_id=f"{unique_name}-movie")
    session = start_session(
        name=unique_name,
        stream={"source_id": unique_name},
        stimulus={"source_id": f"{unique_name}-movie", "frame": [1, 4, 4]},
        encoder={"online": True},
        rereference={"clusters": 32},
        classes=["a", "b"],
        outlets={"enabled": False},
    )
    stop = threading.Event()
    simulated = SimulatorSettings(name=unique_name, source_id=unique_name, channel_count=96)
    options = {"stop": stop, "wait_for_consumers": True}
    threads = [threading.Thread(target=run, args=(simulated,), kwargs=options)]
    generator = np.random.default_rng(4)

    def show():
        movie.wait_for_consumers()
        while not stop.wait(0.01):
            movie.push(generator.standard_normal((10, 16)).astype(np.float32))

    threads.append(threading.Thread(target=show))
    for thread in threads:
        thread.start()
    try:
        session.bins(50)
        session.until(lambda: session.command("status")["stimulus"]["kept_bins"] > 0, "frames")
        cells = session.command("status")["stream"]["channels"]
        data = [bank(cells, (1, 4, 4), 20, gain).save() for gain in (0.1, 0.2)]
        receipts = [
            session.command("encoder_load", **encoder_loading(number + 1, data[number % 2])) for number in range(30)
        ]
        session.receive()
        session.until(lambda: session.messages["encoders"][-1]["seq"] > receipts[-1]["bin"], "an answer after them")
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    status = session.command("status")
    assert {receipt["missed_bins"] for receipt in receipts} == {status["missed_bins"]} == {0}
    assert status["stimulus"]["skipped"] == 0
    seqs = [message["seq"] for message in session.messages["encoders"]]
    assert seqs == list(range(seqs[0], seqs[0] + len(seqs)))
    answered = {message["seq"]: message["model"]["version"] for message in session.messages["encoders"]}
    assert [answered[receipt["bin"]] for receipt in receipts] == list(range(1, 31))


def start_learning(start_counts, pair, unique_name, recording):
    """A session with two encoders that learn, one of them as a shadow, and that wait for no frame for long."""
    stimulus = {"source_id": f"{unique_name}-movie", "frame": [1, 2, 2], "patience_ms": 100, "hold_s": 0.1}
    changes = {"stimulus": stimulus, "encoder": {"online": True}, "recording": recording}
    session = start_counts({"source_id": unique_name}, **changes)
    pair.wait_for_consumers()
    pair.push(10)
    session.bins(10)
    session.until(lambda: session.command("status")["stimulus"]["kept_bins"] == 10, "the frames")
    swap(session, pair, **encoder_loading(1))
    swap(session, pair, **encoder_loading(2, bank(gain=2.0).save(), role="shadow", encoder="beside"))
    pair.push(20)
    return session


def test_what_encoders_answered_learned_and_missed_is_replayed_to_the_bit(start_counts, pair, unique_name):
    session = start_learning(start_counts, pair, unique_name, RECORDING)
    pair.push(5, stimulus=False)  # nobody waits for these frames for long
    session.until(lambda: session.command("status")["stimulus"]["impatient_bins"] > 3, "bins without frames")
    pair.push(10, missing=3)
    swap(session, pair, "encoder_promote", name="beside")
    pair.push(10)
    swap(session, pair, "encoder_rollback")
    pair.push(10)
    session.command("encoder_remove", name="beside")
    pair.push(5)
    last = len(pair.spikes) + 3 - 1
    session.until(lambda: any(m["seq"] == last for m in session.messages["encoders"]), "the last bin")
    session.command("recording_stop")
    verdict = checked(path_of(session), 90)
    messages = session.messages["encoders"]
    assert verdict.encodings == len(messages) > 100
    assert {m["encoder"] for m in messages} == {"retina", "beside"}
    assert messages[-1]["model"]["learned"] > 30
    assert {0, 2} <= {m["frames"] for m in messages}


def test_encoders_of_a_recording_that_begins_while_they_learn_are_replayed_to_the_bit(start_counts, pair, unique_name):
    session = start_learning(start_counts, pair, unique_name, BY_COMMAND)
    path = record(session)
    pair.push(10)
    swap(session, pair, "encoder_promote", name="beside")
    pair.push(5, stimulus=False)
    pair.push(10, missing=3)
    swap(session, pair, "encoder_rollback")
    swap(session, pair, **encoder_loading(3, bank(gain=3.0).save()))
    pair.push(10)
    last = len(pair.spikes) + 3 - 1
    session.until(lambda: sum(m["seq"] == last for m in session.messages["encoders"]) == 2, "the last bin")
    session.command("recording_stop")
    verdict = checked(path, 35)
    messages = [m for m in session.messages["encoders"] if m["seq"] >= verdict.first_bin]
    assert verdict.first_bin >= 10
    assert verdict.encodings == len(messages) > 70
    assert (verdict.unchecked, {m["encoder"] for m in messages}) == (0, {"retina", "beside"})
    assert messages[0]["model"]["learned"] > 0
