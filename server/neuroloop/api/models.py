"""The model registry: models, versions, weights, aliases."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from pydantic import BaseModel, ConfigDict
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection

from neuroloop.api.access import CurrentUser, User
from neuroloop.api.errors import JsonResponse
from neuroloop.api.uploads import UPLOAD, read_upload
from neuroloop.config import Name
from neuroloop.errors import ConfigError
from neuroloop.registry.documents import Alias, Document, Model, Number, Version
from neuroloop.registry.registry import Registry, UsedBy

# Told that an alias points to a version now; says what it exchanged because of that, a map for each session.
AliasFollower = Callable[[str, str, int], Awaitable[list[dict[str, Any]]]]

router = APIRouter(prefix="/v1/models", tags=["models"])


class AliasTarget(BaseModel):
    """Where an alias is to point."""

    model_config = ConfigDict(extra="forbid")

    version: Number


class AliasMoved(BaseModel):
    """Where an alias points now. swaps: what that exchanged in the sessions that follow it."""

    model: str
    alias: str
    version: int
    swaps: list[dict[str, Any]]


def _registry(connection: HTTPConnection) -> Registry:
    registry: Registry = connection.app.state.registry
    return registry


Models = Annotated[Registry, Depends(_registry)]
ModelName = Annotated[Name, Path()]
AliasName = Annotated[Alias, Path()]
Digest = Annotated[str | None, Query(description="of the weights as sent, `sha256:...`; refused if another came")]


@router.get("", response_model=list[Model])
def list_models(registry: Models) -> JsonResponse:
    """Every model, with the numbers of its versions and where its aliases point."""
    return _answer(registry.models())


@router.post("", status_code=201, response_model=Version, openapi_extra=UPLOAD)
async def add_model(
    registry: Models,
    user: CurrentUser,
    request: Request,
    name: Annotated[Name | None, Query(description="of the model, unless the document has it")] = None,
    digest: Digest = None,
) -> JsonResponse:
    """A version of the model that the query or the document names, and the model if it is the first."""
    weights, document = await read_upload(request, digest)
    if name is not None and document.name not in (None, name):
        raise ConfigError(f"name: {name!r} in the query, {document.name!r} in the document; send one of them")
    chosen = name or document.name
    if chosen is None:
        raise ConfigError("name: expected the model's name, as ?name=... or in the document")
    return await _add(registry, user, chosen, weights, document)


@router.get("/{model}", response_model=Model)
def get_model(registry: Models, model: ModelName) -> JsonResponse:
    """One model, with the numbers of its versions and where its aliases point."""
    return _answer(registry.model(model))


@router.delete("/{model}", status_code=204)
def delete_model(registry: Models, request: Request, model: ModelName) -> Response:
    """Delete a model with all its versions; refused while an alias or a session uses one of them."""
    registry.delete_model(model, _users(request))
    return Response(status_code=204)


@router.get("/{model}/versions", response_model=list[Version])
def list_versions(registry: Models, model: ModelName) -> JsonResponse:
    """The versions of a model, oldest first."""
    return _answer(registry.versions(model))


@router.post("/{model}/versions", status_code=201, response_model=Version, openapi_extra=UPLOAD)
async def add_version(
    registry: Models, user: CurrentUser, request: Request, model: ModelName, digest: Digest = None
) -> JsonResponse:
    """A version more: a safetensors file as the body, or a form of `weights` and a JSON `document`."""
    weights, document = await read_upload(request, digest)
    if document.name not in (None, model):
        raise ConfigError(f"name: {model!r} in the path, {document.name!r} in the document; send one of them")
    return await _add(registry, user, model, weights, document)


@router.get("/{model}/versions/{version}", response_model=Version)
def get_version(registry: Models, model: ModelName, version: int) -> JsonResponse:
    """What a version is, where it comes from, how good it is, and which aliases point to it."""
    return _answer(registry.get(model, version))


@router.delete("/{model}/versions/{version}", status_code=204)
def delete_version(registry: Models, request: Request, model: ModelName, version: int) -> Response:
    """Delete a version; refused while an alias or a session uses it. Its number is never given again."""
    registry.delete_version(model, version, _users(request))
    return Response(status_code=204)


@router.get(
    "/{model}/versions/{version}/weights", response_class=Response, responses={304: {"description": "as known"}}
)
def get_weights(registry: Models, request: Request, model: ModelName, version: int) -> Response:
    """The file of a version, to the bit; its ETag is its digest."""
    digest = registry.get(model, version).digest
    headers = {
        "ETag": f'"{digest}"',
        "Repr-Digest": f"sha-256=:{_base64(digest)}:",  # RFC 9530
        "Content-Disposition": f'attachment; filename="{model}-{version}.safetensors"',
    }
    if f'"{digest}"' in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(registry.weights(model, version), media_type="application/octet-stream", headers=headers)


@router.get("/{model}/aliases/{alias}", response_model=Version)
def get_alias(registry: Models, model: ModelName, alias: AliasName) -> JsonResponse:
    """The version that an alias points to."""
    return _answer(registry.resolve(model, alias))


@router.put("/{model}/aliases/{alias}", response_model=AliasMoved)
async def move_alias(
    registry: Models, request: Request, model: ModelName, alias: AliasName, target: AliasTarget
) -> JsonResponse:
    """Let an alias point to a version, from now on; the sessions that follow it exchange their model."""
    await run_in_threadpool(registry.set_alias, model, alias, target.version)
    followers: list[AliasFollower] = request.app.state.alias_followers
    swaps = [swap for follower in followers for swap in await follower(model, alias, target.version)]
    return _answer(AliasMoved(model=model, alias=alias, version=target.version, swaps=swaps))


@router.delete("/{model}/aliases/{alias}", status_code=204)
def delete_alias(registry: Models, model: ModelName, alias: AliasName) -> Response:
    """Delete an alias; the version stays, and so does what sessions use."""
    registry.delete_alias(model, alias)
    return Response(status_code=204)


async def _add(registry: Registry, user: User, model: str, weights: bytes, document: Document) -> JsonResponse:
    version = await run_in_threadpool(registry.add_version, model, weights, document, user.name)
    location = f"/v1/models/{version.model}/versions/{version.version}"
    return JsonResponse(version.model_dump(mode="json"), 201, {"Location": location})


def _users(request: Request) -> UsedBy:
    """Everyone who may be using a version."""
    users: list[UsedBy] = request.app.state.version_users

    def used_by(model: str, number: int) -> str | None:
        return next((user for ask in users if (user := ask(model, number)) is not None), None)

    return used_by


def _answer(content: BaseModel | list[Model] | list[Version]) -> JsonResponse:
    if isinstance(content, list):
        return JsonResponse([entry.model_dump(mode="json") for entry in content])
    return JsonResponse(content.model_dump(mode="json"))


def _base64(digest: str) -> str:
    return b64encode(bytes.fromhex(digest.removeprefix("sha256:"))).decode()
