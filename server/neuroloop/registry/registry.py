"""The model registry: names, numbered versions that never change, aliases that move.

A version is a row in the database and a blob on the disk. The blob is written first, then the row: a row always has its
blob, and a blob without a row (a process died in between, or a version was deleted) waits for `verify` to collect it.
An answer is given when both are on the disk; then they survive the end of any process.

Any number of processes may use one registry at the same time. Every method blocks: call it from a thread.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from sqlalchemy import Connection, Row, delete, insert, select, update

from neuroloop.config import Name
from neuroloop.errors import ConfigError, Conflict, Deleted, ModelError, NotFound, RegistryError
from neuroloop.registry import uploads
from neuroloop.registry.blobs import Blobs
from neuroloop.registry.database import Database
from neuroloop.registry.documents import LARGEST_NUMBER, Alias, Document, Lineage, Model, Version
from neuroloop.registry.leases import Leases
from neuroloop.registry.locks import FolderLock
from neuroloop.registry.tables import aliases, deleted_aliases, models, numbers, versions

LEASE_S = 30.0

# Who uses a version, such as "session 'demo'"; None for nobody.
UsedBy = Callable[[str, int], str | None]


def nobody(model: str, number: int) -> None:
    """`UsedBy` where no session runs."""


class Registry:
    """folder: of the blobs, and of the database unless `url` names one; made if it is not there.

    server: what the others that share it are to call this one. lease_s: how long what it uses is kept if it dies.
    Raises ConfigError where there can be none, Unavailable where the database does not answer.
    """

    def __init__(
        self, folder: Path, url: str | None = None, server: str | None = None, lease_s: float = LEASE_S
    ) -> None:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self.lock = FolderLock(folder / "lock")
            self.blobs = Blobs(folder / "blobs")
            self.database = Database(url or f"sqlite:///{folder.absolute() / 'registry.db'}")
            self.leases = Leases(self.database, server or uuid.uuid4().hex, lease_s)
            with self.lock.exclusive():
                self.database.make_tables()
        except OSError as error:
            raise ConfigError(f"folder: {folder} can't hold the registry: {error.strerror}") from error

    def close(self) -> None:
        self.database.close()

    def add_version(
        self, model: str, weights: bytes, document: Document | None = None, created_by: str | None = None
    ) -> Version:
        """A new version of a model, and the model if it is the first.

        weights: a file of any form that `uploads` knows. Raises ModelError, and keeps nothing, where they are no model,
        or not what the document says; NotFound where the parent is none.
        """
        said = document or Document()
        name = _checked(_NAME, model, "name of a model")
        upload = uploads.check(weights, said)
        if said.parent is not None:
            self.get(name, said.parent)
        lineage = Lineage.model_validate(said.model_dump(include=set(Lineage.model_fields)))
        entry = {"kind": upload.content.kind, "size": len(upload.weights), "created": _now(), "created_by": created_by}
        entry["document"] = upload.content.model_dump(exclude={"kind"}) | lineage.model_dump()
        with self.lock.shared():
            try:
                entry["digest"] = self.blobs.write(upload.weights)
            except OSError as error:
                raise RegistryError(f"the weights can't be written: {error.strerror}; nothing is kept") from error
            with self.database.writing(name) as connection:
                named = self.database.insert(models).values(name=name, created=entry["created"])
                connection.execute(named.on_conflict_do_nothing())
                counted = update(numbers).where(numbers.c.model == name).values(last=numbers.c.last + 1)
                number = connection.execute(counted.returning(numbers.c.last)).scalar_one()
                connection.execute(insert(versions).values(model=name, number=number, **entry))
                return _get(connection, name, number)

    def models(self) -> list[Model]:
        """Every model, by name."""
        with self.database.reading() as connection:
            return _models(connection)

    def model(self, model: str) -> Model:
        """One model. Raises NotFound."""
        with self.database.reading() as connection:
            return _model(connection, model)

    def versions(self, model: str) -> list[Version]:
        """The versions of a model, oldest first. Raises NotFound for a model that is none."""
        with self.database.reading() as connection:
            _model(connection, model)
            rows = connection.execute(select(versions).where(versions.c.model == model).order_by(versions.c.number))
            pointing = _aliases(connection, model)
            return [_version(row, pointing) for row in rows]

    def get(self, model: str, number: int) -> Version:
        """Raises NotFound."""
        with self.database.reading() as connection:
            return _get(connection, model, number)

    def resolve(self, model: str, reference: int | str) -> Version:
        """The version that a number or an alias means now. Raises NotFound."""
        with self.database.reading() as connection:
            return _resolve(connection, model, reference)

    def hold(self, model: str, reference: int | str, hold: Callable[[Version], None], used_by: str) -> Version:
        """The version that a number or an alias means now, given to `hold` while nobody can delete it.

        What `hold` notes is seen by the `used_by` of every deletion after it; other servers are told. Raises NotFound.
        """
        with self.database.writing(model) as connection:
            version = _resolve(connection, model, reference)
            hold(version)
            self.leases.take(connection, model, version.version, used_by)
            return version

    def weights(self, model: str, number: int) -> bytes:
        """The file of a version, to the bit. Raises NotFound; RegistryError where the file is missing or damaged."""
        return self.blobs.read(self.get(model, number).digest)

    def set_alias(self, model: str, alias: str, number: int) -> Version:
        """Let an alias point to a version. Raises NotFound where there is no such version."""
        name = _checked(_ALIAS, alias, "alias")
        with self.database.writing(model) as connection:
            _get(connection, model, number)
            row = self.database.insert(aliases).values(model=model, alias=name, number=number)
            connection.execute(row.on_conflict_do_update(index_elements=["model", "alias"], set_={"number": number}))
            return _get(connection, model, number)

    def delete_alias(self, model: str, alias: str) -> None:
        """Raises NotFound."""
        with self.database.writing(model) as connection:
            _target(connection, model, alias)
            gone = self.database.insert(deleted_aliases).values(model=model, alias=alias)
            connection.execute(gone.on_conflict_do_nothing())
            connection.execute(delete(aliases).where(aliases.c.model == model, aliases.c.alias == alias))

    def delete_version(self, model: str, number: int, used_by: UsedBy = nobody) -> None:
        """Its number is never given again. Raises NotFound; Conflict while an alias or `used_by` says it is in use."""
        with self.database.writing(model) as connection:
            self._check_unused(connection, _get(connection, model, number), used_by)
            connection.execute(delete(versions).where(versions.c.model == model, versions.c.number == number))

    def delete_model(self, model: str, used_by: UsedBy = nobody) -> None:
        """With all its versions. Raises NotFound; Conflict while one of them is in use."""
        with self.database.writing(model) as connection:
            _model(connection, model)
            pointing = _aliases(connection, model)
            for row in connection.execute(select(versions).where(versions.c.model == model)).all():
                self._check_unused(connection, _version(row, pointing), used_by)
            connection.execute(delete(versions).where(versions.c.model == model))
            connection.execute(delete(models).where(models.c.name == model))

    def _check_unused(self, connection: Connection, version: Version, used_by: UsedBy) -> None:
        users = [f"alias {alias!r}" for alias in version.aliases]
        session = used_by(version.model, version.version)
        if session is not None:
            users.append(session)
        users += self.leases.of_others(connection, version.model, version.version)
        if users:
            what = f"version {version.version} of model {version.model!r}"
            raise Conflict(f"{what} is in use by {', '.join(users)}; release it there first")


_NAME: TypeAdapter[str] = TypeAdapter(Name)
_ALIAS: TypeAdapter[str] = TypeAdapter(Alias)


def _checked(form: TypeAdapter[str], value: str, what: str) -> str:
    try:
        return form.validate_python(value)
    except ValidationError as error:
        raise ModelError(f"{what}: {error.errors()[0]['msg']}; got {value!r}") from error


def _now() -> str:
    return datetime.now(UTC).isoformat()


def _models(connection: Connection) -> list[Model]:
    numbered: dict[str, list[int]] = {}
    for name, number in connection.execute(select(versions.c.model, versions.c.number).order_by(versions.c.number)):
        numbered.setdefault(name, []).append(number)
    pointing: dict[str, dict[str, int]] = {}
    for name, alias, number in connection.execute(select(aliases).order_by(aliases.c.alias)):
        pointing.setdefault(name, {})[alias] = number
    return [
        Model(name=name, created=created, versions=numbered.get(name, []), aliases=pointing.get(name, {}))
        for name, created in connection.execute(select(models).order_by(models.c.name))
    ]


def _model(connection: Connection, name: str) -> Model:
    found = connection.execute(select(models.c.created).where(models.c.name == name)).first()
    if found is None:
        raise _absent(_last(connection, name) > 0, f"no model {name!r} in the registry")
    own = select(versions.c.number).where(versions.c.model == name).order_by(versions.c.number)
    return Model(
        name=name,
        created=found.created,
        versions=list(connection.execute(own).scalars()),
        aliases=dict(sorted(_aliases(connection, name))),
    )


def _get(connection: Connection, model: str, number: int) -> Version:
    if 1 <= number <= LARGEST_NUMBER:
        wanted = select(versions).where(versions.c.model == model, versions.c.number == number)
        row = connection.execute(wanted).first()
        if row is not None:
            return _version(row, _aliases(connection, model))
    there = _model(connection, model).versions
    listed = ", ".join(map(str, there[-20:])) or "none"
    what = f"model {model!r} has no version {number}; it has: {'..., ' * (len(there) > 20)}{listed}"
    raise _absent(1 <= number <= _last(connection, model), what)


def _resolve(connection: Connection, model: str, reference: int | str) -> Version:
    if isinstance(reference, int) or reference.isdecimal():
        return _get(connection, model, int(reference))
    return _get(connection, model, _target(connection, model, reference))


def _target(connection: Connection, model: str, alias: str) -> int:
    pointing = dict(_aliases(connection, model))
    if alias not in pointing:
        _model(connection, model)
        gone = select(deleted_aliases).where(deleted_aliases.c.model == model, deleted_aliases.c.alias == alias)
        what = f"model {model!r} has no alias {alias!r}; it has: {', '.join(sorted(pointing)) or 'none'}"
        raise _absent(connection.execute(gone).first() is not None, what)
    return pointing[alias]


def _last(connection: Connection, model: str) -> int:
    """The last number that a version of this name was given; 0 before the first."""
    return connection.execute(select(numbers.c.last).where(numbers.c.model == model)).scalar() or 0


def _absent(was_there: bool, what: str) -> NotFound:
    return Deleted(f"{what} (it was deleted)") if was_there else NotFound(what)


def _aliases(connection: Connection, model: str) -> Iterable[tuple[str, int]]:
    rows = connection.execute(select(aliases.c.alias, aliases.c.number).where(aliases.c.model == model))
    return [(alias, number) for alias, number in rows]


def _version(row: Row[Any], pointing: Iterable[tuple[str, int]]) -> Version:
    return Version(
        model=row.model,
        version=row.number,
        kind=row.kind,
        digest=row.digest,
        size=row.size,
        created=row.created,
        created_by=row.created_by,
        aliases=sorted(alias for alias, number in pointing if number == row.number),
        **row.document,
    )
