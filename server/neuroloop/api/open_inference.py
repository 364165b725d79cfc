"""Open Inference Protocol v2 (KServe, Triton): models of the registry answer requests, beside the sessions.

A model answers once it is loaded. Where a request names no version, the one loaded last answers; `load` takes the one
with the alias `champion`, or else the newest, unless `parameters.version` names another. Errors carry the protocol's
member `error` beside those of a problem document.
"""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from pydantic import BaseModel, Field, StrictBool, ValidationError
from starlette.concurrency import run_in_threadpool

from neuroloop import __version__
from neuroloop.api import tensors
from neuroloop.api.access import requires
from neuroloop.api.errors import JsonResponse, Malformed
from neuroloop.api.live import Sessions
from neuroloop.api.models import Models as ModelRegistry
from neuroloop.config import explain
from neuroloop.errors import Unavailable
from neuroloop.inference.process import Inference, Loaded
from neuroloop.registry.documents import Number, Version
from neuroloop.registry.registry import Registry

CHAMPION = "champion"
JSON_LENGTH = "Inference-Header-Content-Length"
INFER_BODY: dict[str, Any] = {
    "parameters": [
        {
            "name": JSON_LENGTH,
            "in": "header",
            "description": "bytes of JSON in the body, where binary tensors follow",
            "schema": {"type": "integer", "minimum": 0},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "object", "required": ["inputs"]}},
            "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        },
    },
}

Form = TypeVar("Form", bound=BaseModel)

router = APIRouter(prefix="/v2", tags=["open inference protocol"])


def _body(form: type[BaseModel]) -> dict[str, Any]:
    """How OpenAPI describes a body that `_parse` reads."""
    return {"requestBody": {"content": {"application/json": {"schema": form.model_json_schema()}}}}


class IndexRequest(BaseModel):
    """ready: only models that are loaded."""

    ready: StrictBool = False


class LoadRequest(BaseModel):
    """parameters: `version`, a number or an alias; what other servers understand is ignored."""

    parameters: dict[str, Any] = Field(default_factory=dict)


async def _parse(request: Request, form: type[Form]) -> Form:
    """The body as JSON, whatever its Content-Type says: the protocol's clients send none. Raises Malformed."""
    try:
        return form.model_validate_json(await request.body() or b"{}")
    except ValidationError as error:
        raise Malformed(explain(error)) from error


def _inference(request: Request) -> Inference:
    inference: Inference = request.app.state.inference
    return inference


Served = Annotated[Inference, Depends(_inference)]


@router.get("/health/live")
async def live() -> JsonResponse:
    """The server lives."""
    return JsonResponse({"live": True})


@router.get("/health/ready")
async def ready(sessions: Sessions) -> JsonResponse:
    """As `/readyz`."""
    reasons = sessions.not_ready()
    if reasons:
        raise Unavailable("; ".join(reasons))
    return JsonResponse({"ready": True})


@router.get("")
async def server_metadata() -> JsonResponse:
    """Name, version, and the protocol's extensions that this server has."""
    extensions = ["model_repository", "binary_tensor_data"]
    return JsonResponse({"name": "neuroloop", "version": __version__, "extensions": extensions})


@router.get("/models/{model}")
async def model_metadata(registry: ModelRegistry, served: Served, model: str) -> JsonResponse:
    """Inputs and outputs of the version loaded last."""
    return await _metadata(registry, served.find(model))


@router.get("/models/{model}/versions/{version}")
async def version_metadata(registry: ModelRegistry, served: Served, model: str, version: Number) -> JsonResponse:
    """Inputs and outputs of a loaded version."""
    return await _metadata(registry, served.find(model, version))


@router.get("/models/{model}/ready")
async def model_ready(served: Served, model: str) -> JsonResponse:
    """Whether a version answers; 409 if none is loaded."""
    return _ready(served.find(model))


@router.get("/models/{model}/versions/{version}/ready")
async def version_ready(served: Served, model: str, version: Number) -> JsonResponse:
    """Whether a version answers; 409 if it is not loaded."""
    return _ready(served.find(model, version))


@router.post("/models/{model}/infer", openapi_extra=INFER_BODY)
@requires("viewer")  # it changes nothing
async def infer(request: Request, served: Served, model: str) -> Response:
    """The answers to a batch: rates (batch, features) for a decoder, stimulus (frames, ...) for an encoder."""
    return await _infer(request, served, served.find(model))


@router.post("/models/{model}/versions/{version}/infer", openapi_extra=INFER_BODY)
@requires("viewer")
async def infer_version(request: Request, served: Served, model: str, version: Number) -> Response:
    """As without a version, by this one."""
    return await _infer(request, served, served.find(model, version))


@router.post("/repository/index", openapi_extra=_body(IndexRequest))
@requires("viewer")
async def repository_index(request: Request, registry: ModelRegistry, served: Served) -> JsonResponse:
    """Every version of every model, READY if it is loaded."""
    asked = await _parse(request, IndexRequest)
    rows = []
    for model in await run_in_threadpool(registry.models):
        for number in model.versions:
            is_ready = served.is_loaded(model.name, number)
            if is_ready or not asked.ready:
                state, reason = ("READY", "") if is_ready else ("UNAVAILABLE", "not loaded")
                rows.append({"name": model.name, "version": str(number), "state": state, "reason": reason})
    return JsonResponse(rows)


@router.post("/repository/models/{model}/load", openapi_extra=_body(LoadRequest))
async def load(request: Request, registry: ModelRegistry, served: Served, model: str) -> JsonResponse:
    """Let a version of a model answer."""
    wanted = (await _parse(request, LoadRequest)).parameters.get("version")
    if not isinstance(wanted, int | str | None):
        raise Malformed(f"parameters.version: expected a number or an alias, got {wanted!r}")
    version = await run_in_threadpool(_choose, registry, model, wanted)
    weights = await run_in_threadpool(registry.weights, model, version.version)
    loaded = await served.load(model, version.version, version.kind, weights)
    return JsonResponse({"name": model, "version": str(loaded.number)})


@router.post("/repository/models/{model}/unload")
async def unload(served: Served, model: str) -> JsonResponse:
    """Let every version of a model go."""
    await served.unload(model)
    return JsonResponse({"name": model})


async def _metadata(registry: Registry, loaded: Loaded) -> JsonResponse:
    there = await run_in_threadpool(registry.model, loaded.model)
    return JsonResponse(
        {
            "name": loaded.model,
            "versions": [str(number) for number in there.versions],
            "platform": f"neuroloop_{loaded.kind}",
            "inputs": [asdict(loaded.signature.input)],
            "outputs": [asdict(output) for output in loaded.signature.outputs],
        }
    )


def _ready(loaded: Loaded) -> JsonResponse:
    return JsonResponse({"name": loaded.model, "version": str(loaded.number), "ready": True})


async def _infer(request: Request, served: Inference, loaded: Loaded) -> Response:
    length = request.headers.get(JSON_LENGTH)
    if length is not None and not (length.isascii() and length.isdecimal() and len(length) < 16):
        raise Malformed(f"{JSON_LENGTH}: expected the bytes of JSON in the body, got {length[:64]!r}")
    asked, inputs = tensors.decode(await request.body(), None if length is None else int(length))
    name = loaded.signature.input.name
    if list(inputs) != [name]:
        raise Malformed(f"inputs: model {loaded.key} takes {name!r} alone, got {', '.join(map(repr, inputs))}")
    outputs = await served.infer(loaded, inputs[name])
    return _answer(tensors.encode(loaded.model, str(loaded.number), asked, outputs))


def _choose(registry: Registry, model: str, wanted: int | str | None) -> Version:
    if wanted is None:
        there = registry.model(model)
        wanted = there.aliases.get(CHAMPION, max(there.versions, default=1))
    return registry.resolve(model, wanted)


def _answer(encoded: tensors.Encoded) -> Response:
    if encoded.json_length is None:
        return Response(encoded.body, media_type="application/json")
    headers = {JSON_LENGTH: str(encoded.json_length)}
    return Response(encoded.body, media_type="application/octet-stream", headers=headers)
