"""Whether a replay gives what was recorded: every prediction and every rate vector, bit for bit.

`age_ms` and `latency_ms` are left out: they are of the clock, and a replay has another one. On a CPU everything else is
the same where the program, its libraries and the kind of processor are; on a GPU, sums are formed in another order from
run to run only if the driver chooses so, and the first difference says what it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.recording.reader import open_xdf
from neuroloop.recording.recorded import Note, RecordedSession
from neuroloop.recording.replay import Diverged, Replay
from neuroloop.recording.replay_journal import ReplayJournal
from neuroloop.recording.start import Start, start_of
from neuroloop.session.recorder import made_by

OF_THE_CLOCK = ("age_ms", "latency_ms")
NOT_COMPARED = dict.fromkeys(OF_THE_CLOCK)
STAGES = {"time": "clock", "samples": "timeline", "gap": "timeline", "rereference": "rereference"}
FAR = 4096  # bins; a message is not as late as that
Key = tuple[int, str]  # bin, and decoder or encoder


@dataclass(frozen=True)
class Difference:
    """The first thing that is not the same. stage: the first one along the path of a sample that differs."""

    bin: int
    stage: str
    what: str
    recorded: Any
    replayed: Any

    def __str__(self) -> str:
        return f"bin {self.bin}, {self.stage}: {self.what} was {self.recorded!r}, and is {self.replayed!r}"


@dataclass(frozen=True)
class Verdict:
    """What a replay came to. predictions, encodings: of decoders and encoders, compared; missing: not replayed.

    seconds: of wall time.
    unchecked: answers of encoders that were recorded and not compared, since the recording has not what they rest on.
    before: predictions that were recorded of bins before `first_bin`, with which the replay begins.
    others: packages and machines that are not those of the recording.
    """

    predictions: int
    encodings: int
    rates: int
    differing: int
    missing: int
    unchecked: int
    before: int
    first_bin: int
    first: Difference | None
    ended: str | None
    data_s: float
    seconds: float
    lost: int
    others: list[str]

    @property
    def is_identical(self) -> bool:
        return self.predictions > 0 and self.first is None and self.missing == 0 and self.ended is None

    @property
    def speed(self) -> float:
        """Times real time."""
        return self.data_s / self.seconds if self.seconds else 0.0

    def plain(self) -> dict[str, Any]:
        return asdict(self) | {"is_identical": self.is_identical, "speed": round(self.speed, 2)}


class Verification:
    """Takes what a replay publishes, and compares it with the recording."""

    def __init__(self, recorded: RecordedSession, start: Start) -> None:
        self.predictions = self.encodings = self.rates = self.differing = 0
        self.first: Difference | None = None
        self._predictions = _Told(recorded.predictions(), "decoder", start.seq)
        self._encodings = _Told(recorded.encoders(), "encoder", start.seq)
        self._has_encoders = start.has_encoders
        self._recorded_rates = recorded.rates()
        self._weights = {
            note["version"]: note["weights"]["sha256"] for note in recorded.notes if note["kind"] == "rereference"
        }
        self._of_replay: dict[int, str] = {}

    def take(self, topic: str, message: dict[str, Any]) -> None:
        """A message of the replay, in the order of its loop."""
        if topic == "predictions":
            self._prediction(message)
        elif topic == "encoders":
            self._encoding(message)
        elif topic == "rates":
            self._rate(message)

    def follow(self, weights: dict[int, str]) -> None:
        """weights: digests of the rereference's versions, as the replay comes to them."""
        self._of_replay = weights

    @property
    def before(self) -> int:
        """Predictions that were recorded of bins before the first one."""
        return self._predictions.before

    def missing(self) -> int:
        """Predictions that were recorded, and that the replay did not make."""
        return self._predictions.left() + (self._encodings.left() if self._has_encoders else 0)

    def unchecked(self) -> int:
        """Answers of encoders that were recorded, where those are not replayed."""
        return 0 if self._has_encoders else self._encodings.left() + self._encodings.before

    def _prediction(self, replayed: dict[str, Any]) -> None:
        recorded = self._predictions.find(replayed["seq"], replayed["decoder"])
        if recorded is None:
            return  # the recording ended before it
        self.predictions += 1
        if recorded | NOT_COMPARED == replayed | NOT_COMPARED:  # most are; one by one takes several times longer
            return
        for key in (*STAGES, *recorded):
            if key not in OF_THE_CLOCK and recorded.get(key) != replayed.get(key):
                self._differs(replayed["seq"], key, recorded, replayed)
                return

    def _encoding(self, replayed: dict[str, Any]) -> None:
        recorded = self._encodings.find(replayed["seq"], replayed["encoder"])
        if recorded is None:
            return
        self.encodings += 1
        for key in recorded:
            if key != "late_ms" and recorded[key] != replayed.get(key):
                self.differing += 1
                if self.first is None:
                    self.first = Difference(replayed["seq"], "encoder", key, recorded[key], replayed.get(key))
                return

    def _differs(self, bin: int, key: str, recorded: dict[str, Any], replayed: dict[str, Any]) -> None:
        self.differing += 1
        if self.first is not None:
            return
        stage = STAGES.get(key, "decoder")
        version = recorded["rereference"]
        if version is not None and self._weights.get(version) != self._of_replay.get(
            version, self._weights.get(version)
        ):
            stage, key = "rereference", f"weights of version {version}"
            self.first = Difference(bin, stage, key, self._weights.get(version), self._of_replay.get(version))
            return
        self.first = Difference(bin, stage, key, recorded.get(key), replayed.get(key))

    def _rate(self, message: dict[str, Any]) -> None:
        recorded = next(self._recorded_rates, None)
        while recorded is not None and self.rates == 0 and recorded[0] < message["time"]:
            recorded = next(self._recorded_rates, None)  # before the first bin
        if recorded is None:
            return
        self.rates += 1
        time, rates = recorded
        replayed = np.array(message["rates"], np.float32)
        if time == message["time"] and _same_bits(rates, replayed):
            return
        if self.first is None or (self.first.bin == message["seq"] and self.first.stage == "decoder"):
            channel = int(np.argmax(rates != replayed)) if len(rates) == len(replayed) else 0
            self.first = Difference(
                message["seq"],
                "front end" if time == message["time"] else "clock",
                f"rate of feature {channel + 1}" if time == message["time"] else "time",
                float(rates[channel]) if time == message["time"] else time,
                float(replayed[channel]) if time == message["time"] else message["time"],
            )
        self.differing += 1


class _Told:
    """Recorded messages from a bin on, found by their bin and who answered it. before: of other bins."""

    def __init__(self, messages: Iterator[dict[str, Any]], who: str, first_bin: int) -> None:
        """who: the key of its name."""
        self.before = 0
        self._who = who
        self._messages = self._from(messages, first_bin)
        self._ahead: dict[Key, dict[str, Any]] = {}

    def _from(self, messages: Iterator[dict[str, Any]], first_bin: int) -> Iterator[dict[str, Any]]:
        for message in messages:
            if message["seq"] >= first_bin:
                yield message
            else:
                self.before += 1

    def find(self, bin: int, name: str) -> dict[str, Any] | None:
        key = bin, name
        if key in self._ahead:
            return self._ahead.pop(key)
        for message in self._messages:
            found = message["seq"], message[self._who]
            if found == key:
                return message
            self._ahead[found] = message
            if found[0] > bin + FAR:
                return None
        return None

    def left(self) -> int:
        """Those that were not found."""
        return len(self._ahead) + sum(1 for _ in self._messages)


def _same_bits(one: NDArray[np.float32], other: NDArray[np.float32]) -> bool:
    return one.shape == other.shape and bool((one.view(np.uint32) == other.view(np.uint32)).all())


def _others(recorded: RecordedSession) -> list[str]:
    then: Note = next((note for note in recorded.notes if note["kind"] == "made_by"), {})
    here = made_by()
    pairs = {"python": (then.get("python"), here["python"]), "machine": (then.get("machine"), here["machine"])}
    pairs |= {name: (then.get("packages", {}).get(name), version) for name, version in here["packages"].items()}
    return [f"{name} {was}, here {now}" for name, (was, now) in pairs.items() if was != now]


def verify(path: Path, speed: float | None = None) -> Verdict:
    """Replay a recording and compare. Raises ModelError for one that cannot be replayed."""
    with open_xdf(path) as file:
        recorded = RecordedSession(file)
        start = start_of(recorded)
        checks = Verification(recorded, start)
        journal = ReplayJournal(start.notes)
        checks.follow(journal.weights)
        replay = Replay(recorded, start, journal, checks.take)
        began, ended = perf_counter(), None
        try:
            replay.run(speed)
        except Diverged as diverged:
            ended = str(diverged)
        seconds = perf_counter() - began
        chain = replay.loop.chain
        srate = chain.description.nominal_srate if chain is not None else 1.0
        return Verdict(
            checks.predictions,
            checks.encodings,
            checks.rates,
            checks.differing,
            checks.missing(),
            checks.unchecked(),
            checks.before,
            start.seq,
            checks.first,
            ended,
            replay.samples / srate,
            seconds,
            sum(entry["count"] for entry in recorded.lost if entry["what"] == "samples"),
            _others(recorded),
        )
