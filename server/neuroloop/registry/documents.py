"""What is said of a version beside its weights: by who adds it (`Document`), and by the registry (`Version`)."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator

from neuroloop.config import Name

LARGEST_NUMBER = 2**31 - 1

Digest = Annotated[str, StringConstraints(pattern=r"^sha256:[0-9a-f]{64}$")]
# A name that no version number can be mistaken for.
Alias = Annotated[str, StringConstraints(pattern=r"^[A-Za-z][A-Za-z0-9_.-]{0,63}$")]
Number = Annotated[int, Field(ge=1, le=LARGEST_NUMBER)]


class Lineage(BaseModel):
    """Where a version comes from, and how good it is."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    parent: Number | None = Field(None, description="version of the same model that this one was made from")
    training_data: Digest | None = Field(None, description="of the data that it was trained on")
    metrics: dict[str, Any] = Field(default_factory=dict, description="such as held-out accuracy")
    metadata: dict[str, Any] = Field(default_factory=dict, description="anything else, as JSON")
    description: str = Field("", max_length=4096)

    @field_validator("metrics", "metadata")
    @classmethod
    def _json(cls, value: dict[str, Any]) -> dict[str, Any]:
        try:
            json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
        except (TypeError, ValueError) as error:
            raise ValueError(f"expected what JSON can hold: {error}") from error
        return value

    @field_validator("description")
    @classmethod
    def _text(cls, value: str) -> str:
        value.encode()  # raises ValueError for half a surrogate pair
        return value


class Document(Lineage):
    """What is sent with weights. What the file says itself need not be repeated here, and must agree where it is."""

    name: Name | None = Field(None, description="of the model, where the path does not have it")
    digest: Digest | None = Field(None, description="of the weights as sent; refused if another came")
    kind: str | None = None
    settings: dict[str, Any] | None = Field(None, description="of the kind")
    classes: list[str] | None = Field(None, description="of a decoder")
    targets: list[str] | None = Field(None, description="of a decoder of continuous targets, instead of classes")
    features: int | None = Field(None, description="of a decoder")
    channels: list[str] | None = Field(None, description="labels; of LRR weights in the order of rows and columns")
    values: dict[str, Any] | None = Field(None, description="entries of a decoder's state that are no arrays")


class Content(BaseModel):
    """What a file of weights is."""

    model_config = ConfigDict(frozen=True)

    kind: str
    settings: dict[str, Any] = Field(default_factory=dict)
    classes: list[str] | None = Field(None, description="of a decoder")
    targets: list[str] | None = Field(None, description="of a decoder of continuous targets, instead of classes")
    features: int | None = Field(None, description="of a decoder")
    channels: list[str] | None = None
    cells: list[str] | None = Field(None, description="of an encoder")


class Version(Content, Lineage):
    """A version of a model as it is kept: never changed, except that aliases move."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    version: int
    digest: str
    size: int = Field(description="bytes")
    created: datetime
    created_by: str | None = None
    aliases: list[str] = Field(default_factory=list)


class Model(BaseModel):
    """A name, its versions and its aliases."""

    model_config = ConfigDict(frozen=True)

    name: str
    created: datetime
    versions: list[int]
    aliases: dict[str, int]
