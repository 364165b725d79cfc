"""Whether a registry is whole: every row its blob, every blob its name's content, every alias a version.

A blob without a row is no fault: someone may be about to write the row, or the version was deleted. `collect` removes
those, and files that were never finished, when they are old enough; it holds the folder's lock, so that no row can come
for a blob that it is about to remove, and the age is a second guard where the lock does not reach (a network folder
that does not pass locks on).
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from sqlalchemy import select

from neuroloop.errors import NotFound
from neuroloop.registry import tables
from neuroloop.registry.registry import Registry

MIN_AGE_S = 3600.0


@dataclass
class Report:
    """faults: a line for each. orphans: digests of blobs without a row. unfinished: files that nobody finished."""

    versions: int = 0
    faults: list[str] = field(default_factory=list)
    orphans: list[str] = field(default_factory=list)
    unfinished: int = 0


def verify(registry: Registry) -> Report:
    """Look at everything; reads every blob once. Changes nothing, and disturbs nobody."""
    with registry.database.reading() as connection:
        rows = connection.execute(select(tables.versions)).all()
        pointers = connection.execute(select(tables.aliases)).all()
        models = set(connection.execute(select(tables.models.c.name)).scalars())
        last = {row.model: row.last for row in connection.execute(select(tables.numbers))}
    report = Report(versions=len(rows))
    faulty = {digest: registry.blobs.fault(digest) for digest in {row.digest for row in rows}}
    for row in rows:
        name = f"version {row.number} of model {row.model!r}"
        fault = faulty[row.digest]
        if fault is not None and _is_there(registry, row.model, row.number):
            report.faults.append(f"{name}: its blob is {fault}; restore {registry.blobs.path(row.digest)}")
        if row.model not in models:
            report.faults.append(f"{name}: there is no such model")
        if row.number > last.get(row.model, 0):
            report.faults.append(f"{name}: the last number given is {last.get(row.model, 0)}")
    there = {(row.model, row.number) for row in rows}
    report.faults += [
        f"alias {row.alias!r} of model {row.model!r}: points to version {row.number}, which is not there"
        for row in pointers
        if (row.model, row.number) not in there
    ]
    known = {row.digest for row in rows}
    for digest, _ in registry.blobs.files():
        if digest is None:
            report.unfinished += 1
        elif digest not in known:
            report.orphans.append(digest)
    return report


def collect(registry: Registry, min_age_s: float = MIN_AGE_S) -> int:
    """Remove blobs without a row and unfinished files that are older; returns how many. Uploads wait meanwhile."""
    removed = 0
    with registry.lock.exclusive():
        with registry.database.reading() as connection:
            known = set(connection.execute(select(tables.versions.c.digest)).scalars())
        oldest = time.time() - min_age_s
        for digest, path in registry.blobs.files():
            if (digest is None or digest not in known) and path.stat().st_mtime <= oldest:
                path.unlink()
                removed += 1
    return removed


def _is_there(registry: Registry, model: str, number: int) -> bool:
    """Not deleted, and its blob collected, since the rows were read."""
    try:
        registry.get(model, number)
    except NotFound:
        return False
    return True
