"""Rereferencing weights as files: W, (channels, channels), as CSV, NPZ, NPY or safetensors. Nothing is unpickled.

A CSV has a row per line, and may begin with a line of channel labels. An NPZ holds `W`, or a single array, and
optionally `channels`. A safetensors file holds the tensor `W`, and optionally a JSON list `channels` in its metadata.
Which form a file has is seen from its first bytes. Only the form is checked here; values are checked where W is used.
"""

from __future__ import annotations

import csv
import io
import json
import lzma
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from pydantic_core import from_json

from neuroloop.errors import ModelError

Format = Literal["csv", "npz", "safetensors"]
MEDIA_TYPES: dict[Format, str] = {
    "csv": "text/csv",
    "npz": "application/x-npz",
    "safetensors": "application/octet-stream",
}
# What numpy, zipfile and safetensors raise for bytes that are no such file.
UNREADABLE = (
    ValueError,
    TypeError,
    KeyError,
    EOFError,
    OSError,
    OverflowError,
    MemoryError,
    RuntimeError,
    SyntaxError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    safetensors.SafetensorError,
)
SIZE_LIMIT = 128 * 1024 * 1024  # bytes unpacked: float64 for 4096 channels

F64 = NDArray[np.float64]


def read_weights(data: bytes) -> tuple[F64, list[str] | None]:
    """W and its channel labels, None where the file has none. Raises ModelError for anything that is no such file."""
    if data.startswith(b"PK\x03\x04"):
        form, read = "NPZ", _read_npz
    elif data.startswith(b"\x93NUMPY"):
        form, read = "NPY", _read_npy
    elif data[8:9] == b"{":
        form, read = "safetensors file", _read_safetensors
    else:
        form, read = "CSV", _read_csv
    try:
        matrix, channels = read(data)
    except UNREADABLE as error:
        raise ModelError(f"rereference weights: the {form} can't be read: {error}") from error
    if matrix.dtype.kind not in "iuf":
        raise ModelError(f"rereference weights: expected real numbers, got {matrix.dtype}")
    return np.ascontiguousarray(matrix, dtype=np.float64), channels


def write_weights(format: Format, matrix: F64, channels: Sequence[str], version: int) -> bytes:
    """A file that `read_weights` reads; the CSV is without labels, as others expect it."""
    if format == "csv":
        return "".join(",".join(map(repr, row)) + "\n" for row in matrix.tolist()).encode()
    if format == "npz":
        buffer = io.BytesIO()
        np.savez(buffer, W=matrix, channels=np.array(channels), version=np.array(version))
        return buffer.getvalue()
    metadata = {"kind": "rereference", "channels": json.dumps(list(channels)), "version": str(version)}
    return safetensors.numpy.save({"W": matrix}, metadata)


def _read_npy(data: bytes) -> tuple[NDArray[Any], None]:
    return np.lib.format.read_array(io.BytesIO(data), allow_pickle=False), None


def _read_npz(data: bytes) -> tuple[NDArray[Any], list[str] | None]:
    archive = zipfile.ZipFile(io.BytesIO(data))
    unpacked = sum(entry.file_size for entry in archive.infolist())
    if unpacked > SIZE_LIMIT:
        raise ModelError(f"rereference weights: the NPZ unpacks to {unpacked} bytes; at most {SIZE_LIMIT}")
    arrays = {entry.removesuffix(".npy"): _read_npy(archive.read(entry))[0] for entry in archive.namelist()}
    channels = arrays.pop("channels", None)
    arrays.pop("version", None)
    names = list(arrays)
    if "W" not in arrays and len(names) != 1:
        raise ModelError(f"rereference weights: expected an array 'W' or a single array in the NPZ, got {names}")
    matrix = arrays.get("W", arrays[names[0]])
    return matrix, None if channels is None else [str(label) for label in channels.ravel()]


def _read_safetensors(data: bytes) -> tuple[NDArray[Any], list[str] | None]:
    tensors = safetensors.numpy.load(data)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    labels = header.get("__metadata__", {}).get("channels")
    channels = None if labels is None else from_json(labels)
    if "W" not in tensors:
        raise ModelError(f"rereference weights: expected a tensor 'W' in the safetensors file, got {sorted(tensors)}")
    if channels is not None and not (isinstance(channels, list) and all(isinstance(c, str) for c in channels)):
        raise ModelError("rereference weights: 'channels' in the metadata must be a JSON list of labels")
    return tensors["W"], channels


def _read_csv(data: bytes) -> tuple[F64, list[str] | None]:
    try:
        text = data.decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text)) if row and not row[0].startswith("#")]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ModelError(
            "rereference weights: the file is neither CSV, NPZ nor safetensors (pickles are not read)"
        ) from error
    channels = [label.strip() for label in rows.pop(0)] if rows and not _is_number(rows[0][0]) else None
    if not rows:
        raise ModelError("rereference weights: the file has no numbers")
    values: list[list[float]] = []
    for number, row in enumerate(rows, 1):
        if len(row) != len(rows[0]):
            raise ModelError(f"rereference weights: row {number} has {len(row)} values, row 1 has {len(rows[0])}")
        try:
            values.append([float(value) for value in row])
        except ValueError as error:
            raise ModelError(f"rereference weights: row {number}: {error}") from error
    return np.array(values, dtype=np.float64).reshape(len(rows), -1), channels


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True
