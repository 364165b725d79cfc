"""What the demo shows: which sessions, from which source, and what is true when."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import yaml

from neuroloop.configs import example
from neuroloop.demo.score import Trial
from neuroloop.errors import ConfigError
from neuroloop_sources import SimulatorSettings, SourceError, Truth
from neuroloop_sources.loaders import open_source

Decoders = dict[tuple[str, str], str]  # (session, decoder) -> its name in the summary

EEGBCI_RUNS = (6, 10, 14)
EEGBCI_LABELS = {"T1": "fists", "T2": "feet"}
LONGEST_TRIAL_S = 3.0


@dataclass(frozen=True)
class Plan:
    """sessions: of the server. source: arguments of `python -m neuroloop_sources`. trials: from the start time of the
    source, LSL seconds. learning_trials: the first, which do not count.
    """

    sessions: list[dict[str, Any]]
    source: list[str]
    decoders: Decoders
    classes: list[str]
    trials: Callable[[float], Iterator[Trial]]
    learning_trials: int

    def names(self, session: str) -> dict[str, str]:
        """Decoder of this session -> its name in the summary."""
        return {decoder: name for (where, decoder), name in self.decoders.items() if where == session}


def _sessions(name: str) -> list[dict[str, Any]]:
    sessions: list[dict[str, Any]] = yaml.safe_load(example(name).read_text())["sessions"]
    return sessions


def simulated(seed: int) -> Plan:
    """The simulated array of `configs/demo.yaml`, with and without rereferencing."""
    source_id = f"neuroloop-demo-{uuid.uuid4().hex[:8]}"
    sessions = _sessions("demo")
    for session in sessions:
        session["stream"] = {"source_id": source_id}
        session["markers"][0]["stream"] = {"source_id": f"{source_id}-markers"}
    settings = SimulatorSettings(source_id=source_id, seed=seed)
    start_s, stop_s = sessions[0]["markers"][0]["window"]

    def trials(start: float) -> Iterator[Trial]:
        truth, number = Truth(settings), 0
        while True:
            cue = start + number * settings.trial_samples / settings.nominal_srate
            ideal = truth.ideal_decode(number, start_s, stop_s)
            yield Trial(cue + start_s, cue + stop_s, truth.label(number), ideal)
            number += 1

    active, plain = sessions[0]["name"], sessions[1]["name"]
    return Plan(
        sessions,
        ["simulate", "--wait", "--json", "--source-id", source_id, "--seed", str(seed)],
        {(active, "maxrate"): "maxrate", (active, "poisson"): "poisson", (plain, "maxrate"): "maxrate_without_lrr"},
        sessions[0]["classes"],
        trials,
        40,
    )


def recorded(dataset: str) -> Plan:
    """A recording: `eegbci` (imagined fists against feet), or an .edf, .npz or .xdf file with markers."""
    runs = EEGBCI_RUNS if dataset == "eegbci" else ()
    try:
        recording = open_source(dataset, runs=runs)
    except SourceError as error:
        raise ConfigError(f"dataset: {error}") from error
    labels = EEGBCI_LABELS if dataset == "eegbci" else {text: text for _, text in recording.markers}
    cues = [(time, labels[text]) for time, text in recording.markers if text in labels]
    classes = sorted(set(labels.values()))
    if len(classes) < 2:
        raise ConfigError(
            f"dataset {dataset}: expected markers of two kinds or more to decode, got {classes or 'none'}"
        )
    length = min(LONGEST_TRIAL_S, float(np.median(np.diff([time for time, _ in cues]))))
    source_id = f"neuroloop-demo-{uuid.uuid4().hex[:8]}"
    session = _sessions("headset" if recording.type == "EEG" else "counts")[0]
    session |= {
        "name": "demo",
        "stream": {"source_id": source_id},
        "markers": [{"stream": {"source_id": f"{source_id}-markers"}, "labels": labels, "window": [0, length]}],
        "classes": classes,
    }

    def trials(start: float) -> Iterator[Trial]:
        for time, label in cues:
            yield Trial(start + time, start + time + length, label)

    arguments = ["play", dataset, "--wait", "--json", "--source-id", source_id]
    return Plan(
        [session],
        arguments + [part for run in runs for part in ("--run", str(run))],
        {("demo", "maxrate"): "maxrate", ("demo", "poisson"): "poisson"},
        classes,
        trials,
        len(cues) // 2,
    )
