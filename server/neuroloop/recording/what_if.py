"""A recorded session decoded otherwise: by another model, or with other settings, beside what it answered then.

Samples, labels and everything else that came from outside are the recorded ones, each after the same sample. Weights
solved beside the loop come into use at the first moment at which they are asked for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np

from neuroloop.config import SessionSettings, parse_session
from neuroloop.errors import ConfigError, ModelError
from neuroloop.recording.reader import open_xdf
from neuroloop.recording.recorded import RecordedSession
from neuroloop.recording.replay import Replay
from neuroloop.recording.replay_journal import FreeJournal
from neuroloop.recording.start import start_of
from neuroloop.session.chain import Chain
from neuroloop.session.loading import LoadRequest, build
from neuroloop.session.running import Loaded, ModelVersion

Answer = tuple[float, str | None]  # time of a bin's end, label


@dataclass(frozen=True)
class Model:
    """A version and its file."""

    name: str
    version: int
    weights: bytes

    def request(self, decoder: str) -> LoadRequest:
        digest = f"sha256:{sha256(self.weights).hexdigest()}"
        version = ModelVersion(self.name, self.version, digest)
        return LoadRequest(version, self.weights, "active", decoder, Loaded(None, "cold", 1))


@dataclass(frozen=True)
class Side:
    """One of the two. accuracy: of the bins within labels that got one; latency_ms: p50 and p99."""

    bins: int
    labelled: int
    judged: int
    correct: int
    latency_ms: dict[str, float | None]

    @property
    def accuracy(self) -> float | None:
        return self.correct / self.judged if self.judged else None


@dataclass(frozen=True)
class Segment:
    """A stretch of time in which neither answer changes, in seconds from the first bin."""

    start: float
    end: float
    recorded: str | None
    replayed: str | None
    meant: str | None


@dataclass(frozen=True)
class Comparison:
    """agreed, of compared: bins to which both gave a label."""

    changes: dict[str, Any]
    recorded: Side
    replayed: Side
    compared: int
    agreed: int
    segments: list[Segment] = field(repr=False)

    @property
    def agreement(self) -> float | None:
        return self.agreed / self.compared if self.compared else None

    def plain(self) -> dict[str, Any]:
        made = asdict(self) | {"agreement": self.agreement}
        for side in ("recorded", "replayed"):
            made[side]["accuracy"] = getattr(self, side).accuracy
        return made


def what_if(path: Path, model: Model | None, changes: Mapping[str, Any], speed: float | None = None) -> Comparison:
    """changes: dotted key of the session's settings -> value. Raises ConfigError, ModelError."""
    with open_xdf(path) as file:
        recorded = RecordedSession(file)
        settings = changed(recorded.begun["settings"], changes)
        answers: list[Answer] = []
        turns: list[float] = []
        began = perf_counter()

        def take(topic: str, message: dict[str, Any]) -> None:
            nonlocal began
            if topic == "predictions" and message["role"] == "active":
                answers.append((message["time"], message["label"]))
                now = perf_counter()
                turns.append(1000 * (now - began))
                began = now

        def prepare(chain: Chain) -> None:
            if model is not None:
                active = chain.decoders.active
                chain.decoders.swap(build(model.request(active.name), chain.decoders.needs, active.name))
                chain.decoders.past.clear()

        settings = settings if model is None else _alone(settings)
        start = start_of(recorded, settings)
        journal = FreeJournal(start.notes, keeps_decoder=model is not None)
        Replay(recorded, start, journal, take, settings, prepare).run(speed)
        before = [one for one in recorded.predictions() if one["role"] == "active" and one["seq"] >= start.seq]
        if not before or not answers:
            raise ModelError(f"{path}: there are no predictions to compare")
        latencies = [message["latency_ms"]["process"] for message in before if not message["gap"]]
        said = {**changes, **({} if model is None else {"decoder": f"{model.name}@{model.version}"})}
        return compare(said, [(m["time"], m["label"]) for m in before], answers, recorded.labels(), latencies, turns)


def changed(settings: Mapping[str, Any], changes: Mapping[str, Any]) -> SessionSettings:
    """The settings with these values in place of theirs. Raises ConfigError for a key that is none, or a value."""
    made: dict[str, Any] = dict(settings)
    for key, value in changes.items():
        at, *rest = [made, *key.split(".")]
        for part in rest[:-1]:
            at[part] = dict(at[part]) if isinstance(at.get(part), dict) else {}
            at = at[part]
        at[rest[-1]] = value
    return parse_session(made)


def _alone(session: SessionSettings) -> SessionSettings:
    """With the active decoder only."""
    return session.model_copy(update={"decoders": [one for one in session.decoders if one.role == "active"]})


def compare(
    changes: dict[str, Any],
    recorded: Sequence[Answer],
    replayed: Sequence[Answer],
    labels: Sequence[tuple[str, float, float]],
    latencies: Sequence[float | None],
    turns: Sequence[float],
) -> Comparison:
    """Both timelines, bin by bin of the replay."""
    times = np.array([time for time, _ in recorded])
    bin_s = float(np.median(np.diff([time for time, _ in replayed]))) if len(replayed) > 1 else 1.0
    compared = agreed = 0
    rows: list[tuple[float, str | None, str | None, str | None]] = []
    for time, label in replayed:
        was = recorded[_nearest(times, time)][1]
        if label is not None and was is not None:
            compared += 1
            agreed += label == was
        rows.append((time, was, label, _meant(time - bin_s / 2, labels)))
    return Comparison(
        changes,
        _side(recorded, labels, _percentiles([one for one in latencies if one is not None])),
        _side(replayed, labels, _percentiles(turns)),
        compared,
        agreed,
        _segments(rows, bin_s),
    )


def _nearest(times: np.ndarray[Any, np.dtype[np.float64]], time: float) -> int:
    after = int(np.searchsorted(times, time))
    return min((abs(float(times[at]) - time), at) for at in (after - 1, after) if 0 <= at < len(times))[1]


def _meant(time: float, labels: Sequence[tuple[str, float, float]]) -> str | None:
    return next((label for label, start, end in labels if start <= time < end), None)


def _side(
    answers: Sequence[Answer], labels: Sequence[tuple[str, float, float]], latency_ms: dict[str, float | None]
) -> Side:
    bin_s = float(np.median(np.diff([time for time, _ in answers]))) if len(answers) > 1 else 1.0
    meant = [(label, _meant(time - bin_s / 2, labels)) for time, label in answers]
    judged = [(label, truth) for label, truth in meant if label is not None and truth is not None]
    return Side(
        len(answers),
        sum(label is not None for _, label in answers),
        len(judged),
        sum(label == truth for label, truth in judged),
        latency_ms,
    )


def _percentiles(values: Sequence[float]) -> dict[str, float | None]:
    if not values:
        return {"p50": None, "p99": None}
    p50, p99 = np.percentile(values, [50, 99]).round(3).tolist()
    return {"p50": p50, "p99": p99}


def _segments(rows: Sequence[tuple[float, str | None, str | None, str | None]], bin_s: float) -> list[Segment]:
    found: list[Segment] = []
    first = rows[0][0] - bin_s
    for time, was, label, meant in rows:
        end = round(time - first, 6)
        last = found[-1] if found else None
        if last is not None and (last.recorded, last.replayed, last.meant) == (was, label, meant):
            found[-1] = Segment(last.start, end, was, label, meant)
        else:
            found.append(Segment(last.end if last else 0.0, end, was, label, meant))
    return found


def parse_changes(texts: Sequence[str]) -> dict[str, Any]:
    """`key=value`, the value as in YAML. Raises ConfigError."""
    import yaml

    made = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise ConfigError(f"--set: expected key=value, as rereference.ridge=0.01; got {text!r}")
        made[key] = yaml.safe_load(value)
    return made
