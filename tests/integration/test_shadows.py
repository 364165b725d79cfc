"""Shadows see the same bins in threads of their own; whatever they do, the active decoder answers in time."""

import numpy as np
import pytest
from tests.integration.conftest import Refused, with_broken_decoder
from tests.integration.models import LEFT, RIGHT, loading, trained, weights
from tests.integration.test_swaps import push, swap

TWO = [{"name": "first"}, {"name": "second", "role": "shadow"}]


@pytest.fixture
def source(open_source, unique_name):
    return open_source(unique_name)


@pytest.fixture
def session(start_counts, source, unique_name):
    """A session with a decoder and its equal as a shadow, that has answered ten bins of class a."""
    session = start_counts({"name": unique_name}, decoders=TWO)
    source.wait_for_consumers()
    push(source, LEFT, 10)
    session.bins(10)
    return session


def shadow_bins(session, count):
    return session.until(lambda: len(session.predictions("shadow")) >= count and session.predictions("shadow"))


def shadows(session):
    return {decoder["name"]: decoder for decoder in session.command("status")["decoders"][1:]}


def test_a_shadow_learns_and_answers_as_the_active_decoder_does_to_the_bit(session, source):
    for label, rates in (("a", RIGHT), ("b", LEFT), ("a", RIGHT)):
        session.command("label", label=label)
        push(source, rates, 10)
        session.bins(source.sent // 20)
    active, shadow = session.bins(40), shadow_bins(session, 40)
    own = ("role", "decoder", "model", "latency_ms", "age_ms")
    for mine, other in zip(active, shadow, strict=True):
        assert {k: v for k, v in mine.items() if k not in own} == {k: v for k, v in other.items() if k not in own}
        assert {**mine["model"], "name": ""} == {**other["model"], "name": ""}
    assert {b["decoder"] for b in shadow} == {"second"}
    assert active[-1]["model"]["learned"] == 3
    told = shadows(session)["second"]
    decided = sum(b["label"] is not None for b in active)
    assert told["agreement"] == {"bins": decided, "agreed": decided}
    assert (told["bins"], told["skipped"], told["waiting"]) == (40, 0, 0)


def test_agreement_and_accuracy_are_counted_by_bins_and_labels(session, source):
    swap(session, source, **loading(1, state="cold"))
    swap(session, source, rates=RIGHT, **loading(1, state="cold", role="shadow"))
    push(source, RIGHT, 10)
    session.bins(30)
    seconds = 20 / 1000
    start = source.start + 25 * seconds - 0.001
    wrong = session.command("label", label="a", start=start, end=start + 5 * seconds)
    right = session.command("label", label="b", start=start, end=start + 5 * seconds)
    assert (wrong["bins"], right["bins"]) == (5, 5)
    active = session.command("status")["decoders"][0]
    assert active["accuracy"] == {"bins": 10, "correct": 5, "abstained": 0}
    assert active["bins"] == 20
    assert 0 < active["latency_ms"]["p50"] <= active["latency_ms"]["p99"] <= active["latency_ms"]["max"]
    session.until(lambda: shadows(session)["reach"]["accuracy"] == active["accuracy"])
    agreement = shadows(session)["reach"]["agreement"]
    assert agreement["agreed"] == agreement["bins"] == 15


SLEEPS = "__import__('time').sleep(0.5)"
SPINS = """end = __import__('time').perf_counter() + 0.5
    while __import__('time').perf_counter() < end: sum(range(100))"""


@pytest.mark.parametrize("flaw", [SLEEPS, SPINS], ids=["sleeps", "spins"])
def test_a_slow_shadow_delays_no_answer(start_counts, source, unique_name, tmp_path, flaw):
    body = f"def predict(self, rates):\n    {flaw}\n    return super().predict(rates)"
    decoders = [{"name": "good"}]
    session = start_counts({"name": unique_name}, decoders=decoders, environment=with_broken_decoder(tmp_path, body))
    source.wait_for_consumers()
    push(source, LEFT, 10)
    session.bins(10)
    session.ask("decoder_load", **loading(1, weights(kind="broken"), role="shadow"))
    session.event("decoder_swapped")
    push(source, LEFT, 50)
    bins = session.bins(60)
    assert [b["seq"] for b in bins] == list(range(60))
    answered = [b["latency_ms"]["process"] for b in bins[10:]]
    assert np.median(answered) < 100  # all of them came at once, and a shadow's bin takes at least 500
    assert shadows(session)["reach"]["waiting"] > 20
    with pytest.raises(Refused, match="bins behind; promote it when it keeps up"):
        session.command("decoder_promote", name="reach")
    assert session.command("decoder_remove", name="reach")["decoder"] == "reach"


def test_a_shadow_that_fails_answers_null_and_the_active_one_goes_on(start_counts, source, unique_name, tmp_path):
    body = "def predict(self, rates):\n    if rates[0] > 50: raise ValueError('no')\n    return super().predict(rates)"
    session = start_counts({"name": unique_name}, window=1, environment=with_broken_decoder(tmp_path, body))
    source.wait_for_consumers()
    push(source, LEFT, 10)
    session.bins(10)
    swap(session, source, **loading(1, weights(kind="broken"), role="shadow"))
    answers = shadow_bins(session, 5)
    assert {(b["label"], b["reason"]) for b in answers} == {(None, "decoder failed")}
    guard = session.event("decoder_guard")
    assert (guard["decoder"], guard["role"]) == ("reach", "shadow")
    assert {b["reason"] == "decoder failed" for b in session.bins(15)} == {False}


def test_promote_makes_a_shadow_active_and_rollback_puts_it_back(session, source):
    session.command("label", label="a")
    receipt = swap(session, source, "decoder_promote", name="second")
    assert (receipt["bin"], receipt["decoder"], receipt["missed_bins"]) == (10, "second", 0)
    assert receipt["current"]["learned"] == receipt["previous"]["learned"] == 1
    assert {b["decoder"] for b in session.bins(15)[10:]} == {"second"}
    assert len(session.predictions("shadow")) == 10
    back = swap(session, source, "decoder_rollback")
    assert (back["previous"]["name"], back["current"]["name"]) == ("second", "first")
    assert {b["seq"] for b in shadow_bins(session, 15)[10:]} == set(range(15, 20))
    assert [b["seq"] for b in session.bins(20)] == list(range(20))


def test_a_rollback_onto_the_name_of_a_shadow_is_refused_until_that_has_gone(session, source):
    swap(session, source, **loading(1, state="cold", decoder="third"))
    swap(session, source, **loading(1, role="shadow", decoder="first"))
    with pytest.raises(Refused, match="a shadow has the name of the decoder before, 'first'; remove it first"):
        session.command("decoder_rollback")
    session.command("decoder_remove", name="first")
    assert swap(session, source, "decoder_rollback")["current"]["name"] == "first"


def test_a_shadow_goes_by_its_name_and_the_active_decoder_cannot(session, source):
    for command, name, words in (
        ("decoder_remove", "first", "'first' is the active one"),
        ("decoder_promote", "first", "'first' is the active one"),
        ("decoder_remove", "third", "no shadow 'third'; there are: second"),
    ):
        with pytest.raises(Refused, match=words):
            session.command(command, name=name)
    with pytest.raises(Refused, match="give the shadow another name"):
        session.command("decoder_load", **loading(1, role="shadow", decoder="first"))
    with pytest.raises(Refused, match="'second' is a shadow; promote it"):
        session.command("decoder_load", **loading(1, decoder="second"))
    shadow_bins(session, 10)
    session.command("decoder_remove", name="second")
    push(source, LEFT, 5)
    session.bins(15)
    assert len(session.predictions("shadow")) == 10
    assert list(shadows(session)) == []


def test_a_shadow_is_replaced_in_its_place(session, source):
    first = swap(session, source, **loading(1, role="shadow", decoder="second"))
    second = swap(session, source, **loading(2, weights(trained(lessons=9)), role="shadow", decoder="second"))
    assert (first["previous"]["name"], second["previous"]["version"]) == ("second", 1)
    versions = [b["model"]["version"] for b in shadow_bins(session, 20)]
    assert versions[10:] == [1] * 5 + [2] * 5
