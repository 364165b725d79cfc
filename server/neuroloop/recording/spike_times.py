"""When each spike of a recorded session was: the session runs again, with a detection that tells the samples.

A recording has rates only, one vector a bin. A replay gives them again to the bit, so the spikes behind them are those
that the session counted; the rates of every bin are compared. A spike's time is that of its sample, by the clock of
predictions: LSL seconds. Only bins that the session counted are observed, so that none with a gap, of a filter that
settles or before sigma is known has spikes; nor has one whose rates were not recorded, as after a `kill -9`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.config import SessionSettings, parse_session
from neuroloop.errors import ModelError
from neuroloop.front_ends import Broadband
from neuroloop.recording.reader import open_xdf
from neuroloop.recording.recorded import RecordedSession
from neuroloop.recording.replay import Replay
from neuroloop.recording.replay_journal import ReplayJournal
from neuroloop.recording.start import start_of
from neuroloop.session.chain import Chain
from neuroloop.signal.located_spikes import LocatedCrossings

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]

NOT_COUNTED = ("gap", "settling", "calibrating")  # of the pipeline, for a bin that stays out of the rates


@dataclass(frozen=True, eq=False)
class SpikeTimes:
    """Of unsorted spikes: all threshold crossings of a channel.

    channels: labels; columns: of each, in its stream; times: of each, (spikes,), in LSL seconds.
    observed: (intervals, 2), starts and ends between which spikes were counted.
    """

    channels: tuple[str, ...]
    columns: tuple[int, ...]
    times: tuple[F64, ...]
    observed: F64


def spike_times(path: Path | str) -> SpikeTimes:
    """Those of the recording of a broadband session.

    Raises ModelError for another one, where it cannot be replayed, and at the first bin whose rates are not the same.
    """
    with open_xdf(path) as file:
        recorded = RecordedSession(file)
        kind = recorded.begun["settings"]["front_end"]["kind"]
        if kind != "broadband":
            raise ModelError(f"{file.path}: expected a session of front end broadband, got {kind}, which has no spikes")
        start = start_of(recorded)
        spikes = _Spikes(recorded)
        Replay(recorded, start, ReplayJournal(start.notes), spikes.take, _on_cpu(recorded), spikes.prepare).run()
        return spikes.found()


def _on_cpu(recorded: RecordedSession) -> SessionSettings:
    return parse_session(recorded.begun["settings"]).model_copy(update={"device": "cpu"})


class _Spikes:
    """Takes what a replay publishes: of each bin the prediction, then the rates."""

    def __init__(self, recorded: RecordedSession) -> None:
        self._recorded = recorded.rates()
        self._next = next(self._recorded, None)
        self._has_begun = False
        self._located: LocatedCrossings | None = None
        self._chain: Chain | None = None
        self._reason: str | None = None
        self._times: list[F64] = []
        self._channels: list[NDArray[np.int64]] = []
        self._observed: list[list[float]] = []

    def prepare(self, chain: Chain) -> None:
        """The session gets a chain. Raises ModelError where its channels are not those of the one before."""
        before, front_end = self._chain, chain.pipeline.front_end
        if before is not None and before.pipeline.channels != chain.pipeline.channels:
            raise ModelError("spike times: the session's stream was exchanged for one of other channels")
        assert isinstance(front_end, Broadband)
        self._chain, self._located = chain, front_end.locate()

    def take(self, topic: str, message: dict[str, Any]) -> None:
        """A message of the replay, in the order of its loop."""
        if topic == "predictions" and message["role"] == "active":
            self._reason = message["reason"]
        elif topic == "rates":
            self._take_bin(message["seq"], float(message["time"]), np.array(message["rates"], np.float32))

    def _take_bin(self, seq: int, end: float, rates: F32) -> None:
        assert self._chain is not None
        assert self._located is not None
        pipeline = self._chain.pipeline
        bin_s = pipeline.bin_s
        is_whole = self._located.samples >= pipeline.bin_samples  # not so where the replay began within the bin
        samples, channels = self._located.take(pipeline.bin_samples)
        if not self._is_recorded(seq, end, rates) or not is_whole or self._reason in NOT_COUNTED:
            return
        self._times.append(end - (pipeline.bin_samples - samples) / pipeline.nominal_srate)
        self._channels.append(channels)
        if not self._observed or abs(end - bin_s - self._observed[-1][1]) > bin_s / 2:
            self._observed.append([end - bin_s, end])
        self._observed[-1][1] = end

    def _is_recorded(self, seq: int, end: float, rates: F32) -> bool:
        """Whether there are rates for the bin. Raises ModelError where they are not these."""
        while not self._has_begun and self._next is not None and self._next[0] < end:
            self._next = next(self._recorded, None)  # of bins before the first that is replayed
        if self._next is None:
            return False
        (time, expected), self._has_begun = self._next, True
        self._next = next(self._recorded, None)
        if time != end:
            raise ModelError(f"spike times: bin {seq}: expected its end at {time!r}, as recorded, got {end!r}")
        if expected.tobytes() != rates.tobytes():
            at = int(np.argmax(expected != rates)) if expected.shape == rates.shape else 0
            raise ModelError(
                f"spike times: bin {seq}: expected the recorded rate {float(expected[at])!r} of channel {at + 1}, "
                f"got {float(rates[at])!r}"
            )
        return True

    def found(self) -> SpikeTimes:
        """Raises ModelError where the replay did not come to the last bin, and where no bin was counted."""
        if self._next is not None:
            raise ModelError(
                f"spike times: the replay ends {sum(1 for _ in self._recorded) + 1} bins before the recording: "
                "samples are not in it"
            )
        if self._chain is None or not self._observed:
            raise ModelError("spike times: the recording has no bin whose spikes were counted")
        times, channels = np.concatenate(self._times), np.concatenate(self._channels)
        order = np.argsort(channels, kind="stable")
        labels = self._chain.pipeline.channels
        borders = np.cumsum(np.bincount(channels, minlength=len(labels)))[:-1]
        return SpikeTimes(
            labels,
            tuple(self._chain.columns.tolist()),
            tuple(np.split(times[order], borders)),
            np.array(self._observed),
        )
