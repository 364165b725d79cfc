"""What each kind of fault does to a stretch of samples: pure functions of the stretch and a random generator.

    drop        some samples in a row are not sent
    duplicate   some samples in a row are sent twice
    reorder     samples change places
    nan         some channels are NaN or infinite for a while
    step        the sender's clock is set, by whole samples, forwards or back: all timestamps from there on
    delay       the stretch is held for up to half a second, and what follows waits behind it
    stall       nothing is sent for seconds, then everything at once
    channels    the stream comes back with another number of channels, and a moment later as it was
    kill        the stream is gone, and comes back

Stretches are short enough for a server that trusts timestamps to tell a sample that came twice, or in the wrong place,
from a clock that was set back.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

Samples = NDArray[Any]
Times = NDArray[np.float64]

STEPS_S: Final = ((0.3, 5.0), (4_000.0, 200_000.0))  # what lies between looks like a hole of minutes, which it could be
NONFINITE: Final = (np.nan, np.inf, -np.inf)
CHANNELS_AT_ONCE: Final = 8


@dataclass(frozen=True, eq=False, slots=True)
class Chunk:
    """Samples (n, channels) and their timestamps (n,), seconds."""

    samples: Samples
    times: Times

    def __len__(self) -> int:
        return len(self.times)

    def __getitem__(self, chosen: slice | NDArray[np.int64]) -> Chunk:
        return Chunk(self.samples[chosen], self.times[chosen])

    @staticmethod
    def joined(chunks: list[Chunk]) -> Chunk:
        return Chunk(np.concatenate([c.samples for c in chunks]), np.concatenate([c.times for c in chunks]))


@dataclass(frozen=True, slots=True)
class Effect:
    """What a fault did, in samples but for `nonfinite`, which counts values, and seconds.

    late: those that now come after a later one. hold_s: nothing is sent for so long. outage_s: there is no stream.
    """

    dropped: int = 0
    repeated: int = 0
    late: int = 0
    nonfinite: int = 0
    step_s: float = 0.0
    hold_s: float = 0.0
    outage_s: float = 0.0
    other_channels: bool = False

    def told(self) -> dict[str, Any]:
        """Those that are not nothing."""
        return {field.name: value for field in fields(self) if (value := getattr(self, field.name))}


Fault = Callable[[Chunk, np.random.Generator, float], tuple[Chunk, Effect]]


def _part(chunk: Chunk, rng: np.random.Generator) -> tuple[int, int]:
    """Where a part of at least one sample begins and ends."""
    start = int(rng.integers(len(chunk)))
    return start, int(rng.integers(start, len(chunk))) + 1


def drop(chunk: Chunk, rng: np.random.Generator, nominal_srate: float) -> tuple[Chunk, Effect]:
    start, after = _part(chunk, rng)
    return Chunk.joined([chunk[:start], chunk[after:]]), Effect(dropped=after - start)


def duplicate(chunk: Chunk, rng: np.random.Generator, nominal_srate: float) -> tuple[Chunk, Effect]:
    start, after = _part(chunk, rng)
    return Chunk.joined([chunk[:after], chunk[start:]]), Effect(repeated=after - start)


def reorder(chunk: Chunk, rng: np.random.Generator, nominal_srate: float) -> tuple[Chunk, Effect]:
    """Either two neighbouring parts change places, as packets do, or every sample does."""
    if rng.random() < 0.5:
        order = rng.permutation(len(chunk))
    else:
        start, middle, after = np.sort(rng.integers(0, len(chunk) + 1, 3))
        places = np.arange(len(chunk))
        order = np.concatenate([places[:start], places[middle:after], places[start:middle], places[after:]])
    late = int((order < np.maximum.accumulate(order)).sum())
    return chunk[order], Effect(late=late)


def nan(chunk: Chunk, rng: np.random.Generator, nominal_srate: float) -> tuple[Chunk, Effect]:
    start, after = _part(chunk, rng)
    channels = chunk.samples.shape[1]
    chosen = rng.choice(channels, rng.integers(1, min(channels, CHANNELS_AT_ONCE) + 1), replace=False)
    samples = chunk.samples.copy()
    samples[start:after, chosen] = rng.choice(NONFINITE)
    return Chunk(samples, chunk.times), Effect(nonfinite=(after - start) * len(chosen))


def step(chunk: Chunk, rng: np.random.Generator, nominal_srate: float) -> tuple[Chunk, Effect]:
    """Whole samples, so that an account of them can be exact."""
    low, high = STEPS_S[rng.integers(len(STEPS_S))]
    seconds = float(rng.choice([-1, 1])) * low * (high / low) ** rng.random()
    return chunk, Effect(step_s=round(seconds * nominal_srate) / nominal_srate)


def delay(chunk: Chunk, rng: np.random.Generator, nominal_srate: float) -> tuple[Chunk, Effect]:
    return chunk, Effect(hold_s=float(rng.uniform(0.05, 0.5)))


def stall(chunk: Chunk, rng: np.random.Generator, nominal_srate: float) -> tuple[Chunk, Effect]:
    return chunk, Effect(hold_s=float(rng.uniform(1.0, 2.5)))


def channels(chunk: Chunk, rng: np.random.Generator, nominal_srate: float) -> tuple[Chunk, Effect]:
    return chunk, Effect(outage_s=float(rng.uniform(1.0, 2.5)), other_channels=True)


def kill(chunk: Chunk, rng: np.random.Generator, nominal_srate: float) -> tuple[Chunk, Effect]:
    return chunk, Effect(outage_s=float(rng.uniform(0.1, 2.0)))


KINDS: Final[dict[str, Fault]] = {
    fault.__name__: fault for fault in (drop, duplicate, reorder, nan, step, delay, stall, channels, kill)
}
LONGEST_S: Final = {"drop": 0.5, "nan": 0.5}  # of a stretch
SHORTEST, SHORT_S = 2, 0.05


def stretch_samples(kind: str, rng: np.random.Generator, nominal_srate: float) -> int:
    """How many samples the next fault of this kind is given; few are as likely as many."""
    longest = max(SHORTEST, LONGEST_S.get(kind, SHORT_S) * nominal_srate)
    return int(SHORTEST * (longest / SHORTEST) ** rng.random())
