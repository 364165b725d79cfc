"""The maps that a session publishes; see the interfaces in the README."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

from neuroloop.config import SessionSettings
from neuroloop.models.base import Scores
from neuroloop.pipeline import Bin
from neuroloop.session.inlet import SampleInlet
from neuroloop.session.running import RunningDecoder

if TYPE_CHECKING:
    from neuroloop.session.chain import Chain


@dataclass
class Tally:
    """What is counted over a session's life."""

    blocks: int = 0
    bins: int = 0
    missed_bins: int = 0
    late_bins: int = 0
    gaps: int = 0
    missing_samples: int = 0
    surplus_samples: int = 0
    nonfinite_samples: int = 0
    swaps: int = 0


@dataclass(slots=True)
class BinTime:
    """When a bin was, and how fresh it is. first, last: sample indices; end: LSL seconds; the rest milliseconds."""

    seq: int
    first: int
    last: int
    end: float
    age_ms: float
    stream_ms: float | None = None
    process_ms: float | None = None


def prediction(
    session: str,
    running: RunningDecoder,
    scores: Scores | None,
    reason: str | None,
    outcome: Bin,
    time: BinTime,
    rereference: int | None,
) -> dict[str, Any]:
    """One decoder's answer for one bin; scores: None where nothing was decoded, reason says why.

    Where a decoder of continuous targets abstains, there are none; 0 could be taken for one.
    """
    index = None if scores is None else scores.index
    if scores is not None and scores.reason is not None and not running.decoder.classes:
        scores = None
    return {
        "type": "prediction",
        "session": session,
        "seq": time.seq,
        "time": time.end,
        "label": None if index is None else running.decoder.classes[index],
        "index": index,
        "scores": None if scores is None else scores.values.tolist(),
        "confidence": None if scores is None or index is None else float(scores.probability[index]),
        "reason": reason,
        "decoder": running.name,
        "model": running.identity(),
        "role": running.role,
        "samples": [time.first, time.last],
        "rereference": rereference,
        "gap": outcome.gap,
        "age_ms": time.age_ms,
        "latency_ms": {"stream": time.stream_ms, "process": time.process_ms},
    }


def signals(session: str, time: BinTime, low: list[Any], high: list[Any], gap: bool) -> dict[str, Any]:
    """low, high: a list of values per point in time, one value per channel."""
    return {
        "type": "signals",
        "session": session,
        "seq": time.seq,
        "time": time.end,
        "samples": [time.first, time.last],
        "low": low,
        "high": high,
        "gap": gap,
    }


def rates(session: str, outcome: Bin, time: BinTime) -> dict[str, Any]:
    """The rate vector of one bin, hertz (or power, for a headset)."""
    return {
        "type": "rates",
        "session": session,
        "seq": time.seq,
        "time": time.end,
        "rates": outcome.rates.tolist(),
        "gap": outcome.gap,
    }


@dataclass
class Health:
    """What `status` says beyond the chain itself."""

    state: Literal["running", "stopped"] = "stopped"
    detail: str = ""
    tally: Tally = field(default_factory=Tally)
    latency: dict[str, Any] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)


def stream_status(
    session: SessionSettings, inlet: SampleInlet | None, chain: Chain | None, now: float
) -> dict[str, Any]:
    """The stream's health. Nothing known yet: what is being looked for."""
    wanted = session.stream
    status: dict[str, Any] = {
        "state": "stopped" if inlet is None else inlet.state,
        "name": wanted.name,
        "type": wanted.type,
        "source_id": wanted.source_id,
        "predicate": wanted.predicate,
    }
    if chain is None:
        return status
    seen = chain.description
    age = None if inlet is None or not inlet.last_arrival else now - inlet.last_arrival
    return status | {
        "name": seen.name,
        "type": seen.type,
        "source_id": seen.source_id,
        "hostname": seen.hostname,
        "channel_count": seen.channel_count,
        "nominal_srate": seen.nominal_srate,
        "format": seen.format,
        "channels": list(chain.pipeline.channels),
        "units": [seen.units[c] for c in chain.columns],
        "positions": [seen.positions[c] for c in chain.columns],
        "features": len(chain.pipeline.features),
        "samples": chain.ring.written,
        "clock_offset_s": 0.0 if inlet is None else inlet.clock_offset,
        "clock_steps": chain.timeline.clock_steps,
        "clock_correction_s": 0.0 - chain.timeline.shift,
        "clock_drift_ppm": chain.clock.drift_ppm,
        "rate_drift_ppm": chain.clock.rate_ppm,
        "age_s": age,
    }


def status(
    session: SessionSettings, health: Health, inlet: SampleInlet | None, chain: Chain | None, seq: int, now: float
) -> dict[str, Any]:
    """Everything that a person or a monitor wants to know, once a second."""
    tally = health.tally
    message: dict[str, Any] = {
        "type": "status",
        "session": session.name,
        "time": now,
        "state": health.state,
        "stream": stream_status(session, inlet, chain, now),
        "blocks": tally.blocks,
        "bins": tally.bins,
        "seq": seq,
        "missed_bins": tally.missed_bins,
        "late_bins": tally.late_bins,
        "gaps": tally.gaps,
        "missing_samples": tally.missing_samples,
        "surplus_samples": tally.surplus_samples,
        "nonfinite_samples": tally.nonfinite_samples,
        "swaps": tally.swaps,
        "latency_ms": health.latency,
        "bin_ms": session.bin_ms,
        "classes": list(session.classes),
        "targets": list(session.targets),
        "decoders": [
            {"name": d.name, "kind": d.kind, "role": d.role, "version": 0, "digest": None, "learned": {}}
            for d in session.decoders
        ],
        "rereference": None,
        "labels": health.labels,
        "device": None,
        "memory_bytes": 0,
        "gpu_memory_bytes": 0,
        "memory_bytes_per_channel": 0,
        "detail": health.detail,
    }
    if chain is not None:
        pipeline = chain.pipeline
        message["bin_ms"] = 1000 * pipeline.bin_s
        message["bin_samples"], message["block_samples"] = pipeline.bin_samples, pipeline.block_samples
        message["decoders"] = chain.decoders.describe()
        message["device"] = pipeline.front_end.device
        message["memory_bytes"] = chain.memory_bytes
        message["gpu_memory_bytes"] = chain.gpu_memory_bytes
        message["memory_bytes_per_channel"] = round(chain.memory_bytes / len(pipeline.channels))
        if chain.rereferencing is not None:
            message["rereference"] = {"version": chain.rereferencing.weights.version, "mode": chain.rereferencing.mode}
    return message
