"""The file that a session is given back from: safetensors, with what is no array as JSON in the metadata.

Nothing is unpickled. A file is written beside the last one, brought to the disk and renamed, and the last one is kept
as the one before: whenever the process ends, one of the two is whole. A format number says how the content is to be
read, a checksum whether it is what was written.
"""

from __future__ import annotations

import json
import os
import zlib
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

Tree = dict[str, Any]


def pack(tree: Tree) -> bytes:
    """A file's content. tree: maps with names as keys, lists, plain values, arrays and bytes."""
    arrays: dict[str, NDArray[Any]] = {}
    plain = _without_arrays(tree, arrays)
    document = {"format": FORMAT, "checksum": _checksum(arrays), "tree": plain}
    return safetensors.numpy.save(arrays, {KEY: json.dumps(document)})


def unpack(content: bytes) -> Tree:
    """The tree; tuples have become lists. Raises ModelError for anything that is no such file, or of another format."""
    try:
        arrays = safetensors.numpy.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        document = json.loads(header["__metadata__"][KEY])
        format, checksum, plain = document["format"], document["checksum"], document["tree"]
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError) as error:
        got = f"{len(content)} bytes: {error}"
        raise ModelError(f"checkpoint: expected a file that a session wrote, got {got}") from error
    if format != FORMAT:
        raise ModelError(f"checkpoint: expected format {FORMAT}, got {format!r}; another version of neuroloop wrote it")
    found = _checksum(arrays)
    if found != checksum:
        raise ModelError(f"checkpoint: is damaged: expected checksum {checksum}, got {found}")
    tree: Tree = _with_arrays(plain, arrays)
    return tree


def write(path: Path, content: bytes) -> None:
    """In the place of the last one, which is kept as the one before. Raises OSError; then the last one is there."""
    fresh = path.with_name(f"{path.name}.new")
    with fresh.open("wb") as file:
        file.write(content)
        file.flush()
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
        values: Any = np.ascontiguousarray(arrays[name]).reshape(-1).view(np.uint8)
        total = zlib.crc32(values, total)
    return total


def _without_arrays(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    """The same as JSON has it; arrays are moved out of it."""
    match value:
        case np.ndarray() | bytes():
            name = str(len(arrays))
            is_bytes = isinstance(value, bytes)
            arrays[name] = np.frombuffer(value, np.uint8) if is_bytes else np.array(value, order="C")
            return {BYTES if is_bytes else ARRAY: name}
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
