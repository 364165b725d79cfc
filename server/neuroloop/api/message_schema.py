"""The messages of a session's stream, as models: the source of the JSON Schema and of the AsyncAPI document.

They describe what is sent and check nothing on the way: that would cost every message, for every format. The tests
hold a running session against them. Where a model takes members that it does not name, more may come with a version of
the server; everything else is complete. In JSON, numbers that are not finite are null.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter
from pydantic.json_schema import GenerateJsonSchema

from neuroloop import __version__
from neuroloop.api.incoming import Id, LabelMessage, PingMessage

SCHEMA_VERSION = 1
"""Counts changes that a client could stumble over; a new member of an open model is none."""

DIALECT = GenerateJsonSchema.schema_dialect

Seq = Annotated[int, Field(ge=0, description="number of the bin, counted from the session's first without a hole")]
NextSeq = Annotated[int, Field(ge=0, description="number of the next bin")]
Time = Annotated[float, Field(description="LSL seconds")]
Ms = Annotated[float | None, Field(description="milliseconds")]


class Closed(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Open(BaseModel):
    model_config = ConfigDict(extra="allow")


class ModelReference(Open):
    """The weights that made a prediction, or an encoder's rates."""

    name: str
    version: int
    digest: str | None
    learned: Annotated[int, Field(ge=0, description="labels, or bins, learned since it was made or loaded")] = 0


class LatencyByStage(Closed):
    stream: Ms
    process: Ms


class Prediction(Closed):
    """One decoder's answer for one bin. label and index are null when it abstains, and reason says why."""

    type: Literal["prediction"]
    session: str
    seq: Seq
    time: Annotated[float, Field(description="LSL seconds, end of the bin")]
    label: str | None
    index: int | None
    scores: list[float | None] | None
    confidence: float | None
    reason: str | None
    decoder: Annotated[str, Field(description="its name in the session")]
    model: ModelReference
    role: Literal["active", "shadow"]
    samples: Annotated[list[int], Field(min_length=2, max_length=2, description="the bin's first and last sample")]
    rereference: Annotated[int | None, Field(description="version of the rereferencing weights")]
    gap: bool
    age_ms: Annotated[float, Field(description="milliseconds since the newest sample, when the bin was decoded")]
    latency_ms: LatencyByStage


class Rates(Closed):
    """The rate vector of one bin."""

    type: Literal["rates"]
    session: str
    seq: Seq
    time: Annotated[float, Field(description="LSL seconds, end of the bin")]
    rates: Annotated[list[float | None], Field(description="hertz per channel; power per channel and band for EEG")]
    gap: bool


class Signals(Closed):
    """What came in during one bin: every sample up to 1 kHz, the lowest and the highest one of each channel above.

    Published while somebody subscribes, and left out first when a session is overloaded (`shed`).
    """

    type: Literal["signals"]
    session: str
    seq: Seq
    time: Annotated[float, Field(description="LSL seconds, end of the bin")]
    samples: Annotated[list[int], Field(min_length=2, max_length=2, description="the bin's first and last sample")]
    low: Annotated[
        list[list[float]], Field(description="per point in time, oldest first: one value per channel; [] in a hole")
    ]
    high: Annotated[list[list[float]], Field(description="as low; the same values where points are samples")]
    gap: bool


class EncoderRates(Closed):
    """What one encoder expected for one bin, and what came. rates are null when it was not asked, and reason says why.

    The scores are running ones: they forget exponentially, and hold for the bins up to this one.
    """

    type: Literal["encoder"]
    session: str
    seq: Seq
    time: Annotated[float, Field(description="LSL seconds, end of the bin")]
    encoder: Annotated[str, Field(description="its name in the session")]
    model: ModelReference
    role: Literal["active", "shadow"]
    cells: list[str]
    rates: Annotated[list[float | None] | None, Field(description="expected, hertz per cell")]
    counts: Annotated[list[float] | None, Field(description="spikes that came in the bin, per cell")]
    correlation: Annotated[list[float | None], Field(description="of expected and counted spikes, per cell")]
    bits_per_spike: Annotated[list[float | None], Field(description="over the mean rate, per cell")]
    residual: Annotated[list[float | None], Field(description="counted less expected, mean, hertz per cell")]
    frames: Annotated[int, Field(ge=0, description="stimulus samples in the bin; 0 where the last one is held")]
    gap: Annotated[bool, Field(description="of the neural stream, or of the stimulus")]
    reason: Annotated[str | None, Field(description="why the bin counts for nothing, or null")]
    late_ms: Annotated[float, Field(description="milliseconds that the bin waited for its stimulus")]


class Event(Open):
    """Something that happened; its further members depend on `event`."""

    type: Literal["event"]
    session: str
    time: Time
    seq: NextSeq
    event: Annotated[str, Field(description="gap, overload, label_learned, decoder_guard, session_failed, ...")]
    detail: str


class Status(Open):
    """How a session is, once a second; only the members required here are there when its process has ended."""

    type: Literal["status"]
    session: str
    time: Time
    seq: NextSeq
    state: Literal["starting", "ready", "running", "stopped", "failed", "ended"]
    detail: str | None
    stream: dict[str, Any] | None = None
    decoders: list[dict[str, Any]] | None = None
    encoders: list[dict[str, Any]] | None = None
    stimulus: dict[str, Any] | None = None
    classes: list[str] | None = None
    targets: list[str] | None = None
    bin_ms: float | None = None
    bins: int | None = None
    missed_bins: int | None = None
    late_bins: int | None = None
    gaps: int | None = None
    latency_ms: dict[str, dict[str, float | None]] | None = None
    recording: dict[str, Any] | None = None
    checkpoint: dict[str, Any] | None = None


class Lagged(Closed):
    """The client was too slow, or resumed from a bin that is not kept any more."""

    type: Literal["lagged"]
    missed: Annotated[int, Field(ge=0, description="messages that were left out; at a resumption, bins")]
    oldest_seq: Annotated[int, Field(ge=0, description="the bin that the stream goes on with")]


class LabelAccepted(Closed):
    """The answer to a label."""

    type: Literal["label_accepted"]
    label: str
    start: Time
    end: Time
    state: Literal["learned", "pending"]
    bins: int
    id: Id = None


class Pong(Closed):
    """The answer to a ping."""

    type: Literal["pong"]
    time: Time
    id: Id = None


class Error(Closed):
    """The answer to a message that can't be read or obeyed."""

    type: Literal["error"]
    status: Annotated[int, Field(description="as in HTTP")]
    title: str
    detail: str
    id: Id = None


SENT = (Prediction, Rates, Signals, EncoderRates, Event, Status, Lagged, LabelAccepted, Pong, Error)
TAKEN = (LabelMessage, PingMessage)


def message_schema() -> dict[str, Any]:
    """The JSON Schema of everything that a stream sends; what it takes is beside it in `$defs`."""
    sent: TypeAdapter[Any] = TypeAdapter(
        Annotated[
            Prediction | Rates | Signals | EncoderRates | Event | Status | Lagged | LabelAccepted | Pong | Error,
            Field(discriminator="type"),
        ]
    )
    schema = sent.json_schema()
    for model in TAKEN:
        schema["$defs"] |= {model.__name__: model.model_json_schema()}
    about = {"$schema": DIALECT, "title": "Messages of a neuroloop session's stream", "schema_version": SCHEMA_VERSION}
    return about | schema


def asyncapi() -> dict[str, Any]:
    """The stream as an AsyncAPI 3 document."""
    definitions = message_schema()["$defs"]
    references = {model.__name__: {"$ref": f"#/components/messages/{model.__name__}"} for model in (*SENT, *TAKEN)}

    def operation(action: str, models: tuple[type[BaseModel], ...]) -> dict[str, Any]:
        messages = [{"$ref": f"#/channels/stream/messages/{model.__name__}"} for model in models]
        return {"action": action, "channel": {"$ref": "#/channels/stream"}, "messages": messages}

    return {
        "asyncapi": "3.0.0",
        "info": {"title": "neuroloop", "version": __version__, "x-schema-version": SCHEMA_VERSION},
        "defaultContentType": "application/json",
        "channels": {
            "stream": {
                "address": "/v1/sessions/{session}/stream",
                "parameters": {"session": {"description": "name of the session"}},
                "messages": references,
                "bindings": {"ws": {"method": "GET", "query": QUERY}},
            }
        },
        "operations": {"results": operation("send", SENT), "requests": operation("receive", TAKEN)},
        "components": {
            "messages": {
                model.__name__: {
                    "name": model.__name__,
                    "summary": (model.__doc__ or "").strip().partition("\n")[0],
                    "payload": {"$ref": f"#/components/schemas/{model.__name__}"},
                }
                for model in (*SENT, *TAKEN)
            },
            "schemas": _moved(definitions),
        },
    }


QUERY = {
    "type": "object",
    "properties": {
        "topics": {"type": "string", "default": "predictions", "description": "names with commas between"},
        "format": {"enum": ["json", "msgpack"], "default": "json"},
        "policy": {"type": "string", "default": "all", "description": "all, latest or every=N"},
        "resume_from": {"type": "integer", "minimum": 0, "description": "the bin to begin with"},
        "run": {"type": "string", "description": "the run of that bin; another one is refused with 409"},
    },
}


def _moved(part: Any) -> Any:
    """References into `$defs` as references into the document's components."""
    if isinstance(part, list):
        return [_moved(item) for item in part]
    if isinstance(part, dict):
        return {key: _moved(value) for key, value in part.items()}
    return part.replace("#/$defs/", "#/components/schemas/") if isinstance(part, str) else part
