"""What a session does when its stream, its process or whoever drives it misbehaves."""

import contextlib
import signal
import subprocess
import sys

import numpy as np
import pylsl
import pytest
from tests.integration.conftest import Refused, ones, with_broken_decoder


def test_of_two_streams_that_match_none_is_taken_until_one_has_gone(start_counts, open_source, unique_name):
    first, second = (open_source(unique_name, source_id=f"{unique_name}-{number}") for number in (1, 2))
    session = start_counts({"name": unique_name})
    session.state("refused")
    assert "2 streams match" in session.command("status")["detail"]
    second.close()
    session.event("stream_connected")
    first.push(ones(40))
    assert len(session.bins(2)) == 2


def test_the_right_stream_is_found_beside_one_that_was_refused(start_counts, open_source, unique_name):
    stream = {"type": "Test", "predicate": f"starts-with(name, '{unique_name}')", "channel_count": 4}
    open_source(f"{unique_name}-wide", channel_count=6)
    session = start_counts(stream)
    session.state("refused")
    open_source(f"{unique_name}-right")
    session.event("stream_connected")
    assert session.command("status")["stream"]["name"] == f"{unique_name}-right"


def test_a_predicate_that_is_no_xpath_is_refused_clearly(start_counts, unique_name):
    session = start_counts({"predicate": "name='x"})
    session.state("refused")
    assert 'expected an XPath 1.0 predicate, got "name=\'x"' in session.command("status")["detail"]


@pytest.mark.slow
def test_a_stream_that_is_found_but_does_not_answer_is_looked_for_again(start_counts, unique_name):
    stream = {"source_id": unique_name}
    session = start_counts(stream)
    arguments = ["simulate", "--name", unique_name, "--source-id", unique_name, "--channel-count", "4"]
    with subprocess.Popen([sys.executable, "-m", "neuroloop_sources", *arguments]) as source:
        session.event("stream_found")
        source.send_signal(signal.SIGSTOP)
        assert "does not answer" in session.event("stream_lost")["detail"]
        source.send_signal(signal.SIGCONT)
        session.event("stream_connected")
        session.bins(10)
        source.terminate()


def test_a_session_that_stops_lets_go_of_its_stream(counts, open_source, unique_name):
    source = open_source(unique_name)
    source.wait_for_consumers()
    counts.event("stream_connected")
    counts.command("stop")
    counts.until(lambda: not source.outlet.have_consumers(), "the end of the connection")
    assert counts.command("status")["stream"]["state"] == "stopped"


def test_a_session_held_up_for_longer_than_its_buffer_says_what_it_missed_and_goes_on_with_the_newest(
    start_counts, open_source, unique_name
):
    stream = {"name": unique_name, "buffer_s": 0.5}
    session = start_counts(stream)
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(ones(200))
    session.bins(10)
    session.process.send_signal(signal.SIGSTOP)
    resume = pylsl.local_clock() + 2.0
    source.push(ones(20_000), chunk=100)
    session.until(lambda: pylsl.local_clock() > resume)
    session.process.send_signal(signal.SIGCONT)
    session.event("overrun")

    def is_newest(prediction):
        return prediction["seq"] >= 1010 and not prediction["gap"]

    session.until(lambda: source.push(ones(20)) or is_newest(session.predictions()[-1]), "the newest")
    session.command("stop")
    bins, status = session.predictions(), session.command("status")
    missed = sum(event["missed_bins"] for event in session.events("overrun"))
    assert [b["seq"] for b in bins] == list(range(len(bins)))
    assert status["missed_bins"] >= missed > 10
    assert status["missing_samples"] > 20 * (sum(b["gap"] for b in bins) - 4)


def test_a_pause_in_the_middle_of_a_bin_is_not_the_loop_s_own_delay(start_counts, open_source, unique_name):
    session = start_counts({"name": unique_name}, staleness="skip_to_latest")
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(ones(210))
    session.bins(10)
    resume = pylsl.local_clock() + 0.6
    session.until(lambda: pylsl.local_clock() > resume)
    source.push(ones(200), missing=600)
    bins = session.bins(50)
    assert bins[10]["latency_ms"]["stream"] > 250 > bins[10]["latency_ms"]["process"]
    assert session.events("stale") == session.events("overrun") == []


def test_a_long_hole_is_answered_bin_by_bin_and_keeps_no_command_waiting(counts, open_source, unique_name):
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(ones(200))
    counts.bins(10)
    expected, holes, is_within = 10, 0, False
    while not is_within:  # this process may come too late for one
        assert holes < 6, "no command was answered within a hole"
        source.push(ones(200), missing=200_000)
        expected, holes = expected + 10_010, holes + 1
        counts.event("gap", holes)
        is_within = counts.command("status")["bins"] < expected - 10
    bins = counts.bins(expected)
    assert [b["seq"] for b in bins] == list(range(expected))
    assert sum(b["gap"] for b in bins) == 10_000 * holes
    assert bins[-1]["samples"] == [20 * expected - 20, 20 * expected - 1]


def test_weights_come_into_use_while_no_samples_come_and_a_fit_ends_with_its_run(
    start_counts, open_source, unique_name
):
    session = start_counts(
        {"name": unique_name, "stall_after_s": 0.2},
        front_end={"kind": "bandpower", "bands": {"alpha": [8, 13]}},
        rereference={"mode": "frozen"},
    )
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(ones(200))
    session.bins(10)
    session.state("stalled")
    weights = np.zeros((4, 4))
    weights[0, 1] = weights[1, 0] = 0.5
    arguments = {"weights": weights.tobytes(), "shape": [4, 4], "channels": None}
    assert session.command("rereference_load", patience_s=5, **arguments) == {"version": 1, "bin": 10}
    with pytest.raises(Refused, match="expected the bytes of float64"):
        session.command("rereference_load", **arguments | {"shape": [3, 4]})
    fit = session.command("rereference_fit", seconds=60.0)["fit"]
    session.command("stop")
    failed = session.event("fit_failed")
    assert (failed["fit"], session.command("rereference")["fitting"]) == (fit, False)


def test_a_command_that_comes_as_the_process_ends_does_not_hold_it_up(counts):
    counts.process.stdin.close()
    with contextlib.suppress(Refused, AssertionError):
        counts.command("status", patience_s=1.0)
    assert counts.process.wait(5) == 0


def test_a_thread_that_dies_ends_the_session_loudly(start_counts, open_source, unique_name, tmp_path):
    session = start_counts(
        {"name": unique_name},
        decoders=[{"name": "d", "kind": "broken"}],
        environment=with_broken_decoder(tmp_path, "settings_model = None"),
        exit_code=1,
    )
    open_source(unique_name)
    assert session.process.wait(30) == 1
    assert "AttributeError" in session.log()


def test_an_error_in_a_command_is_answered_and_ends_the_session_loudly(
    start_counts, open_source, unique_name, tmp_path
):
    body = "from neuroloop.session.labels import Labels as L; L.submit = lambda *_: 1 / 0"
    session = start_counts(
        {"name": unique_name},
        decoders=[{"name": "d", "kind": "broken"}],
        environment=with_broken_decoder(tmp_path, body),
        exit_code=1,
    )
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(ones(1000))
    session.bins(50)
    with pytest.raises(Refused, match="'label' broke the session"):
        session.command("label", label="a")
    assert session.process.wait(8) == 1
    assert "ZeroDivisionError" in session.log()


def test_the_process_ends_when_whoever_started_it_is_gone(counts, open_source, unique_name):
    open_source(unique_name)
    counts.event("stream_connected")
    counts.process.stdin.close()
    assert counts.process.wait(20) == 0
