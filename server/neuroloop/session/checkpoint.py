"""The file that a session is given back from: safetensors, with what is no array as JSON in the metadata.

Nothing is unpickled. A file is written beside the last one, brought to the disk and renamed, and the last one is kept
as the one before: whenever the process ends, one of the two is whole. A format number says how the content is to be
read, a checksum whether it is what was written.

The file is put together here and not by `safetensors`, which copies all of it three times and holds the interpreter's
lock for it: 5 to 12 ms for 7 MB, in which the loop answers no bin. Written array by array, it holds it for 0.1 ms.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray

from neuroloop.errors import ModelError

FORMAT = 1
KEY = "neuroloop.session"  # of the metadata's one entry
ARRAY, BYTES = "__array__", "__bytes__"
TREE = "tree"  # the array that has what is no array, as JSON
AT_ONCE = 1 << 20  # bytes
DTYPES = {
    "<f8": "F64",
    "<f4": "F32",
    "<f2": "F16",
    "<i8": "I64",
    "<i4": "I32",
    "<i2": "I16",
    "|i1": "I8",
    "<u8": "U64",
    "<u4": "U32",
    "<u2": "U16",
    "|u1": "U8",
    "|b1": "BOOL",
}

Tree = dict[str, Any]
Part = bytes | memoryview


def pack(tree: Tree) -> list[Part]:
    """A file's content, in parts. tree: maps with names as keys, lists, plain values, arrays and bytes."""
    arrays: dict[str, NDArray[Any]] = {}
    plain = json.dumps(_without_arrays(tree, arrays)).encode()
    arrays[TREE] = np.frombuffer(plain, np.uint8)
    about = json.dumps({"format": FORMAT, "checksum": _checksum(arrays)})
    header: dict[str, Any] = {"__metadata__": {KEY: about}}
    end = 0
    for name, array in arrays.items():
        start, end = end, end + array.nbytes
        header[name] = {"dtype": DTYPES[array.dtype.str], "shape": array.shape, "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return [len(text).to_bytes(8, "little") + text, *(_bytes_of(array) for array in arrays.values())]


def unpack(content: bytes) -> Tree:
    """The tree; tuples have become lists. Raises ModelError for anything that is no such file, or of another format."""
    try:
        arrays = safetensors.numpy.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        about = json.loads(header["__metadata__"][KEY])
        format, checksum = about["format"], about["checksum"]
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError) as error:
        got = f"{len(content)} bytes: {error}"
        raise ModelError(f"checkpoint: expected a file that a session wrote, got {got}") from error
    if format != FORMAT:
        raise ModelError(f"checkpoint: expected format {FORMAT}, got {format!r}; another version of neuroloop wrote it")
    found = _checksum(arrays)
    if found != checksum:
        raise ModelError(f"checkpoint: is damaged: expected checksum {checksum}, got {found}")
    tree: Tree = _with_arrays(json.loads(arrays[TREE].tobytes()), arrays)
    return tree


def write(path: Path, parts: Iterable[Part]) -> None:
    """In the place of the last one, which is kept as the one before. Raises OSError; then the last one is there."""
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("wb", buffering=0) as file:
        for part in parts:
            for start in range(0, len(part), AT_ONCE):
                file.write(part[start : start + AT_ONCE])
        os.fsync(file.fileno())
    if path.exists():
        os.replace(path, before(path))
    os.replace(fresh, path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def read(path: Path) -> tuple[Tree | None, list[str]]:
    """The newest that can be read, None for none; and what is wrong with those that were passed over."""
    refused: list[str] = []
    for candidate in (path, before(path)):
        try:
            return unpack(candidate.read_bytes()), refused
        except FileNotFoundError:
            continue
        except (OSError, ModelError) as error:
            refused.append(f"{candidate.name}: {error}")
    return None, refused


def before(path: Path) -> Path:
    """Where the one before is kept."""
    return path.with_name(f"{path.name}.before")


def remove(path: Path) -> None:
    for one in (path, before(path), path.with_name(f"{path.name}.new")):
        one.unlink(missing_ok=True)


def _checksum(arrays: dict[str, NDArray[Any]]) -> int:
    total = 0
    for name in sorted(arrays):
        total = zlib.crc32(_bytes_of(arrays[name]), total)
    return total


def _bytes_of(array: NDArray[Any]) -> memoryview:
    flat: Any = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
    return memoryview(flat)


def _without_arrays(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """The same as JSON has it; arrays are moved out of it."""
    match value:
        case bytes():
            arrays[name := str(len(arrays))] = np.frombuffer(value, np.uint8)
            return {BYTES: name}
        case np.ndarray():
            arrays[name := str(len(arrays))] = np.ascontiguousarray(value).reshape(value.shape)
            return {ARRAY: name}
        case dict():
            return {key: _without_arrays(one, arrays) for key, one in value.items()}
        case list() | tuple():
            return [_without_arrays(one, arrays) for one in value]
        case np.generic():
            return value.item()
    if hasattr(value, "numpy"):  # a tensor of PyTorch, on the host
        return _without_arrays(value.numpy(), arrays)
    return value


def _with_arrays(plain: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(plain, list):
        return [_with_arrays(one, arrays) for one in plain]
    if not isinstance(plain, dict):
        return plain
    if plain.keys() == {ARRAY}:
        return arrays[plain[ARRAY]]
    if plain.keys() == {BYTES}:
        return arrays[plain[BYTES]].tobytes()
    return {key: _with_arrays(one, arrays) for key, one in plain.items()}
