"""A loop that falls behind, and one that is too slow for all that it has to do."""

import os
import subprocess
import sys
import time

import numpy as np
import pylsl
import pytest
from tests.integration.conftest import ones, with_broken_decoder
from tests.integration.test_recording import RECORDING, path_of

from neuroloop.recording.verification import verify

POLICIES = ["catch_up", "skip_to_latest", "hold"]


def pattern(samples, label):
    """Counts on the channels of this label."""
    return np.tile(np.array([[5, 5, 0, 0] if label == "a" else [0, 0, 5, 5]], np.float32), (samples, 1))


@pytest.mark.parametrize("policy", POLICIES)
def test_a_loop_behind_does_what_its_policy_says_tells_it_and_replays_to_the_bit(
    start_counts, open_source, unique_name, policy
):
    decoders = [{"name": "main"}, {"name": "beside", "role": "shadow"}]
    settings = {"staleness": policy, "stale_after_ms": 100, "recording": RECORDING, "decoders": decoders}
    session = start_counts({"name": unique_name}, **settings)
    source = open_source(unique_name)
    source.wait_for_consumers()
    for label in "ab":
        source.push(pattern(200, label))
        session.bins(10 if label == "a" else 20)
        session.command("label", label=label)
    source.push(pattern(400, "b"), missing=100_000)  # these wait until the bins of the hole are answered
    session.event("stale")
    source.push(pattern(200, "b"))
    session.until(lambda: source.push(pattern(20, "b")) or session.events("in_time"), "in_time")
    session.until(lambda: source.push(pattern(20, "b")) or session.predictions()[-1]["label"] == "b")
    if policy == "skip_to_latest":
        session.event("overrun")  # told once a second
    session.command("recording_stop")
    bins, status = session.predictions(), session.command("status")
    assert [b["seq"] for b in bins] == list(range(len(bins)))
    stale = [b for b in bins if not b["gap"] and b["latency_ms"]["process"] > 100]
    assert status["staleness"]["bins"] == len(stale) > 0
    assert session.event("stale")["policy"] == policy
    assert sum(event["stale_bins"] for event in session.events("in_time")) == len(stale)
    if policy == "hold":
        assert {(b["label"], b["confidence"], b["reason"]) for b in stale} == {(None, None, "stale")}
        assert all(b["scores"] for b in stale)
    else:
        assert {(b["label"], b["reason"]) for b in stale} == {("b", None)}
    skipped = sum(event["dropped_samples"] for event in session.events("overrun"))
    assert (skipped > 0) == (policy == "skip_to_latest")
    assert status["missing_samples"] == 100_000 + skipped
    verdict = verify(path_of(session))
    assert verdict.first is None, str(verdict.first)
    assert verdict.is_identical


def test_an_overloaded_session_sheds_its_shadows_and_gives_them_back(start_counts, open_source, unique_name, tmp_path):
    body = """
        answered = 0
        def predict(self, rates):
            import time
            type(self).answered += 1
            time.sleep(0.03 if 10 < self.answered < 60 else 0.0)
            return super().predict(rates)
    """
    decoders = [{"name": "slow", "kind": "broken"}, {"name": "beside", "role": "shadow"}]
    environment = with_broken_decoder(tmp_path, body)
    settings = {"decoders": decoders, "recording": RECORDING, "window": 1}
    session = start_counts({"name": unique_name}, environment=environment, **settings)
    source = open_source(unique_name)
    source.wait_for_consumers()
    due = pylsl.local_clock()
    while not session.events("shed_over"):
        source.push(ones(20))
        due += 0.02
        time.sleep(max(0.0, due - pylsl.local_clock()))
        session.receive(0)
        assert len(session.predictions()) < 1500
    first, last = session.event("shed"), session.event("shed_over")
    assert (first["what"], last["what"]) == ("shadows", "shadows")
    source.push(ones(100))
    session.until(lambda: session.predictions("shadow")[-1]["seq"] >= last["seq"])
    answered = {b["seq"] for b in session.predictions("shadow")}
    assert not answered & set(range(first["seq"], last["seq"]))
    assert [b["seq"] for b in session.predictions()] == list(range(len(session.predictions())))
    described = session.command("status")["decoders"][1]
    assert described["skipped"] >= last["seq"] - first["seq"]
    session.command("recording_stop")
    command = [sys.executable, "-m", "neuroloop", "replay", str(path_of(session)), "--verify"]
    replayed = subprocess.run(command, env=os.environ | environment, capture_output=True, text=True)
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr
