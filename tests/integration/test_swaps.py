"""A decoder is exchanged between two bins: no bin is missed, and the receipt says what it cost."""

import threading

import numpy as np
import pytest
from tests.integration.conftest import Refused, with_broken_decoder
from tests.integration.models import LEFT, RIGHT, loading, trained, weights

from neuroloop_sources import SimulatorSettings, run

BIN = np.ones((20, 1), np.float32) / 1000  # rates of 1 Hz per unit


@pytest.fixture
def source(open_source, unique_name):
    return open_source(unique_name)


@pytest.fixture
def session(counts, source):
    """A session on counts that has answered ten bins of class a."""
    source.wait_for_consumers()
    push(source, LEFT, 10)
    counts.bins(10)
    return counts


def push(source, rates, bins):
    source.push(np.tile(BIN * rates, (bins, 1)))


def swap(session, source, command="decoder_load", /, rates=LEFT, **arguments):
    """The receipt of a command; five bins are pushed when it has taken effect."""
    count = len(session.events("decoder_swapped")) + 1
    session.ask(command, **arguments)
    session.event("decoder_swapped", count)
    push(source, rates, 5)
    return session.answer(command)


def test_a_decoder_takes_over_between_two_bins_and_its_receipt_says_when(session, source):
    receipt = swap(session, source, **loading(1))
    bins = session.bins(15)
    first = receipt["bin"]
    assert first == 10
    assert [b["seq"] for b in bins] == list(range(15))
    assert {b["model"]["name"] for b in bins[:first]} == {"decoder"}
    assert {(b["model"]["name"], b["model"]["version"], b["label"]) for b in bins[first:]} == {("reach", 1, "a")}
    assert receipt["current"] == bins[first]["model"] == loading(1)["model"] | {"learned": 0}
    assert receipt["previous"] == bins[0]["model"]
    assert (receipt["missed_bins"], receipt["window_bins"], receipt["role"]) == (0, 10, "active")
    assert 0 < receipt["slowest_bin_ms"] < 1000
    (status,) = session.command("status")["decoders"]
    assert status["model"] == receipt["current"]
    assert status["past"] == [receipt["previous"]]


def test_scores_are_those_of_the_decoder_in_the_file(session, source):
    swap(session, source, **loading(1, state="cold"))
    push(source, RIGHT, 5)
    expected = trained().predict(RIGHT)
    last = session.bins(20)[-1]
    assert last["scores"] == pytest.approx(expected.values, rel=1e-5)
    assert last["confidence"] == pytest.approx(expected.probability[1], rel=1e-5)


UNFIT = (
    (loading(1) | {"weights": b"x"}, "expected weights with digest sha256:.*, got sha256:"),
    (loading(1, b"\x80\x04pickle"), "expected a safetensors file"),
    (loading(1, weights(trained(("b", "a")))), "expected the classes a, b; got b, a"),
    (loading(1, weights(trained(features=6))), r"expected 4 features \(4 channels\), got 6"),
    (loading(1, weights(channels=["c0", "c1", "c3", "c2"])), "number 3 is 'c2', not 'c3'"),
    (loading(1, weights(kind="nothing")), "'nothing' is not known; there are: "),
    (loading(1, role="chief"), "role: Input should be 'active' or 'shadow'"),
    (loading(1, state="reprime", reprime_bins=10_000), "reprime_bins"),
    (loading(1, decoder="../x"), "decoder: String should match"),
    ({"weights": b""}, "model: Field required"),
)


def test_weights_that_do_not_fit_are_refused_and_the_session_goes_on_with_what_it_had(session, source):
    for arguments, words in UNFIT:
        with pytest.raises(Refused, match=words):
            session.command("decoder_load", **arguments)
    push(source, LEFT, 5)
    assert {b["model"]["name"] for b in session.bins(15)} == {"decoder"}


def test_carry_learns_the_labels_of_this_session_again_and_cold_does_not(session, source):
    session.command("label", label="a")
    push(source, RIGHT, 10)
    session.bins(20)
    session.command("label", label="b")
    blank = weights(trained(lessons=0))
    receipt = swap(session, source, **loading(1, blank))
    assert receipt["current"]["learned"] == 2
    assert session.bins(25)[-1]["label"] == "a"
    cold = swap(session, source, **loading(2, blank, state="cold"))
    assert cold["current"]["learned"] == 0
    assert session.bins(30)[-1]["reason"].startswith("untrained")
    again = swap(session, source, **loading(3, blank))
    assert again["current"]["learned"] == 0  # labels since the last one was loaded: none


def test_rollback_returns_to_the_version_before_as_it_was(session, source):
    swap(session, source, **loading(1, state="cold"))
    session.command("label", label="a")
    swap(session, source, **loading(2, state="cold"))
    receipt = swap(session, source, "decoder_rollback")
    assert (receipt["previous"]["version"], receipt["current"]["version"]) == (2, 1)
    assert receipt["current"]["learned"] == 1
    swap(session, source, "decoder_rollback")
    with pytest.raises(Refused, match="no earlier version is kept"):
        session.command("decoder_rollback")
    models = [(b["model"]["name"], b["model"]["version"]) for b in session.bins(30)]
    assert models[10::5] == [("reach", 1), ("reach", 2), ("reach", 1), ("decoder", 0)]


def test_a_receipt_that_waits_for_bins_holds_no_other_command_up(session):
    session.ask("decoder_load", **loading(1))
    session.event("decoder_swapped")
    assert session.command("status", patience_s=1)["decoders"][0]["model"]["name"] == "reach"
    session.ask("decoder_rollback")
    session.command("stop")
    session.ask("decoder_load", **loading(1))
    receipt = session.answer("decoder_load", patience_s=1)
    assert (receipt["window_bins"], receipt["slowest_bin_ms"], receipt["missed_bins"]) == (0, None, 0)


def test_without_a_stream_nothing_can_be_loaded(counts):
    with pytest.raises(Refused, match="the stream has not been found yet"):
        counts.command("decoder_load", **loading(1))


MEMORY = """
def reset(self):
    self.count = 0

def predict(self, rates):
    self.count = getattr(self, "count", 0) + 1
    scores = super().predict(rates)
    scores.values[0] = self.count
    return scores
"""


def test_reprime_shows_a_decoder_with_a_memory_the_last_bins(start_counts, source, unique_name, tmp_path):
    session = start_counts({"name": unique_name}, environment=with_broken_decoder(tmp_path, MEMORY))
    source.wait_for_consumers()
    push(source, LEFT, 30)
    session.bins(30)
    data = weights(kind="broken")
    swap(session, source, **loading(1, data, state="cold"))
    swap(session, source, **loading(2, data, state="reprime", reprime_bins=20))
    swap(session, source, **loading(3, data, state="reprime", reprime_bins=512))
    counted = [b["scores"][0] for b in session.bins(45)[30:]]
    assert counted == [1, 2, 3, 4, 5, 21, 22, 23, 24, 25, 41, 42, 43, 44, 45]


FRAGILE = """
def predict(self, rates):
    if rates[0] > 1000:
        {flaw}
    return super().predict(rates)
"""


@pytest.mark.parametrize("flaw", ["raise ValueError('no')", "rates = rates * float('nan'); return None"])
def test_a_decoder_that_fails_is_replaced_within_the_bin_by_the_last_good_version(
    start_counts, source, unique_name, tmp_path, flaw
):
    body = FRAGILE.format(flaw=flaw)
    session = start_counts({"name": unique_name}, window=1, environment=with_broken_decoder(tmp_path, body))
    source.wait_for_consumers()
    push(source, LEFT, 10)
    session.bins(10)
    swap(session, source, **loading(1))
    swap(session, source, **loading(2, weights(kind="broken")))
    swap(session, source, **loading(3, weights(kind="broken")))
    push(source, 100 * LEFT, 5)
    bins = session.bins(30)
    assert [b["seq"] for b in bins] == list(range(30))
    assert [b["model"]["version"] for b in bins[20:]] == [3] * 5 + [1] * 5
    assert {b["label"] for b in bins[10:]} == {"a"}
    guard = session.event("decoder_guard")
    assert (guard["seq"], guard["from"]["version"], guard["to"]["version"]) == (25, 3, 1)
    assert "predict raised" in guard["why"]
    assert len(session.events("decoder_guard")) == 1


def test_a_decoder_beyond_its_budget_is_replaced_after_some_bins(start_counts, source, unique_name, tmp_path):
    body = FRAGILE.format(flaw="__import__('time').sleep(0.03)")
    decoders = [{"name": "d", "overrun_bins": 3}]
    environment = with_broken_decoder(tmp_path, body)
    session = start_counts({"name": unique_name}, window=1, decoders=decoders, environment=environment)
    source.wait_for_consumers()
    push(source, LEFT, 10)
    session.bins(10)
    swap(session, source, **loading(1))
    swap(session, source, **loading(2, weights(kind="broken")))
    push(source, 100 * LEFT, 5)
    assert [b["model"]["version"] for b in session.bins(25)[20:]] == [2, 2, 2, 1, 1]
    guard = session.event("decoder_guard")
    assert (guard["from"]["version"], guard["to"]["version"]) == (2, 1)
    assert guard["why"] == "took longer than its budget of 10 ms for 3 bins in a row"


def test_a_loaded_decoder_outlives_a_change_of_the_stream_if_it_fits(session, source, open_source, unique_name):
    swap(session, source, **loading(1))
    session.command("stop")
    source.close()
    other = open_source(unique_name, source_id=f"{unique_name}-2")
    session.command("start")
    session.event("stream_connected", 2)
    push(other, LEFT, 5)
    last = session.bins(20)[-1]
    assert (last["model"]["version"], last["label"]) == (1, "a")
    session.command("stop")
    other.close()
    wide = open_source(unique_name, channel_count=6, source_id=f"{unique_name}-3")
    session.command("start")
    dropped = session.event("decoder_dropped")
    assert (dropped["model"]["name"], dropped["decoder"]) == ("reach", "decoder")
    assert "expected 6 features (6 channels), got 4" in dropped["detail"]
    session.event("stream_connected", 3)
    push(wide, np.ones(6), 5)
    assert session.bins(25)[-1]["model"]["name"] == "decoder"


def test_fifty_swaps_of_a_live_array_cost_no_bin(start_session, unique_name):
    session = start_session(
        name=unique_name,
        stream={"source_id": unique_name},
        rereference={"clusters": 32},
        classes=["a", "b"],
        outlets={"enabled": False},
    )
    simulated = SimulatorSettings(name=unique_name, source_id=unique_name, channel_count=96)
    stop = threading.Event()
    options = {"stop": stop, "wait_for_consumers": True}
    source = threading.Thread(target=run, args=(simulated,), kwargs=options)
    source.start()
    try:
        session.bins(50)
        data = [weights(trained(features=96, lessons=number)) for number in (1, 2)]
        states = ("carry", "cold", "reprime")
        receipts = [
            session.command("decoder_load", **loading(number + 1, data[number % 2], state=states[number % 3]))
            for number in range(50)
        ]
        session.bins(receipts[-1]["bin"] + 1)
    finally:
        stop.set()
        source.join()
    bins = session.predictions()
    assert [b["seq"] for b in bins] == list(range(len(bins)))
    assert {receipt["missed_bins"] for receipt in receipts} == {session.command("status")["missed_bins"]} == {0}
    taken = [receipt["bin"] for receipt in receipts]
    assert taken == sorted(set(taken))
    assert [bins[seq]["model"]["version"] for seq in taken] == list(range(1, 51))
