"""A decoder that fails costs the bins that it spoils, and never the session."""

import pytest
from tests.integration.conftest import Refused, ones, with_broken_decoder


@pytest.mark.parametrize(
    ("flaw", "words"),
    [("raise ValueError('no')", "ValueError: no"), ("scores.values[0] = float('nan')", "not finite")],
    ids=["raises", "nan"],
)
def test_a_decoder_that_fails_for_some_bins_answers_null_for_them_and_goes_on(
    start_counts, open_source, unique_name, tmp_path, flaw, words
):
    body = f"""
    def predict(self, rates):
        scores = super().predict(rates)
        if rates[0] > 1000:
            {flaw}
        return scores
"""
    decoders = [{"name": "good", "role": "shadow"}, {"name": "bad", "kind": "broken"}]
    session = start_counts(
        {"name": unique_name}, window=1, decoders=decoders, environment=with_broken_decoder(tmp_path, body)
    )
    source = open_source(unique_name)
    source.wait_for_consumers()
    for value in (0.1, 9, 0.1):
        source.push(value * ones(200))
    bins = session.bins(30)
    assert [b["seq"] for b in bins] == list(range(30))
    assert {b["reason"] for b in bins[10:20]} == {"decoder failed"}
    assert {(b["label"], b["scores"]) for b in bins[10:20]} == {(None, None)}
    assert all(b["scores"] == [0.0, 0.0] for b in bins[:10] + bins[20:])
    session.until(lambda: len(session.predictions("shadow")) == 30)
    assert all(b["scores"] is not None for b in session.predictions("shadow"))
    session.event("decoder_guard", 2)
    failed, well = session.events("decoder_guard")
    assert (failed["seq"], well["seq"], failed["decoder"], failed["role"]) == (10, 20, "bad", "active")
    assert words in failed["why"]
    assert well["why"] == "answers again"


def test_a_decoder_that_cannot_learn_refuses_the_label_and_goes_on(start_counts, open_source, unique_name, tmp_path):
    session = start_counts(
        {"name": unique_name},
        decoders=[{"name": "bad", "kind": "broken"}],
        environment=with_broken_decoder(tmp_path, "def learn(self, *_): 1 / 0"),
    )
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(ones(200))
    session.bins(10)
    with pytest.raises(Refused, match="decoder 'bad' could not learn it: learn raised ZeroDivisionError"):
        session.command("label", label="a")
    source.push(ones(200))
    session.bins(20)
    assert session.command("status")["labels"] == {"learned": 0, "refused": 1, "pending": 0}


def test_a_decoder_that_is_too_slow_is_told_once(start_counts, open_source, unique_name, tmp_path):
    body = "predict = lambda self, rates: __import__('time').sleep(0.001) or MaxRate.predict(self, rates)"
    session = start_counts(
        {"name": unique_name},
        decoders=[{"name": "slow", "kind": "broken", "budget_ms": 0.5, "overrun_bins": 3}],
        environment=with_broken_decoder(tmp_path, body),
    )
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(ones(400))
    bins = session.bins(20)
    assert all(b["scores"] == [0.0, 0.0] for b in bins)
    slow = session.event("decoder_guard")
    assert slow["why"] == "took longer than its budget of 0.5 ms for 3 bins in a row"
    assert slow["seq"] == 2
    assert len(session.events("decoder_guard")) == 1
    assert session.command("status")["decoders"][0]["latency_ms"]["p50"] >= 1.0
