"""How well the demo's decoders do: the answer at the end of every trial, given before they learned from it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

SKEW_S = 10.0  # by which one session's answers may come before another's


@dataclass(frozen=True)
class Trial:
    """What was true from start to end, LSL seconds; ideal: what a decoder that knows everything says."""

    start: float
    end: float
    label: str
    ideal: str | None = None


@dataclass
class Account:
    """What one subscriber got from one session: every `seq` once, in order, or it was missed.

    newest_s: from a bin's newest sample to its end, one sample period; latencies are counted from there.
    """

    bins: int = 0
    missed: int = 0
    newest_s: float = 0.0
    _latencies_s: list[float] = field(default_factory=list)
    _next: int | None = None

    def take(self, message: dict[str, Any], now: float) -> None:
        """A prediction of the active decoder that came at this LSL time; a gap has no newest sample, so no latency."""
        if self._next is not None and message["seq"] > self._next:
            self.missed += message["seq"] - self._next
        self._next = message["seq"] + 1
        self.bins += 1
        if not message["gap"]:
            self._latencies_s.append(now - message["time"])

    def latency_ms(self) -> dict[str, float | None]:
        """p50, p99 and max."""
        if not self._latencies_s:
            return {"p50": None, "p99": None, "max": None}
        latencies_ms = 1000 * (np.array(self._latencies_s) + self.newest_s)
        p50, p99, most = np.percentile(latencies_ms, [50, 99, 100]).round(2).tolist()
        return {"p50": p50, "p99": p99, "max": most}


class Score:
    """Right and wrong of each decoder, trial by trial."""

    def __init__(self, decoders: Iterable[str], bin_s: float, learning_trials: int) -> None:
        """learning_trials: the first, which do not count."""
        self._half_bin = bin_s / 2
        self._learning_trials = learning_trials
        self._decoders = tuple(decoders)
        self._trials: list[Trial] = []
        self._answers: list[dict[str, str | None]] = []
        self._first_open = 0

    @property
    def known_until(self) -> float:
        """LSL time until which trials are known."""
        return self._trials[-1].end if self._trials else 0.0

    def add(self, trial: Trial) -> None:
        """A trial, in the order of time."""
        self._trials.append(trial)
        self._answers.append({})

    def take(self, decoder: str, message: dict[str, Any]) -> None:
        """The last answer whose bin has its centre in a trial counts; it was given before the trial was learned."""
        center = message["time"] - self._half_bin
        while self._first_open < len(self._trials) and self._trials[self._first_open].end <= center - SKEW_S:
            self._first_open += 1
        for number in range(self._first_open, len(self._trials)):
            trial = self._trials[number]
            if trial.start <= center < trial.end:
                self._answers[number][decoder] = message["label"]
                return

    def complete(self, now: float) -> list[int]:
        """Numbers of the trials that ended half a second ago or more and that every decoder answered."""
        return [
            number
            for number, trial in enumerate(self._trials)
            if trial.end < now - 0.5 and len(self._answers[number]) == len(self._decoders)
        ]

    def last(self, now: float) -> tuple[Trial, dict[str, str | None]] | None:
        """The last complete trial, and the answers to it."""
        complete = self.complete(now)
        return (self._trials[complete[-1]], self._answers[complete[-1]]) if complete else None

    def accuracy(self, now: float) -> dict[str, float | None]:
        """Share of right answers of each decoder, and of the ideal one, over the trials that count."""
        return self._shares(self.complete(now)[self._learning_trials :])

    def so_far(self, now: float) -> dict[str, float | None]:
        """The accuracy; while the first trials are being learned, over those. Without the ideal where none is known."""
        complete = self.complete(now)
        shares = self._shares(complete[self._learning_trials :] or complete)
        if shares["ideal"] is None:
            del shares["ideal"]
        return shares

    def _shares(self, scored: list[int]) -> dict[str, float | None]:
        shares: dict[str, float | None] = dict.fromkeys((*self._decoders, "ideal"))
        if not scored:
            return shares
        for decoder in self._decoders:
            shares[decoder] = float(np.mean([self._answers[n][decoder] == self._trials[n].label for n in scored]))
        if all(self._trials[n].ideal is not None for n in scored):
            shares["ideal"] = float(np.mean([self._trials[n].ideal == self._trials[n].label for n in scored]))
        return {name: None if share is None else round(share, 4) for name, share in shares.items()}
