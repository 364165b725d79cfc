"""The messages of a stream, as types: `message["type"]` tells them apart. The server has them as JSON Schema, too."""

from __future__ import annotations

from typing import Any, Literal, NotRequired, TypedDict


class Prediction(TypedDict):
    """One decoder's answer for one bin; label and index are None when it abstains, and reason says why."""

    type: Literal["prediction"]
    session: str
    seq: int
    time: float
    label: str | None
    index: int | None
    scores: list[float | None] | None
    confidence: float | None
    reason: str | None
    decoder: str
    model: dict[str, Any]
    role: Literal["active", "shadow"]
    samples: list[int]
    rereference: int | None
    gap: bool
    age_ms: float
    latency_ms: dict[str, float | None]


class Rates(TypedDict):
    """The rate vector of one bin, hertz."""

    type: Literal["rates"]
    session: str
    seq: int
    time: float
    rates: list[float | None]
    gap: bool


class Signals(TypedDict):
    """What came in during one bin: a list of values per point in time, one value per channel; none in a hole.

    Points are samples up to 1 kHz (low and high are the same); above it there is one, the bin's lowest and highest.
    """

    type: Literal["signals"]
    session: str
    seq: int
    time: float
    samples: list[int]
    low: list[list[float]]
    high: list[list[float]]
    gap: bool


class EncoderRates(TypedDict):
    """What one encoder expected for one bin, hertz, and the spikes that came; rates are None where reason says why.

    The scores are running ones, up to this bin.
    """

    type: Literal["encoder"]
    session: str
    seq: int
    time: float
    encoder: str
    model: dict[str, Any]
    role: Literal["active", "shadow"]
    cells: list[str]
    rates: list[float | None] | None
    counts: list[float] | None
    correlation: list[float | None]
    bits_per_spike: list[float | None]
    residual: list[float | None]
    frames: int
    gap: bool
    reason: str | None
    late_ms: float


class Event(TypedDict):
    """Something that happened before bin `seq`; further members depend on `event`."""

    type: Literal["event"]
    session: str
    time: float
    seq: int
    event: str
    detail: str


class Status(TypedDict):
    """How the session is, once a second; it has more members than these."""

    type: Literal["status"]
    session: str
    time: float
    seq: int
    state: str
    detail: str | None


class Lagged(TypedDict):
    """What this client missed: messages, or bins after a broken connection."""

    type: Literal["lagged"]
    missed: int
    oldest_seq: NotRequired[int]


class NewRun(TypedDict):
    """The session was started anew while there was no connection: bins are counted from 0 again. Made by the client."""

    type: Literal["new_run"]
    run: str
    previous_run: str


Message = Prediction | Rates | Signals | EncoderRates | Event | Status | Lagged | NewRun
