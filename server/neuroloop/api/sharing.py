"""What a server does because others share its registry: says what it uses, and follows aliases that they move.

An alias that is moved through this server is followed at once (`loading`); one moved elsewhere within `LOOK_EVERY_S`.
"""

from __future__ import annotations

import asyncio
import time

import structlog
from starlette.concurrency import run_in_threadpool

from neuroloop.api.live import LiveSessions
from neuroloop.api.loading import LOADS, follow, followers, in_use
from neuroloop.errors import NeuroloopError, NotFound
from neuroloop.registry.leases import Uses
from neuroloop.registry.registry import Registry

LOOK_EVERY_S = 1.0
RENEW_EVERY_S = 5.0

log = structlog.get_logger(__name__)


class Sharing:
    """`keep` runs beside the server, from its start to its end."""

    def __init__(self, registry: Registry, sessions: LiveSessions) -> None:
        self._registry = registry
        self._sessions = sessions
        self._told: Uses = {}
        self._renew_at = 0.0
        self._is_reachable = True

    async def keep(self) -> None:
        """Until cancelled; then other servers may delete what this one used."""
        try:
            while True:
                try:
                    await self._renew()
                    await self._follow()
                    self._is_reachable = True
                except NeuroloopError as error:
                    if self._is_reachable:
                        log.warning("registry", detail=str(error))
                    self._is_reachable = False
                await asyncio.sleep(LOOK_EVERY_S)
        finally:
            try:
                await run_in_threadpool(self._registry.leases.release)
            except NeuroloopError as error:
                log.warning("registry", detail=str(error))

    async def _renew(self) -> None:
        seen, uses = time.time(), in_use(self._sessions)
        if uses == self._told and (not uses or seen < self._renew_at):
            return
        await run_in_threadpool(self._registry.leases.renew, uses, seen)
        self._told, self._renew_at = uses, seen + RENEW_EVERY_S

    async def _follow(self) -> None:
        """Exchange what follows an alias that has moved. One that stays where it was undoes no rollback."""
        for session, model, alias in {(one.session, *one.followed) for one in followers(self._sessions)}:
            try:
                meant = (await run_in_threadpool(self._registry.resolve, model, alias)).version
            except NotFound:
                continue  # the alias was deleted; what sessions use stays
            if session.aliases.setdefault((model, alias), meant) == meant:
                continue
            for outcome in await follow(self._sessions, self._registry, model, alias, meant):
                if "refused" in outcome:
                    [what] = [what for what in LOADS if what in outcome]
                    detail = f"{what} {outcome[what]!r} stays: {outcome['refused']}"
                    facts = {what: outcome[what], "alias": alias, "version": meant}
                    self._sessions[outcome["session"]].tell("alias_not_followed", detail, **facts)
