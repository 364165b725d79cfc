"""Real recordings and the simulator, streamed over LSL into real sessions: identical whatever the chunks, and how well
they are decoded. Figures are printed (`pytest -s`)."""

from collections import Counter
from dataclasses import replace

import msgpack
import numpy as np
import pytest
import yaml
from tests.processes import streaming

from neuroloop.configs import example
from neuroloop_sources import CLASSES, SimulatorSettings, chain, outlets, play, run
from neuroloop_sources.loaders import open_source as open_recording

FROM_THE_CLOCK = ("time", "age_ms", "latency_ms", "session")
REFERENCE_FORM = {"rule": "sum", "normalize": "none"}
HEADSET = yaml.safe_load(example("headset").read_text())["sessions"][0]


@pytest.fixture(autouse=True)
def _sources_wait_for_the_marker_inlet(monkeypatch):
    """Every session here follows the markers, and misses labels that are sent before it does."""
    monkeypatch.setattr(outlets, "MARKER_WAIT_S", 60.0)


def player(recording, name, **options):
    def source(stop):
        play(recording, name=name, source_id=name, stop=stop, wait_for_consumers=True, **options)

    return source


def selectors(name, window, labels=None):
    """Settings of a session that follows a source of this name and its markers."""
    markers = {"stream": {"source_id": f"{name}-markers"}, "window": window, "labels": labels}
    return {
        "name": name,
        "stream": {"source_id": name, "buffer_s": 60},
        "markers": [markers],
        "outlets": {"enabled": False},
    }


def part(recording, start_s, stop_s):
    """From start to stop, in seconds; a recording of its own, without markers."""
    first, after = (round(seconds * recording.nominal_srate) for seconds in (start_s, stop_s))

    def read(start, stop):
        return recording.read(first + start, first + stop)

    return replace(recording, sample_count=after - first, read=read, markers=(), times=None)


def payloads(session):
    """Every prediction's bytes, without what the clock says, bin by bin; a shadow answers in its own time."""
    return [
        msgpack.packb({key: value for key, value in prediction.items() if key not in FROM_THE_CLOCK})
        for prediction in sorted(session.messages["predictions"], key=lambda one: (one["seq"], one["role"]))
    ]


def all_bins(session, bins, decoders):
    """Wait until every decoder has answered so many bins."""
    answers = session.messages["predictions"]
    session.until(
        lambda: sum(count >= bins for count in Counter(one["decoder"] for one in answers).values()) == decoders,
        f"{bins} bins",
    )


@pytest.mark.slow
def test_the_simulator_in_other_chunks_gives_byte_identical_predictions(start_session, unique_name):
    seen = []
    for chunk_ms in (1.0, 7.3):
        name = f"{unique_name}-{len(seen)}"
        session = start_session(
            **selectors(name, [0.1, 0.6]),
            classes=list(CLASSES),
            rereference={"clusters": 32},
            decoders=[{"name": "maxrate"}, {"name": "poisson", "kind": "poisson", "role": "shadow"}],
        )
        settings = SimulatorSettings(name=name, source_id=name, chunk_ms=chunk_ms)
        with streaming(lambda stop, settings=settings: run(settings, stop=stop, wait_for_consumers=True, seconds=6.5)):
            all_bins(session, 300, 2)
        seen.append(payloads(session)[:600])
        assert session.predictions()[299]["model"]["version"] >= 7
        assert session.predictions()[299]["rereference"] >= 3
    assert seen[0] == seen[1]


@pytest.mark.realdata
@pytest.mark.slow
def test_a_recording_in_other_chunks_gives_byte_identical_predictions(start_session, unique_name, recordings):
    whole = open_recording("eegbci", runs=[6])
    recording = replace(part(whole, 0, 30), markers=tuple((time, text) for time, text in whole.markers if time < 26))
    seen = []
    for chunk in (1, 13):
        name = f"{unique_name}-{chunk}"
        session = start_session(
            **selectors(name, [0, 2], {"T1": "fists", "T2": "feet"}),
            front_end={"kind": "bandpower", "scale": "relative"},
            rereference={"update_every_s": 2},
            bin_ms=100,
            classes=["fists", "feet"],
        )
        with streaming(player(recording, name, chunk=chunk, speed=4)):
            all_bins(session, 300, 1)
        seen.append(payloads(session))
        assert session.predictions()[-1]["model"]["version"] >= 3
        assert session.predictions()[-1]["label"] is not None, session.predictions()[-1]["reason"]
    assert seen[0] == seen[1]


def poisson_maximum_likelihood(rates, labels, asked, duration_s, smoothing):
    """Labels of `asked`, (trials, units), from class rates of `rates`, in hertz, as a textbook has it."""
    counts, classes = rates * duration_s, np.unique(labels)
    expected = np.stack(
        [(counts[labels == k].sum(axis=0) + smoothing) / ((labels == k).sum() + 2 * smoothing) for k in classes]
    )
    return classes[(asked * duration_s @ np.log(expected.T) - expected.sum(axis=1)).argmax(axis=1)]


@pytest.mark.realdata
@pytest.mark.slow
def test_hippocampal_spikes_tell_where_the_animal_runs(start_session, unique_name, recordings):
    """4 positions x 2 directions, learned online, then scored on as much again, in half seconds."""
    recording = open_recording(str(recordings / "hc_linear_track.npz"))
    recording = replace(recording, sample_count=round(480 * recording.nominal_srate))  # of 980 s
    half_s = recording.sample_count / recording.nominal_srate / 2
    first = [(time, text) for time, text in recording.markers if time + 0.5 <= half_s]
    second = [(time, text) for time, text in recording.markers if half_s <= time <= 2 * half_s - 0.5]
    classes = sorted({text for _, text in recording.markers})
    session = start_session(
        **selectors(unique_name, [0, 0.5]),
        front_end={"kind": "counts"},
        bin_ms=100,
        window=5,
        classes=classes,
        decoders=[
            {"name": "maxrate"},
            {"name": "reference", "settings": REFERENCE_FORM, "role": "shadow"},
            {"name": "poisson", "kind": "poisson", "role": "shadow"},
        ],
    )
    with streaming(player(replace(recording, markers=tuple(first)), unique_name, chunk=5, speed=45)):
        all_bins(session, recording.sample_count // 5, 3)
    assert session.command("status")["labels"]["learned"] == len(first)
    assert session.command("status")["gaps"] == 0
    answers = {(p["model"]["name"], p["seq"]): p["label"] for p in session.messages["predictions"]}
    truth = np.array([text for _, text in second])
    last_bins = [round(time * 10) + 4 for time, _ in second]
    accuracy = {
        name: float(np.mean(truth == [answers[name, seq] for seq in last_bins]))
        for name in ("maxrate", "reference", "poisson")
    }

    def rates(markers):
        bins = [round(time * 50) for time, _ in markers]
        return np.stack([recording.read(start, start + 25).mean(axis=0) * 50 for start in bins])

    labels = np.array([text for _, text in first])
    offline = poisson_maximum_likelihood(rates(first), labels, rates(second), 0.5, 0.5)
    accuracy["poisson offline"] = float(np.mean(offline == truth))
    print(f"\nhippocampus, {len(first)} windows learned, {len(second)} scored: {accuracy}")
    assert accuracy["maxrate"] > accuracy["reference"]
    assert accuracy["poisson"] > accuracy["poisson offline"] - 0.05
    assert min(accuracy.values()) > 2 / len(classes)


@pytest.mark.realdata
@pytest.mark.slow
def test_a_headset_tells_open_eyes_from_closed(start_session, unique_name, recordings):
    """R01 and R02, learned online on the first halves, scored on 2 s windows of the second."""
    opened, closed = (open_recording("eegbci", runs=[run]) for run in (1, 2))
    halves = [part(opened, 0, 30), part(closed, 0, 30), part(opened, 30, 60), part(closed, 30, 60)]
    cues = [(float(start), "eyes-open" if start < 30 else "eyes-closed") for start in range(0, 60, 2)]
    recording = replace(chain(halves), markers=tuple(cues))
    session = start_session(**(HEADSET | selectors(unique_name, [0, 2], HEADSET["markers"][0]["labels"])))
    with streaming(player(recording, unique_name, speed=12)):
        all_bins(session, 1200, 2)
    windows = [(end * 10 - 1, "open" if end <= 90 else "closed") for end in range(62, 122, 2)]
    answers = {(p["model"]["name"], p["seq"]): p["label"] for p in session.messages["predictions"]}
    accuracy = {
        name: float(np.mean([answers[name, seq] == label for seq, label in windows])) for name in ("maxrate", "poisson")
    }
    print(f"\neyes open or closed, 30 windows learned, {len(windows)} scored: {accuracy}")
    assert accuracy["maxrate"] >= 0.95
