"""What a session process writes into its log."""

import json

from tests.integration.conftest import ones


def lines(session):
    return [json.loads(line) for line in session.log().splitlines() if line.startswith("{")]


def test_a_command_and_the_events_it_causes_carry_the_request_session_and_bin(counts, open_source, unique_name):
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(ones(200))
    end = counts.bins(10)[-1]["time"]
    counts.command("label", label="a", start=end, end=end + 0.04, request_id="trial-12")
    counts.command("status", request_id="monitor")
    source.push(ones(200))
    learned = counts.event("label_learned")
    counts.command("stop")
    assert learned["request_id"] == "trial-12"
    assert "request_id" not in counts.event("session_stopped")
    logged = lines(counts)
    asked = [line for line in logged if line["event"] == "command"]
    assert [(line["command"], line.get("request_id")) for line in asked] == [("label", "trial-12"), ("stop", None)]
    (line,) = (line for line in logged if line["event"] == "label_learned")
    assert (line["request_id"], line["session"], line["level"]) == ("trial-12", unique_name, "info")
    assert (asked[0]["bin"], line["bin"]) == (10, learned["seq"])


def test_an_exchange_that_takes_some_bins_still_names_the_request_behind_it(start_counts, open_source, unique_name):
    decoders = [{"name": "main"}, {"name": "other", "role": "shadow"}]
    session = start_counts({"name": unique_name}, decoders=decoders)
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(ones(200))
    session.until(lambda: len(session.predictions("shadow")) == 10, "a shadow that keeps up: another is not promoted")
    session.ask("decoder_promote", name="other", request_id="promotion-1")
    assert session.event("decoder_swapped")["request_id"] == "promotion-1"
    session.answer("decoder_promote")
