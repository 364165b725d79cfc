"""A sender whose clock is set while it streams in real time."""

import time

import numpy as np
import pylsl
import pytest
from tests.integration.conftest import ones
from tests.integration.test_recording import RECORDING, path_of, read

from neuroloop.recording.verification import verify

STEPS = {"ahead": 10.0, "far ahead": 200_000.0, "back": -3.0, "far back": -400_000.0}


def stream(session, source, seconds):
    """In real time; returns what came of it."""
    before = len(session.predictions())
    due = pylsl.local_clock()
    for _ in range(round(seconds / 0.02)):
        source.push(ones(20))
        due += 0.02
        time.sleep(max(0.0, due - pylsl.local_clock()))
    session.receive()
    return session.predictions()[before:]


def test_times_and_ages_stay_right_whichever_way_the_clock_is_set(start_counts, open_source, unique_name):
    session = start_counts({"name": unique_name}, recording=RECORDING)
    source = open_source(unique_name)
    source.wait_for_consumers()
    stream(session, source, 5.5)  # a step forwards of less than an hour is one of a sender that has kept time
    for number, seconds in enumerate(STEPS.values()):
        source.start += seconds
        bins = stream(session, source, 0.4)
        assert max(abs(b["age_ms"]) for b in bins) < 500
        event = session.event("clock_step", number + 1)
        assert event["seconds"] == pytest.approx(seconds, abs=0.01)
        assert session.command("status")["stream"]["clock_correction_s"] == pytest.approx(event["correction_s"])
    assert session.events("gap") == []
    bins = session.predictions()
    np.testing.assert_allclose(np.diff([b["time"] for b in bins]), 0.02, atol=1e-3)
    assert session.command("status")["stream"]["clock_steps"] == len(STEPS)
    session.command("recording_stop")
    kept = np.diff(read(path_of(session))[unique_name]["time_stamps"])  # as they came
    assert np.sort(kept[np.abs(kept) > 1]) == pytest.approx(sorted(STEPS.values()), abs=0.01)
    verdict = verify(path_of(session))
    assert (verdict.first, verdict.is_identical) == (None, True)
