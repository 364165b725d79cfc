"""A session process over real LSL: ingest, gaps, faults, labels, outputs."""

import math

import numpy as np
import pylsl
import pytest
from tests.integration.conftest import ALL, COUNTS, Refused, ones


def test_every_bin_is_answered_in_order_with_its_samples_and_its_time(counts, open_source, unique_name):
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(ones(200), chunk=7)
    bins = counts.bins(10)
    assert [b["seq"] for b in bins] == list(range(10))
    assert [b["samples"] for b in bins] == [[20 * i, 20 * i + 19] for i in range(10)]
    np.testing.assert_allclose([b["time"] - source.start for b in bins], 0.02 * np.arange(1, 11), atol=1e-3)
    assert {b["label"] for b in bins} == {None}
    assert all(b["reason"] for b in bins)
    rates = counts.until(lambda: len(counts.messages["rates"]) >= 10 and counts.messages["rates"])
    assert rates[5]["rates"] == [1000.0] * 4


def test_the_stream_is_described_in_the_status(counts, open_source, unique_name):
    source = open_source(unique_name, labels=["C3", "C4", "Cz", "Oz"])
    source.wait_for_consumers()
    counts.event("stream_connected")
    status = counts.command("status")
    stream = status["stream"]
    assert (stream["state"], stream["channel_count"], stream["nominal_srate"]) == ("connected", 4, 1000.0)
    assert status["device"] == "cpu"
    assert status["memory_bytes"] == pytest.approx(4 * status["memory_bytes_per_channel"], abs=4)
    assert status["memory_bytes"] > 4 * 4 * 4000  # the ring alone holds four seconds of float32
    assert stream["channels"] == ["C3", "C4", "Cz", "Oz"]
    assert stream["units"] == ["microvolts"] * 4
    assert stream["source_id"] == unique_name


@pytest.mark.parametrize(
    "selector",
    [
        lambda name: {"name": name},
        lambda name: {"source_id": name},
        lambda name: {"type": "Test", "name": name},
        lambda name: {"predicate": f"name='{name}' and channel_count=4"},
    ],
    ids=["name", "source_id", "type", "predicate"],
)
def test_a_stream_is_found_by_each_of_its_properties(start_session, open_source, unique_name, selector):
    source = open_source(unique_name)
    session = start_session(
        name=unique_name, stream=selector(unique_name), front_end=COUNTS, classes=ALL, outlets={"enabled": False}
    )
    session.event("stream_connected")
    source.push(ones(40))
    assert len(session.bins(2)) >= 2


@pytest.mark.parametrize(
    ("format", "dtype"),
    [
        (pylsl.cf_int8, np.int8),
        (pylsl.cf_int16, np.int16),
        (pylsl.cf_int32, np.int32),
        (pylsl.cf_int64, np.int64),
        (pylsl.cf_float32, np.float32),
        (pylsl.cf_double64, np.float64),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_every_numeric_format_is_taken(start_session, open_source, unique_name, format, dtype):
    session = start_session(
        name=unique_name, stream={"name": unique_name}, front_end=COUNTS, classes=ALL, outlets={"enabled": False}
    )
    source = open_source(unique_name, format=format)
    source.wait_for_consumers()
    source.push(np.tile(np.array([0, 1, 2, 100], dtype), (100, 1)), chunk=13)
    session.bins(5)
    rates = session.until(lambda: len(session.messages["rates"]) >= 5 and session.messages["rates"])
    assert rates[4]["rates"] == [0.0, 1000.0, 2000.0, 100_000.0]


def test_missing_samples_are_counted_and_their_bins_marked(counts, open_source, unique_name):
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(ones(110))
    source.push(ones(90), missing=7)
    source.push(ones(200), missing=65)
    bins = counts.bins(23)
    # 110 samples, 7 missing, 90, 65 missing (207 to 271: the rest of bin 10, bins 11 and 12, a part of bin 13), 200.
    assert [b["seq"] for b in bins if b["gap"]] == [5, 10, 11, 12, 13]
    assert all(b["label"] is None and b["reason"] == "gap" for b in bins if b["gap"])
    assert [b["seq"] for b in bins] == list(range(len(bins)))
    status = counts.command("status")
    assert status["missing_samples"] == 72
    assert sum(event["missing_samples"] for event in counts.events("gap")) == 72
    assert status["missed_bins"] == 0


def test_nan_and_inf_count_as_missing_are_named_and_the_loop_goes_on(counts, open_source, unique_name):
    source = open_source(unique_name)
    source.wait_for_consumers()
    samples = ones(400)
    samples[50, 1] = np.nan
    samples[51, 1] = -np.inf
    samples[130, 3] = np.inf
    source.push(samples)
    bins = counts.bins(20)
    assert [b["seq"] for b in bins if b["gap"]] == [2, 6]
    event = counts.event("nonfinite")
    assert event["channels"] == {"c1": 2, "c3": 1}
    assert counts.command("status")["nonfinite_samples"] == 3
    rates = counts.until(lambda: len(counts.messages["rates"]) >= 20 and counts.messages["rates"])
    assert all(math.isfinite(value) for message in rates for value in message["rates"])


def test_a_stream_that_vanishes_and_returns_is_picked_up_with_the_hole_as_a_gap(counts, open_source, unique_name):
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(ones(200))
    counts.bins(10)
    start, source.outlet = source.start, None
    counts.event("stream_lost")
    assert counts.command("status")["stream"]["state"] == "lost"
    again = open_source(unique_name)
    again.start, again.sent = start, 200
    again.wait_for_consumers()
    again.push(ones(200), missing=3000)
    bins = counts.bins(170)
    assert [b["seq"] for b in bins] == list(range(len(bins)))
    assert sum(b["gap"] for b in bins) == 150
    assert bins[165]["samples"] == [3300, 3319]
    assert counts.command("status")["missing_samples"] == 3000
    assert counts.command("status")["stream"]["state"] == "connected"


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"channel_count": 5}, "another channel count: expected 4, got 5"),
        ({"labels": ["c0", "c1", "c2", "other"]}, "another channel labels"),
        ({"nominal_srate": 500.0}, "another nominal_srate: expected 1000.0, got 500.0"),
    ],
    ids=["count", "labels", "rate"],
)
def test_a_stream_that_returns_as_another_is_refused_clearly(counts, open_source, unique_name, changes, words):
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(ones(40))
    counts.bins(2)
    source.outlet = None
    counts.event("stream_lost")
    open_source(unique_name, **changes)
    assert words in counts.event("stream_refused")["detail"]
    assert counts.command("status")["stream"]["state"] == "refused"


def test_a_refused_stream_is_taken_as_a_new_one_after_stop_and_start(counts, open_source, unique_name):
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(ones(40))
    counts.bins(2)
    source.outlet = None
    counts.event("stream_lost")
    wider = open_source(unique_name, channel_count=6)
    counts.event("stream_refused")
    assert counts.command("stop") == {"state": "stopped"}
    assert counts.command("start") == {"state": "running"}
    wider.wait_for_consumers()
    wider.push(ones(40, 6))
    bins = counts.bins(4)
    assert [b["seq"] for b in bins] == [0, 1, 2, 3]
    assert counts.command("status")["stream"]["channel_count"] == 6


def test_stop_and_start_keep_what_was_learned_and_seq_goes_on(counts, open_source, unique_name):
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(ones(200))
    counts.bins(10)
    counts.command("label", label="a")
    counts.command("stop")
    with pytest.raises(Refused, match="stopped already"):
        counts.command("stop")
    counts.command("start")
    counts.event("stream_connected", 2)
    source.push(ones(100), missing=500)
    bins = counts.bins(15)
    assert [b["seq"] for b in bins] == list(range(15))
    assert not any(b["gap"] for b in bins)
    assert counts.command("status")["decoders"][0]["learned"]["a"] == 1


def test_a_stream_without_samples_is_stalled_and_resumes(start_session, open_source, unique_name):
    stream = {"name": unique_name, "stall_after_s": 0.2}
    session = start_session(name=unique_name, stream=stream, front_end=COUNTS, classes=ALL, outlets={"enabled": False})
    source = open_source(unique_name)
    source.wait_for_consumers()
    source.push(ones(100))
    session.bins(5)
    session.state("stalled")
    session.receive()
    resumed = len(session.events("stream_resumed"))  # one, where the silence before the first sample was long, too
    source.push(ones(100))
    session.event("stream_resumed", resumed + 1)
    assert len(session.bins(10)) == 10


def test_a_stream_that_never_appears_is_searched_and_said_so(counts):
    status = counts.command("status")
    assert (status["state"], status["stream"]["state"]) == ("running", "searching")
    with pytest.raises(Refused, match="has not been found yet"):
        counts.command("label", label="a")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"stream": {"channel_count": 8}}, "expected 8 channels"),
        ({"stream": {"nominal_srate": 500}}, "expected 500 Hz"),
        ({"stream": {"channels": ["c0", "Fpz"]}}, "no channel Fpz"),
        ({"front_end": {"kind": "broadband", "band": [300, 6000]}}, "allowed: 0 < low < high < 500"),
        (
            {"front_end": {"kind": "bandpower"}, "rereference": {"clusters": [["c0", "Fpz"]]}},
            "channel 'Fpz' is not there",
        ),
        ({"decoders": [{"name": "d", "kind": "nothing"}]}, "'nothing' is not known; there are: "),
    ],
    ids=["count", "rate", "channels", "band", "clusters", "kind"],
)
def test_a_stream_that_does_not_fit_the_configuration_is_refused(
    start_session, open_source, unique_name, settings, words
):
    open_source(unique_name)
    stream = {"name": unique_name} | settings.pop("stream", {})
    session = start_session(name=unique_name, stream=stream, classes=ALL, **({"front_end": COUNTS} | settings))
    assert words in session.event("stream_refused")["detail"]
    assert session.command("status")["stream"]["state"] == "refused"


def test_labels_teach_the_decoders_late_ones_too_and_bad_ones_change_nothing(counts, open_source, unique_name):
    source = open_source(unique_name)
    source.wait_for_consumers()
    left, right = ones(500), ones(500)
    left[:, :2] = 5
    right[:, 2:] = 5
    source.push(left)
    source.push(right)
    counts.bins(50)
    # Late: both intervals have passed.
    first = counts.command("label", label="a", start=source.start, end=source.start + 0.5)
    assert (first["state"], first["bins"]) == ("learned", 25)
    counts.command("label", label="b", start=source.start + 0.5, end=source.start + 1.0)
    source.push(left)
    assert counts.bins(75)[74]["label"] == "a"
    assert counts.predictions()[74]["model"]["version"] == 2
    for arguments, words in [
        ({"label": "c"}, "'c' is no class of this session; its classes are a, b"),
        ({"label": "a", "start": 1.0, "end": 2.0}, "rates are kept from"),
        ({"label": "a", "start": "x", "end": 2.0}, "expected a finite number"),
    ]:
        with pytest.raises(Refused, match=words):
            counts.command("label", **arguments)
    pending = counts.command("label", label="b", start=source.start + 1.5, end=source.start + 1.6)
    assert (pending["state"], pending["bins"]) == ("pending", 5)
    source.push(right)
    counts.event("label_learned", 3)
    status = counts.command("status")
    assert status["labels"] == {"learned": 3, "refused": 2, "pending": 0}
    assert status["decoders"][0]["learned"] == {"a": 1, "b": 2}


def test_markers_become_labels_by_their_mapping_and_window(start_session, open_source, unique_name):
    markers = {"stream": {"name": f"{unique_name}-m"}, "labels": {"go": "b"}, "window": [0.1, 0.3]}
    session = start_session(
        name=unique_name,
        stream={"name": unique_name},
        markers=[markers],
        front_end=COUNTS,
        classes=ALL,
        outlets={"enabled": False},
    )
    info = pylsl.StreamInfo(f"{unique_name}-m", "Markers", 1, pylsl.IRREGULAR_RATE, pylsl.cf_string, f"{unique_name}-m")
    outlet = pylsl.StreamOutlet(info)
    source = open_source(unique_name)
    source.wait_for_consumers()
    assert outlet.wait_for_consumers(30)
    source.push(ones(200))
    outlet.push_sample(["go"], source.start + 0.1)
    outlet.push_sample(["something else"], source.start + 0.1)
    source.push(ones(400))
    learned = session.event("label_learned")
    assert learned["label"] == "b"
    assert (learned["start"] - source.start, learned["end"] - source.start) == (
        pytest.approx(0.2, abs=1e-3),
        pytest.approx(0.4, abs=1e-3),
    )
    assert learned["bins"] == 10
    assert session.events("label_refused") == []


def test_scores_and_labels_go_out_as_lsl_streams(start_session, open_source, unique_name):
    session = start_session(name=unique_name, stream={"name": unique_name}, front_end=COUNTS, window=5, classes=ALL)
    source = open_source(unique_name)
    source.wait_for_consumers()
    (scores,) = pylsl.resolve_byprop("name", f"{unique_name}-scores", timeout=30)
    (labels,) = pylsl.resolve_byprop("name", f"{unique_name}-labels", timeout=30)
    score_inlet, label_inlet = pylsl.StreamInlet(scores), pylsl.StreamInlet(labels)
    score_inlet.open_stream(30)
    label_inlet.open_stream(30)
    assert score_inlet.info().get_channel_labels() == ALL
    assert score_inlet.info().nominal_srate() == pytest.approx(50)
    left, right = ones(200), ones(200)
    left[:, 0] = right[:, 1] = 9
    for label, samples in (("a", left), ("b", right)):
        source.push(samples)
        session.bins(source.sent // 20)
        session.command("label", label=label)
    source.push(left)
    bins = session.bins(30)
    for expected in bins:
        values, time = score_inlet.pull_sample(timeout=30)
        assert time == pytest.approx(expected["time"], abs=1e-6)
        np.testing.assert_array_equal(values, expected["scores"])
    decided = [b for b in bins if b["label"] is not None]
    assert decided
    for expected in decided:
        (text,), time = label_inlet.pull_sample(timeout=30)
        assert (text, time) == (expected["label"], pytest.approx(expected["time"], abs=1e-6))


def test_two_sessions_share_one_stream(start_session, open_source, unique_name):
    sessions = [
        start_session(
            name=f"{unique_name}-{number}",
            stream={"name": unique_name},
            front_end=COUNTS,
            classes=ALL,
            outlets={"enabled": False},
        )
        for number in range(2)
    ]
    source = open_source(unique_name)
    for session in sessions:
        session.event("stream_connected")
    source.push(ones(200))
    assert [len(session.bins(10)) for session in sessions] == [10, 10]
