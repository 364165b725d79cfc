"""LNP banks as safetensors files: one tensor per parameter; kind, cells, frame and settings as JSON in the metadata."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import ValidationError
from pydantic_core import from_json

from neuroloop.errors import ModelError
from neuroloop.models.lnp_parameters import LNPParameters, LNPSettings
from neuroloop.models.receptive_fields import Frame


def write(cells: Sequence[str], frame: Frame, settings: LNPSettings, parameters: LNPParameters) -> bytes:
    """A file that `read` reads."""
    metadata = {
        "kind": "lnp",
        "cells": json.dumps(list(cells)),
        "frame": json.dumps(list(frame)),
        "settings": settings.model_dump_json(),
    }
    return safetensors.numpy.save(parameters.arrays(), metadata)


def read(data: bytes) -> tuple[list[str], Frame, LNPSettings, dict[str, NDArray[Any]]]:
    """Cells, frame, settings and parameters. Raises ModelError for anything that is no such file.

    Only the form is checked here; the shapes and values of the parameters are where a bank is made of them.
    """
    try:
        arrays = safetensors.numpy.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
        metadata = header.get("__metadata__", {})
        if metadata.get("kind") != "lnp":
            raise ModelError(f"LNP weights: expected kind 'lnp' in the metadata, got {metadata.get('kind')!r}")
        cells, frame = from_json(metadata["cells"]), from_json(metadata["frame"])
        settings = LNPSettings.model_validate_json(metadata["settings"])
    except ValidationError as error:
        raise ModelError(f"LNP weights: settings: {error.errors()[0]['loc']}: {error.errors()[0]['msg']}") from error
    except KeyError as error:
        raise ModelError(
            f"LNP weights: {error.args[0]} is missing in the metadata, or a tensor's type is unknown"
        ) from error
    except (safetensors.SafetensorError, ValueError, TypeError) as error:
        raise ModelError(f"LNP weights: the bytes are no safetensors file: {error}") from error
    if not (isinstance(cells, list) and all(isinstance(cell, str) for cell in cells)):
        raise ModelError(f"LNP weights: expected a list of names as cells, got {cells!r}")
    if not (isinstance(frame, list) and len(frame) == 3 and all(isinstance(size, int) for size in frame)):
        raise ModelError(f"LNP weights: expected frame as [channels, rows, columns], got {frame!r}")
    absent = [name for name in LNPParameters.__dataclass_fields__ if name not in arrays]
    if absent:
        raise ModelError(f"LNP weights: tensors {', '.join(absent)} are missing")
    return cells, (frame[0], frame[1], frame[2]), settings, arrays
