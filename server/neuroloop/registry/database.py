"""The registry's database: SQLite in WAL mode in its folder, or a PostgreSQL server.

Two ways in. `reading` sees one state of everything, however long it takes. `writing` is about one model, and writers of
the same model come one after the other: on SQLite all writers do (BEGIN IMMEDIATE, so that none finds out at its end
that it has read something old), on PostgreSQL by a lock on the model's row in `numbers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event, make_url, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import ArgumentError, DBAPIError, InterfaceError, OperationalError

from neuroloop.errors import ConfigError, RegistryError, Unavailable
from neuroloop.registry import tables

PATIENCE_S = 10.0  # for a database that another process writes to
BEGIN = "neuroloop_begin"


class Database:
    """url: as SQLAlchemy has them, `sqlite:///...` or `postgresql://...`. Raises ConfigError for any other."""

    _reader: Engine
    _writer: Engine

    def __init__(self, url: str) -> None:
        try:
            address = make_url(url)
        except ArgumentError as error:
            raise ConfigError("registry.url: expected sqlite:///FILE or postgresql://USER@HOST/DATABASE") from error
        backend = address.get_backend_name()
        if backend == "sqlite":
            engine = create_engine(address, connect_args={"timeout": PATIENCE_S})
            _configure_sqlite(engine)
            self._reader = engine
            self._writer = engine.execution_options(**{BEGIN: "BEGIN IMMEDIATE"})
            self.insert: Any = sqlite.insert
        elif backend == "postgresql":
            address = address.set(drivername="postgresql+psycopg")
            try:
                engine = create_engine(address, pool_pre_ping=True, connect_args={"connect_timeout": int(PATIENCE_S)})
            except ModuleNotFoundError as error:
                raise ConfigError("registry.url: PostgreSQL needs pip install 'neuroloop[postgres]'") from error
            self._reader = engine.execution_options(isolation_level="REPEATABLE READ")
            self._writer = engine
            self.insert = postgresql.insert
        else:
            raise ConfigError(f"registry.url: expected sqlite:// or postgresql://, got {backend}://")

    def make_tables(self) -> None:
        """Make the tables that are not there. Not at the same time as another process: hold the folder's lock."""
        with _translated(), self._writer.connect() as connection:
            if connection.dialect.name == "sqlite":
                # Not in a transaction; kept in the file from then on.
                connection.connection.cursor().execute("PRAGMA journal_mode = WAL").close()
            tables.metadata.create_all(connection)
            connection.commit()

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        with _translated(), self._reader.begin() as connection:
            yield connection

    @contextmanager
    def writing(self, model: str) -> Iterator[Connection]:
        """A transaction on one model; undone if the block raises."""
        with _translated(), self._writer.begin() as connection:
            row = self.insert(tables.numbers).values(model=model, last=0)
            connection.execute(row.on_conflict_do_nothing())
            lock = select(tables.numbers.c.last).where(tables.numbers.c.model == model).with_for_update()
            connection.execute(lock)
            yield connection

    @contextmanager
    def changing(self) -> Iterator[Connection]:
        """A transaction on what belongs to no model; undone if the block raises."""
        with _translated(), self._writer.begin() as connection:
            yield connection

    def close(self) -> None:
        self._reader.dispose()


def _configure_sqlite(engine: Engine) -> None:
    @event.listens_for(engine, "connect")
    def _(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver begins nothing by itself; the listener below does
        cursor = connection.cursor()
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute("PRAGMA synchronous = FULL")  # what was acknowledged survives a power failure
        cursor.close()

    @event.listens_for(engine, "begin")
    def _(connection: Connection) -> None:
        connection.exec_driver_sql(connection.get_execution_options().get(BEGIN, "BEGIN"))


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (OperationalError, InterfaceError) as error:
        raise Unavailable(f"the registry's database does not answer: {_one_line(error)}; try again") from error
    except DBAPIError as error:
        raise RegistryError(f"the registry's database: {_one_line(error)}; see `neuroloop registry verify`") from error


def _one_line(error: DBAPIError) -> str:
    return " ".join(str(error.orig).split())
