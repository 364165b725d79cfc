"""The registry's tables. What is looked for by has a column of its own; the rest of a version is one JSON document."""

from __future__ import annotations

from sqlalchemy import (
    JSON,
    BigInteger,
    Column,
    Float,
    ForeignKey,
    ForeignKeyConstraint,
    Integer,
    MetaData,
    String,
    Table,
)

metadata = MetaData()

# The last number given to a version of each name. Rows stay when a model is deleted: predictions name a model and a
# number, and must never mean two different versions. Writers lock their model's row.
numbers = Table(
    "numbers",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("last", Integer, nullable=False),
)

models = Table(
    "models",
    metadata,
    Column("name", String(64), primary_key=True),
    Column("created", String(40), nullable=False),  # ISO 8601, UTC
)

versions = Table(
    "versions",
    metadata,
    Column("model", String(64), ForeignKey("models.name"), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("kind", String(64), nullable=False),
    Column("digest", String(71), nullable=False, index=True),
    Column("size", BigInteger, nullable=False),
    Column("created", String(40), nullable=False),
    Column("created_by", String(256)),
    Column("document", JSON, nullable=False),
)

aliases = Table(
    "aliases",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("alias", String(64), primary_key=True),
    Column("number", Integer, nullable=False),
    ForeignKeyConstraint(["model", "number"], ["versions.model", "versions.number"]),
)

# Aliases that were deleted, so that whoever names one is told so.
deleted_aliases = Table(
    "deleted_aliases",
    metadata,
    Column("model", String(64), primary_key=True),
    Column("alias", String(64), primary_key=True),
)

# What a server uses, for the others that share the registry: nobody deletes it before `until`, in Unix seconds.
leases = Table(
    "leases",
    metadata,
    Column("server", String(256), primary_key=True),
    Column("model", String(64), primary_key=True),
    Column("number", Integer, primary_key=True, autoincrement=False),
    Column("used_by", String(256), nullable=False),
    Column("until", Float, nullable=False),
)
