"""An encoder at work: asked for every bin, told what came of it, and never trusted. As `running` for decoders."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models.encoder_scores import EncoderScores
from neuroloop.models.lnp import LNP
from neuroloop.session.frame_history import Frames
from neuroloop.session.latency import Latency
from neuroloop.session.loading import SAME_BIN
from neuroloop.session.running import Fault, ModelVersion, Role, faults_of

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

MOST_NAMED = 8  # in an error


@dataclass(frozen=True, slots=True)
class EncoderNeeds:
    """What an encoder must fit: the channels of the session, pixels of a stimulus sample, and the bin."""

    channels: tuple[str, ...]
    pixels: int
    bin_s: float


def check_fit(said: str, bank: LNP, needs: EncoderNeeds) -> None:
    """Raise ModelError for a bank of other frames or bins, or of cells that the session has no channel for."""
    bin_ms = bank.settings.bin_ms
    if bin_ms is not None and abs(bin_ms / 1000 - needs.bin_s) > SAME_BIN * needs.bin_s:
        raise ModelError(f"{said}: expected bins of {1000 * needs.bin_s:g} ms, as the session's; got {bin_ms:g} ms")
    pixels = math.prod(bank.frame)
    if pixels != needs.pixels:
        raise ModelError(
            f"{said}: expected frames of {needs.pixels} values, one for each channel of the stimulus stream; "
            f"got {pixels}, {bank.frame}"
        )
    strangers = [cell for cell in bank.cells if cell not in needs.channels]
    if strangers:
        raise ModelError(
            f"{said}: expected cells among the session's channels ({_listed(needs.channels)}); "
            f"these are none: {_listed(strangers)}"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:MOST_NAMED]) + (", ..." if len(names) > MOST_NAMED else "")


class RunningEncoder:
    """One encoder, used by one thread at a time. model: the version that it was loaded from; alias: if it follows one.

    seen: bins since the last reset; learned: bins that it has learned from. was_shadow: promoted, and not loaded as the
    active one.
    """

    def __init__(
        self, name: str, role: Role, bank: LNP, model: ModelVersion, alias: str | None, score_half_life_s: float
    ) -> None:
        self.name = name
        self.role = role
        self.bank = bank
        self.model = model
        self.alias = alias
        self.was_shadow = False
        self.seen = 0
        self.learned = 0
        self.latency = Latency(("predict",))
        self.figures: dict[str, list[float | None]] = {}
        self.lead = max(bank.settings.lags - 1, bank.settings.history, bank.settings.coupling)
        self._half_life_s = score_half_life_s
        self._columns = np.zeros(0, np.int64)
        self._bin_s = 1.0
        self._scores = EncoderScores(len(bank.cells), math.inf)

    def attach(self, needs: EncoderNeeds) -> None:
        """Run in this session, or on its new streams. Raises ModelError where it does not fit."""
        check_fit(named(self), self.bank, needs)
        self._columns = np.array([needs.channels.index(cell) for cell in self.bank.cells], np.int64)
        self._bin_s = needs.bin_s
        self._scores = EncoderScores(len(self.bank.cells), self._half_life_s / needs.bin_s)
        self._show_scores()

    @property
    def is_warm(self) -> bool:
        """Whether the newest rates rest on frames and spikes that were there, and on none before a reset."""
        return self.seen > self.lead

    def predict(self, frame: F32) -> F32:
        """Expected spikes of each cell in a frame, (pixels,), of the next bin. Raises Fault."""
        started = perf_counter()
        cells = len(self.bank.cells)
        with faults_of("predict"):
            rates = self.bank.predict(frame.reshape(self.bank.frame))
            if rates.shape != (cells,):
                raise Fault(f"predict gave rates of shape {rates.shape}; expected ({cells},)")
            if not (np.isfinite(rates).all() and (rates >= 0).all()):
                raise Fault("predict gave rates that are not finite numbers from 0 on")
        self.seen += 1
        self.latency.add(1000 * (perf_counter() - started))
        return rates

    def counts_of(self, counts: F32) -> F32:
        """Of its cells, out of those of all channels."""
        return counts[self._columns]

    def take(self, rates: F32, counts: F32, online: bool) -> None:
        """What was expected and what came in the bin predicted last, (cells,): score it, and learn from it if so set.

        Raises Fault.
        """
        with faults_of("learn" if online else "observe"):
            if self.is_warm:
                self._scores.add(rates, counts)
                self._show_scores()
            if online and self.is_warm:
                self.bank.adapt(counts)
                self.learned += 1
            else:
                self.bank.observe(counts)

    def miss_counts(self) -> None:
        """Nobody knows the spikes of the bin predicted last: rates that build on spikes mean nothing for a while."""
        if self.bank.settings.history or self.bank.settings.coupling:
            self.seen = 0

    def prime(self, past: Frames) -> None:
        """Begin anew after these bins, as if it had been there. Raises Fault."""
        self.reset()
        for frame, counts in zip(past.frames, past.counts, strict=True):
            self.predict(frame)
            with faults_of("observe"):
                self.bank.observe(self.counts_of(counts))

    def reset(self) -> None:
        """Raises Fault."""
        self.seen = 0
        with faults_of("reset"):
            self.bank.reset()

    def memory(self) -> dict[str, Any]:
        """What its answers to the bins to come depend on, beside its bank's file: of the bins before, and scores."""
        state, parameters = self.bank.state_dict(), self.bank.parameters.arrays()
        bank = {name: value for name, value in state.items() if name not in parameters}
        if not bank["predicted"]:  # there is nothing to learn from the last response, which may be infinite
            bank["response"] = np.zeros_like(bank["response"])
        return {"bank": bank, "seen": self.seen, "scores": self._scores.state_dict()}

    def recall(self, memory: dict[str, Any]) -> None:
        """Go on as the one that this is the memory of. Raises ModelError."""
        self.bank.load_state_dict(self.bank.state_dict() | memory["bank"])
        self.seen = memory["seen"]
        self._scores.load_state_dict(memory["scores"])
        if self.figures:
            self._show_scores()

    def in_hertz(self, per_bin: NDArray[Any]) -> list[float | None]:
        """Spikes per bin as spikes per second."""
        return plain(np.asarray(per_bin, np.float64) / self._bin_s)

    def _show_scores(self) -> None:
        scores = self._scores
        self.figures = {
            "correlation": plain(scores.correlation),
            "bits_per_spike": plain(scores.bits_per_spike),
            "residual": self.in_hertz(scores.residual),
        }

    def identity(self) -> dict[str, Any]:
        """What a message says of the model that made it."""
        model = self.model
        return {"name": model.name, "version": model.version, "digest": model.digest, "learned": self.learned}

    def describe(self) -> dict[str, Any]:
        """What the status says of it; read by the loop while the encoders' thread uses it."""
        return {
            "name": self.name,
            "kind": self.bank.kind,
            "role": self.role,
            "version": self.model.version,
            "digest": self.model.digest,
            "model": self.identity(),
            "loaded": {"alias": self.alias},
            "cells": list(self.bank.cells),
            "latency_ms": self.latency.summary()["predict"],
            "bins": self.latency.added,
            "scored_bins": self._scores.bins,
            "scores": self.figures,
        }


def plain(values: F64) -> list[float | None]:
    """NaN as None."""
    return [None if value != value else value for value in values.tolist()]


def named(running: RunningEncoder) -> str:
    """For a person: which model this is."""
    return f"model {running.model.name!r} version {running.model.version}"
