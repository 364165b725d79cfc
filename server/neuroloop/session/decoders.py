"""The decoders of one session: who answers a bin, who learns from a label. Owned by the loop."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from neuroloop.models.base import Scores
from neuroloop.pipeline import Bin
from neuroloop.session.guard import Guard
from neuroloop.session.running import Fault, RunningDecoder

FAILED = "decoder failed"

Event = tuple[str, str, dict[str, Any]]


class Decoders:
    """decoders: with their guards, the active one first."""

    def __init__(self, decoders: list[tuple[RunningDecoder, Guard]]) -> None:
        self._decoders = decoders
        self._events: list[Event] = []

    def answer(self, outcome: Bin) -> Iterator[tuple[RunningDecoder, Scores | None, str | None]]:
        """Each decoder with its answer for a bin, or None and the reason."""
        for running, guard in self._decoders:
            if outcome.reason is not None:
                yield running, None, outcome.reason
                continue
            try:
                scores = running.predict(outcome.rates)
            except Fault as fault:
                self._tell(running, guard.failed(str(fault)))
                yield running, None, FAILED
                continue
            running.latency.add(running.predict_ms)
            self._tell(running, guard.answered(running.predict_ms))
            yield running, scores, scores.reason

    def learn(self, rates: Any, index: int, duration_s: float) -> str | None:
        """Teach every decoder; returns why the active one could not learn, or None."""
        refused = None
        for running, _ in self._decoders:
            try:
                running.learn(rates, index, duration_s)
            except Fault as fault:
                self._tell(running, str(fault))
                if running.role == "active":
                    refused = f"decoder {running.name!r} could not learn it: {fault}"
        return refused

    def reset(self) -> None:
        """What comes next does not follow what came last."""
        for running, guard in self._decoders:
            try:
                running.reset()
            except Fault as fault:
                self._tell(running, guard.failed(str(fault)))

    def describe(self) -> list[dict[str, Any]]:
        return [running.describe() for running, _ in self._decoders]

    def take_events(self) -> list[Event]:
        """What happened to decoders since the last call."""
        if not self._events:
            return []
        events, self._events = self._events, []
        return events

    def _tell(self, running: RunningDecoder, what: str | None) -> None:
        if what is not None:
            facts = {"decoder": running.name, "role": running.role, "why": what, "model": running.model()}
            self._events.append(("decoder_guard", f"{running.role} decoder {running.name!r}: {what}", facts))
