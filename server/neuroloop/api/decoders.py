"""The decoders of a session: put versions of the registry in, as the active one or beside it, and go back."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import partial
from typing import Annotated, Any, Literal

from fastapi import APIRouter, FastAPI, Path
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.concurrency import run_in_threadpool

from neuroloop.api.errors import JsonResponse
from neuroloop.api.live import LiveSession, LiveSessions, Session
from neuroloop.api.models import Models
from neuroloop.config import Name
from neuroloop.errors import NeuroloopError, NotFound
from neuroloop.registry.documents import Alias, Number, Version
from neuroloop.registry.registry import Registry

LOAD_TIMEOUT_S = 65.0  # the session's own patience, and a little more
MOST_REPRIMED = 512

router = APIRouter(prefix="/v1/sessions/{session}/decoder", tags=["decoders"])


class Load(BaseModel):
    """A version to load, by its number or by an alias that is then followed, and how it takes over."""

    model_config = ConfigDict(extra="forbid")

    model: Name
    version: Number | None = None
    alias: Alias | None = Field(None, description="followed: when it moves, the session exchanges the decoder")
    role: Literal["active", "shadow"] = "active"
    decoder: Name | None = Field(
        None, description="its name in the session; by default the active one's, or for a shadow the model's"
    )
    state: Literal["carry", "reprime", "cold"] = Field(
        "carry", description="learns the labels of this session again; is shown the last bins; neither"
    )
    reprime_bins: int = Field(50, ge=1, le=MOST_REPRIMED)

    @model_validator(mode="after")
    def _names_one_version(self) -> Load:
        if (self.version is None) == (self.alias is None):
            raise ValueError("give either version or alias")
        return self


class Promotion(BaseModel):
    """The shadow that is to become the active decoder."""

    model_config = ConfigDict(extra="forbid")

    name: Name


@router.put("")
async def put_decoder(session: Session, registry: Models, load: Load) -> JsonResponse:
    """Load a version beside the loop and exchange it between two bins; the answer is the receipt."""
    return JsonResponse(await load_decoder(session, registry, load))


@router.post("/rollback")
async def roll_back(session: Session) -> JsonResponse:
    """Return to what was active before, as it was then."""
    return JsonResponse(await _change(session, "decoder_rollback"))


@router.post("/promote")
async def promote(session: Session, promotion: Promotion) -> JsonResponse:
    """Make a shadow the active decoder; a rollback makes it a shadow again."""
    return JsonResponse(await _change(session, "decoder_promote", name=promotion.name))


@router.delete("/{name}")
async def remove_shadow(session: Session, name: Annotated[Name, Path()]) -> JsonResponse:
    """Let a shadow go."""
    return JsonResponse(await _change(session, "decoder_remove", name=name))


async def load_decoder(session: LiveSession, registry: Registry, load: Load) -> dict[str, Any]:
    """Have a session exchange a decoder; returns the receipt. Raises NotFound, ModelError, Conflict, Unavailable."""
    receipt = await _load(session, registry, load)
    while load.alias is not None and await _is_left_behind(session, registry, load.model, load.alias, receipt):
        receipt = await _load(session, registry, load.model_copy(update={"decoder": receipt["decoder"]}))
    if load.alias is not None:
        session.aliases[load.model, load.alias] = receipt["current"]["version"]
    return receipt


async def _load(session: LiveSession, registry: Registry, load: Load) -> dict[str, Any]:
    reference = load.alias or load.version or 0
    held: list[tuple[str, int]] = []  # may not be deleted before the session's status names it

    def hold(version: Version) -> None:
        held.append((version.model, version.version))
        session.loading.append(held[0])

    try:
        version = await run_in_threadpool(registry.hold, load.model, reference, hold, f"session {session.name!r}")
        weights = await run_in_threadpool(registry.weights, version.model, version.version)
        return await _change(
            session,
            "decoder_load",
            timeout=LOAD_TIMEOUT_S,
            model={"name": version.model, "version": version.version, "digest": version.digest, "alias": load.alias},
            weights=weights,
            **load.model_dump(include={"role", "decoder", "state", "reprime_bins"}),
        )
    finally:
        for one in held:
            session.loading.remove(one)


async def _is_left_behind(
    session: LiveSession, registry: Registry, model: str, alias: str, receipt: dict[str, Any]
) -> bool:
    """Whether the alias moved while what it meant before was loaded: nobody saw a follower then."""
    loaded = (receipt["decoder"], model, receipt["current"]["version"], alias)
    if loaded not in (
        (found["name"], found["model"]["name"], found["model"]["version"], found["loaded"]["alias"])
        for found in _decoders(session)
    ):
        return False  # another one is in its place by now
    try:
        meant = await run_in_threadpool(registry.resolve, model, alias)
    except NotFound:
        return False  # the alias was deleted; what sessions use stays
    return bool(meant.version != receipt["current"]["version"])


async def _change(session: LiveSession, command: str, timeout: float = 5.0, **arguments: Any) -> dict[str, Any]:
    receipt: dict[str, Any] = await session.process.command(command, timeout=timeout, **arguments)
    session.hub.note_status(await session.process.command("status"))  # what it uses now may not be deleted
    return receipt


def install(app: FastAPI, sessions: LiveSessions, registry: Registry) -> None:
    """Tell the registry's routes which versions sessions use, and exchange decoders when an alias moves."""

    def used_by(model: str, number: int) -> str | None:
        for session in sessions.all():
            if session.process.was_found and session.process.state == "starting":
                return f"session {session.name!r}, perhaps: it was found running and has not said yet what it uses"
        return in_use(sessions).get((model, number))

    app.state.version_users.append(used_by)
    app.state.alias_followers.append(partial(follow, sessions, registry))


async def follow(
    sessions: LiveSessions, registry: Registry, model: str, alias: str, version: int
) -> list[dict[str, Any]]:
    """Exchange every decoder that follows an alias, which points to this version now; an answer for each."""
    found = []
    for session, decoder in followers(sessions):
        if followed(decoder) == (model, alias):
            session.aliases[model, alias] = version
            if decoder["model"]["version"] != version:
                found.append(_exchange(session, registry, decoder))
    return list(await asyncio.gather(*found))


async def _exchange(session: LiveSession, registry: Registry, decoder: dict[str, Any]) -> dict[str, Any]:
    """The receipt, or what is wrong: one session that refuses keeps no other from following."""
    loaded = {key: decoder["loaded"][key] for key in ("alias", "state", "reprime_bins")}
    load = Load(model=decoder["model"]["name"], role=decoder["role"], decoder=decoder["name"], **loaded)
    try:
        outcome = await load_decoder(session, registry, load)
    except NeuroloopError as error:
        outcome = {"decoder": decoder["name"], "refused": str(error)}
    return {"session": session.name} | outcome


def _decoders(session: LiveSession) -> list[dict[str, Any]]:
    """Those that were loaded, as the session's last status has them."""
    decoders: list[dict[str, Any]] = (session.hub.status or {}).get("decoders", [])
    return [decoder for decoder in decoders if decoder.get("loaded")]


def followers(sessions: LiveSessions) -> list[tuple[LiveSession, dict[str, Any]]]:
    """The decoders that follow an alias, with their sessions."""
    return [
        (session, decoder)
        for session in sessions.all()
        for decoder in _decoders(session)
        if decoder["loaded"].get("alias")
    ]


def followed(decoder: dict[str, Any]) -> tuple[str, str]:
    """The model and the alias that a decoder follows."""
    return decoder["model"]["name"], decoder["loaded"]["alias"]


def in_use(sessions: LiveSessions) -> dict[tuple[str, int], str]:
    """(model, version) -> who uses it: has it in a decoder, on its way there, or among those that it can return to."""
    uses: dict[tuple[str, int], str] = {}
    for session in sessions.all():
        on_its_way = list(session.loading)  # looked at before the status, which has it after this
        in_decoders = [(model["name"], model["version"]) for model in _models(session)]
        uses |= dict.fromkeys(on_its_way + in_decoders, f"session {session.name!r}")
    return uses


def _models(session: LiveSession) -> Iterator[dict[str, Any]]:
    for decoder in (session.hub.status or {}).get("decoders", []):
        if decoder.get("loaded"):
            yield decoder["model"]
        yield from (past for past in decoder.get("past", ()))
