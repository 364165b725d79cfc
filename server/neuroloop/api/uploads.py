"""Weights as they are sent: a file as the body, or a form of the file `weights` and a JSON `document`."""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError
from pydantic_core import from_json
from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request

from neuroloop.api.errors import Malformed
from neuroloop.api.schemas import inline_schema
from neuroloop.config import explain
from neuroloop.errors import ConfigError
from neuroloop.registry.documents import Document

WEIGHTS, DOCUMENT = "weights", "document"
_FILE = {"type": "string", "format": "binary"}
UPLOAD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/octet-stream": {"schema": _FILE},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "additionalProperties": False,
                    "required": [WEIGHTS],
                    "properties": {WEIGHTS: _FILE, DOCUMENT: inline_schema(Document)},
                }
            },
        },
    }
}


async def read_upload(request: Request, digest: str | None) -> tuple[bytes, Document]:
    """The weights, and what is said of them. digest: of the weights, where the query has it.

    Raises Malformed for a form of another kind, ConfigError for a document with wrong entries.
    """
    if not request.headers.get("content-type", "").startswith("multipart/form-data"):
        return await request.body(), _document(b"{}", digest)
    async with request.form(max_files=2, max_fields=2) as form:
        weights = form.get(WEIGHTS)
        if not isinstance(weights, UploadFile):
            names = ", ".join(form) or "nothing"
            raise Malformed(f"the form: expected a file {WEIGHTS!r} and JSON {DOCUMENT!r}, got {names}")
        return await weights.read(), _document(await _text(form), digest)


async def _text(form: FormData) -> bytes:
    document = form.get(DOCUMENT, "{}")
    return await document.read() if isinstance(document, UploadFile) else document.encode()


def _document(text: bytes, digest: str | None) -> Document:
    try:
        said = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise Malformed(f"the {DOCUMENT} is not JSON: {error}") from error
    if digest is not None and isinstance(said, dict) and said.setdefault("digest", digest) != digest:
        raise ConfigError(f"digest: {digest} in the query, {said['digest']} in the document; send one of them")
    try:
        return Document.model_validate(said)
    except ValidationError as error:
        raise ConfigError(explain(error)) from error
