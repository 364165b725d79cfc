"""Fitted decoders on real EEG, streamed over LSL into real sessions: as accurate as offline analyses are.

Bands, windows and settings were chosen by leaving out one training run at a time; the runs that are scored had no part
in it. Figures are printed (`pytest -s`).
"""

import hashlib
import threading
import time
from dataclasses import replace
from math import ceil

import numpy as np
import pytest
from tests.fit_data import read_runs, request
from tests.processes import streaming

from neuroloop.training.process import fit
from neuroloop_sources import chain, play
from neuroloop_sources.loaders import open_source

SSVEP = {"kind": "covariance", "bands": {"20 Hz": [19, 21], "30 Hz": [29, 31]}, "order": 2}
MOVEMENT = {"kind": "covariance", "bands": {"mu-beta": [8, 30]}}
FISTS_FEET = {"T1": "fists", "T2": "feet"}
BEFORE_S = 1.0  # of the stream, until the decoder is loaded


def fitted(sources, recording, classes, **more):
    """The file of a `csp` decoder fitted on all trials of several runs."""
    data = read_runs(sources, "csp", recording, classes)
    asked = request("csp", classes=classes, held_out=0, **more)
    return fit(asked, data, lambda progress, loss: None).weights


def decoded(session, recording, weights, name, speed):
    """The labels that a session gives the bins of a recording; the stream waits until the decoder is loaded."""
    loaded, begun = threading.Event(), []

    def read(start, stop):
        seconds = start / recording.nominal_srate
        if seconds > BEFORE_S:
            assert loaded.wait(60)
            begun.append(time.monotonic() - seconds / speed)  # the first counts: what was waited is not made up for
            time.sleep(max(0.0, begun[0] + seconds / speed - time.monotonic()))
        return recording.read(start, stop)

    gated = replace(recording, read=read, markers=(), times=None)
    digest = f"sha256:{hashlib.sha256(weights).hexdigest()}"
    bins = int(recording.seconds / session.settings.bin_ms * 1000)
    with streaming(
        lambda stop: play(gated, name=name, source_id=name, stop=stop, wait_for_consumers=True, speed=speed)
    ):
        session.bins(4)
        model = {"name": "fitted", "version": 1, "digest": digest}
        session.ask("decoder_load", model=model, weights=weights, state="cold")
        swapped = session.event("decoder_swapped")
        loaded.set()
        session.bins(bins)
    assert session.command("status")["missed_bins"] == 0
    answers = {p["seq"]: p["label"] for p in session.predictions() if p["model"]["name"] == "fitted"}
    assert min(answers) == swapped["bin"]
    return answers


def last_bin(end_s, bin_s):
    """The last whose centre lies before the end of a window."""
    return ceil(end_s / bin_s - 0.5) - 1


def score(answers, asked):
    return float(np.mean([answers[number] == label for number, label in asked]))


def settings(name, front_end, classes, **more):
    return {
        "name": name,
        "stream": {"source_id": name, "buffer_s": 60},
        "front_end": front_end,
        "classes": classes,
        "decoders": [{"name": "decoder", "kind": "csp"}],
        "outlets": {"enabled": False},
    } | more


@pytest.mark.realdata
@pytest.mark.slow
def test_a_consumer_headset_tells_which_of_two_flickers_is_looked_at_within_a_second(
    start_session, unique_name, recordings
):
    """Muse, 30 against 20 Hz: runs 1 to 3 fitted, runs 4 to 6 scored, each trial of 3 s as three windows of 1 s."""
    path = recordings / "muse_ssvep_subject1.npz"
    classes = ["20Hz", "30Hz"]
    source = {"front_end": SSVEP, "bin_ms": 125, "interval": [0, 3]}
    session = start_session(**settings(unique_name, SSVEP, classes, bin_ms=125, window=8))
    weights = fitted([(path, run) for run in range(3)], source, classes, window=8)
    recording = chain([open_source(str(path), runs=[run]) for run in range(3, 6)])
    answers = decoded(session, recording, weights, unique_name, speed=60)
    ends = [(time + end, text) for time, text in recording.markers for end in (1, 2, 3)]
    asked = [(last_bin(end, 0.125), text) for end, text in ends if end < recording.seconds]
    accuracy = score(answers, asked)
    print(f"\nflicker, {len(asked)} windows of 1 s scored: {accuracy:.3f}")
    assert len(asked) >= 290
    assert accuracy >= 0.93


@pytest.mark.realdata
@pytest.mark.slow
def test_imagined_fists_and_feet_are_told_apart_by_spatial_patterns(start_session, unique_name, recordings):
    """Subject 1, 64 channels: R06 and R10 fitted, R14 scored, 0.5 to 3.5 s after the cue."""
    folder = recordings / "MNE-eegbci-data" / "files" / "eegmmidb" / "1.0.0" / "S001"
    classes = ["fists", "feet"]
    source = {"front_end": MOVEMENT, "bin_ms": 100, "interval": [0.5, 3.5], "labels": FISTS_FEET}
    paths = [(folder / f"S001R{run:02d}.edf", None) for run in (6, 10)]
    session = start_session(**settings(unique_name, MOVEMENT, classes, bin_ms=100, window=30))
    weights = fitted(paths, source, classes)
    recording = open_source(str(folder / "S001R14.edf"))
    answers = decoded(session, recording, weights, unique_name, speed=30)
    asked = [
        (last_bin(time + 3.5, 0.1), FISTS_FEET[text])
        for time, text in recording.markers
        if text in FISTS_FEET and time + 3.5 <= recording.seconds
    ]
    accuracy = score(answers, asked)
    print(f"\nimagined fists or feet, {len(asked)} trials scored: {accuracy:.3f}")
    assert len(asked) == 15
    assert accuracy >= 0.85
