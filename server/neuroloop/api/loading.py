"""Versions of the registry in the sessions of a server: on their way there, in use, following aliases.

Decoders and encoders alike. `what` says which of the two a thing is about: `decoder`, `encoder`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar, Literal, Self

from fastapi import FastAPI
from pydantic import BaseModel, ConfigDict, Field, model_validator
from starlette.concurrency import run_in_threadpool

from neuroloop.api.live import LiveSession, LiveSessions
from neuroloop.config import Name
from neuroloop.errors import NeuroloopError, NotFound
from neuroloop.registry.documents import Alias, Number, Version
from neuroloop.registry.registry import Registry

LOAD_TIMEOUT_S = 65.0  # the session's own patience, and a little more
MOST_REPRIMED = 512

What = Literal["decoder", "encoder"]


class Load(BaseModel):
    """A version to load, by its number or by an alias that is then followed, and as what."""

    model_config = ConfigDict(extra="forbid")
    what: ClassVar[What]

    model: Name
    version: Number | None = None
    alias: Alias | None = Field(None, description="followed: when it moves, the session exchanges what it loaded")
    role: Literal["active", "shadow"] = "active"

    @model_validator(mode="after")
    def _names_one_version(self) -> Self:
        if (self.version is None) == (self.alias is None):
            raise ValueError("give either version or alias")
        return self


class DecoderLoad(Load):
    """A decoder, and how it takes over."""

    what: ClassVar[What] = "decoder"

    decoder: Name | None = Field(
        None, description="its name in the session; by default the active one's, or for a shadow the model's"
    )
    state: Literal["carry", "reprime", "cold"] = Field(
        "carry", description="learns the labels of this session again; is shown the last bins; neither"
    )
    reprime_bins: int = Field(50, ge=1, le=MOST_REPRIMED)


class EncoderLoad(Load):
    """An encoder; it is shown the frames and spikes that lead to the bin at which it takes over."""

    what: ClassVar[What] = "encoder"

    encoder: Name | None = Field(
        None, description="its name in the session; by default the active one's, or the model's"
    )


class Promotion(BaseModel):
    """The shadow that is to become the active one."""

    model_config = ConfigDict(extra="forbid")

    name: Name


LOADS: dict[What, type[DecoderLoad] | type[EncoderLoad]] = {"decoder": DecoderLoad, "encoder": EncoderLoad}


@dataclass(frozen=True, eq=False)
class Follower:
    """What follows an alias in a session, as its last status has it."""

    session: LiveSession
    what: What
    running: dict[str, Any]

    @property
    def followed(self) -> tuple[str, str]:
        """The model and the alias."""
        return self.running["model"]["name"], self.running["loaded"]["alias"]


async def load_version(session: LiveSession, registry: Registry, load: Load) -> dict[str, Any]:
    """Have a session load a version; returns the receipt. Raises NotFound, ModelError, Conflict, Unavailable."""
    receipt = await _load(session, registry, load)
    while load.alias is not None and await _is_left_behind(session, registry, load, receipt):
        receipt = await _load(session, registry, load.model_copy(update={load.what: receipt[load.what]}))
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
        return await change(
            session,
            f"{load.what}_load",
            timeout=LOAD_TIMEOUT_S,
            model={"name": version.model, "version": version.version, "digest": version.digest, "alias": load.alias},
            weights=weights,
            **load.model_dump(exclude={"model", "version", "alias"}),
        )
    finally:
        for one in held:
            session.loading.remove(one)


async def _is_left_behind(session: LiveSession, registry: Registry, load: Load, receipt: dict[str, Any]) -> bool:
    """Whether the alias moved while what it meant before was loaded: nobody saw a follower then."""
    assert load.alias is not None
    loaded = (load.what, receipt[load.what], load.model, receipt["current"]["version"], load.alias)
    if loaded not in (
        (what, found["name"], found["model"]["name"], found["model"]["version"], found["loaded"].get("alias"))
        for what, found in _loaded(session)
    ):
        return False  # another one is in its place by now
    try:
        meant = await run_in_threadpool(registry.resolve, load.model, load.alias)
    except NotFound:
        return False  # the alias was deleted; what sessions use stays
    return bool(meant.version != receipt["current"]["version"])


async def change(session: LiveSession, command: str, timeout: float = 5.0, **arguments: Any) -> dict[str, Any]:
    """What the session answers; what it uses from then on is known when this returns."""
    receipt: dict[str, Any] = await session.process.command(command, timeout=timeout, **arguments)
    session.hub.note_status(await session.process.command("status"))  # what it uses now may not be deleted
    return receipt


def install(app: FastAPI, sessions: LiveSessions, registry: Registry) -> None:
    """Tell the registry's routes which versions sessions use, and load others when an alias moves."""

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
    """Exchange everything that follows an alias, which points to this version now; an answer for each."""
    found = []
    for follower in followers(sessions):
        if follower.followed == (model, alias):
            follower.session.aliases[model, alias] = version
            if follower.running["model"]["version"] != version:
                found.append(_exchange(follower, registry))
    return list(await asyncio.gather(*found))


async def _exchange(follower: Follower, registry: Registry) -> dict[str, Any]:
    """The receipt, or what is wrong: one session that refuses keeps no other from following."""
    what, running, session = follower.what, follower.running, follower.session
    given = {"model": running["model"]["name"], "role": running["role"], what: running["name"]}
    try:
        outcome = await load_version(session, registry, LOADS[what].model_validate(given | running["loaded"]))
    except NeuroloopError as error:
        outcome = {what: running["name"], "refused": str(error)}
    return {"session": session.name} | outcome


def followers(sessions: LiveSessions) -> list[Follower]:
    """Everything that follows an alias."""
    return [
        Follower(session, what, running)
        for session in sessions.all()
        for what, running in _loaded(session)
        if running["loaded"].get("alias")
    ]


def in_use(sessions: LiveSessions) -> dict[tuple[str, int], str]:
    """(model, version) -> who uses it: runs it, has it on its way there, or among those that it can return to."""
    uses: dict[tuple[str, int], str] = {}
    for session in sessions.all():
        on_its_way = list(session.loading)  # looked at before the status, which has it after this
        running = [(model["name"], model["version"]) for model in _models(session)]
        uses |= dict.fromkeys(on_its_way + running, f"session {session.name!r}")
    return uses


def _running(session: LiveSession) -> Iterator[tuple[What, dict[str, Any]]]:
    """The decoders and encoders of a session's last status."""
    status = session.hub.status or {}
    for what in LOADS:
        yield from ((what, running) for running in status.get(f"{what}s") or ())


def _loaded(session: LiveSession) -> list[tuple[What, dict[str, Any]]]:
    """Those that came out of the registry."""
    return [(what, running) for what, running in _running(session) if running.get("loaded")]


def _models(session: LiveSession) -> Iterator[dict[str, Any]]:
    for _, running in _running(session):
        if running.get("loaded"):
            yield running["model"]
        yield from running.get("past", ())
