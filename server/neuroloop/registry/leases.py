"""What servers that share a registry use, told to each other: a version in use on one is not deleted on another.

A lease is a row that is renewed while its server uses the version, and void some time after, so that a server that died
keeps nothing for ever. Their clocks may differ by part of that time.
"""

from __future__ import annotations

import time
from collections.abc import Mapping

from sqlalchemy import Connection, delete, select

from neuroloop.registry.database import Database
from neuroloop.registry.tables import leases

Uses = Mapping[tuple[str, int], str]  # (model, number) -> who uses it, such as "session 'demo'"


class Leases:
    """Those of one server. server: its name among the others. seconds: from the last renewal to the end of a lease."""

    def __init__(self, database: Database, server: str, seconds: float) -> None:
        self._database = database
        self.server = server
        self.seconds = seconds

    def take(self, connection: Connection, model: str, number: int, used_by: str) -> None:
        """In a transaction on the model, so that no deletion comes in between."""
        row = {"server": self.server, "model": model, "number": number, "used_by": used_by[:256]}
        changed = {"used_by": row["used_by"], "until": time.time() + self.seconds}
        put = self._database.insert(leases).values(**row, until=changed["until"])
        keys = ["server", "model", "number"]
        connection.execute(put.on_conflict_do_update(index_elements=keys, set_=changed))

    def renew(self, uses: Uses, seen: float) -> None:
        """Renew what is in use, and let the rest go, but for what was taken after `seen` (Unix seconds)."""
        with self._database.changing() as connection:
            own = connection.execute(select(leases).where(leases.c.server == self.server)).all()
            for row in own:
                if (row.model, row.number) not in uses and row.until <= seen + self.seconds:
                    self._drop(connection, row.model, row.number)
            for (model, number), used_by in uses.items():
                self.take(connection, model, number, used_by)
            connection.execute(delete(leases).where(leases.c.until < time.time()))

    def release(self) -> None:
        """All of this server's."""
        with self._database.changing() as connection:
            connection.execute(delete(leases).where(leases.c.server == self.server))

    def of_others(self, connection: Connection, model: str, number: int) -> list[str]:
        """Who uses a version elsewhere."""
        wanted = select(leases).where(leases.c.model == model, leases.c.number == number)
        rows = connection.execute(wanted.where(leases.c.server != self.server, leases.c.until >= time.time()))
        return [f"{row.used_by} of server {row.server}" for row in rows]

    def _drop(self, connection: Connection, model: str, number: int) -> None:
        mine = leases.c.server == self.server
        connection.execute(delete(leases).where(mine, leases.c.model == model, leases.c.number == number))
