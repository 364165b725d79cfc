"""The JSON schema of a body that FastAPI does not read itself, as OpenAPI takes it."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

_PREFIX = "#/$defs/"


def inline_schema(model: type[BaseModel]) -> dict[str, Any]:
    """The schema of a model with its definitions in their places: a reference would point into the whole document.

    For models that do not contain themselves.
    """
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})

    def resolve(part: Any) -> Any:
        if isinstance(part, list):
            return [resolve(item) for item in part]
        if not isinstance(part, dict):
            return part
        if isinstance(part.get("$ref"), str):
            return resolve(definitions[part["$ref"].removeprefix(_PREFIX)] | {k: part[k] for k in part if k != "$ref"})
        return {key: resolve(value) for key, value in part.items() if key != "discriminator"}

    inlined: dict[str, Any] = resolve(schema)
    return inlined
