"""Training data as NPZ files: what each kind needs, checked from the headers alone, and read. Nothing is unpickled.

maxrate, poisson,  rates (bins, features) or trials (trials, features), labels (bins,) or (trials,): indices with -1
lda, logistic,     for none, or names with '' for none; optional: times (bins,) in seconds, usable (bins,) bool,
csp, riemann, gsnn trial_numbers (bins,), channels (channels,)
lfr                rates (bins, features), labels (bins,), and what is optional for maxrate
ridge, kalman,     rates (bins, features), targets (bins, targets), both NaN where unknown; optional: target_names
gsnn_continuous    (targets,), times, usable, channels
lrr                samples (samples, channels); optional: channels (channels,)
lnp                stimulus (bins, ...), counts (bins,) or (bins, cells); optional: times, usable, cells (cells,),
                   locations (cells, 2)
"""

from __future__ import annotations

import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.signal.weight_files import UNREADABLE

Arrays = Mapping[str, NDArray[Any]]

SIZE_LIMIT = 2 << 30  # bytes unpacked
REAL, WHOLE, TEXT, TRUTH = "biuf", "iu", "U", "b"
LABELLED = ("rates", "trials", "labels", "times", "usable", "trial_numbers", "channels", "classes", "duration_s")
CONTINUOUS = ("rates", "targets", "target_names", "times", "usable", "channels")
NAMES = {
    "maxrate": LABELLED,
    "poisson": LABELLED,
    "gsnn": LABELLED,
    "lfr": ("rates", *LABELLED[2:]),
    "lda": LABELLED,
    "logistic": LABELLED,
    "csp": LABELLED,
    "riemann": LABELLED,
    "ridge": CONTINUOUS,
    "kalman": CONTINUOUS,
    "gsnn_continuous": CONTINUOUS,
    "lrr": ("samples", "channels"),
    "lnp": ("stimulus", "counts", "times", "usable", "cells", "locations"),
}


@dataclass(frozen=True, slots=True)
class Header:
    """What an array is, without its values."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]


def read_headers(path: Path) -> dict[str, Header]:
    """The arrays in an NPZ file, whose values stay on disk. Raises ModelError for a file that can't be trusted."""
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            unpacked = sum(entry.file_size for entry in entries)
            if unpacked > SIZE_LIMIT:
                raise ModelError(f"arrays: the NPZ unpacks to {unpacked} bytes; at most {SIZE_LIMIT}")
            return {entry.filename.removesuffix(".npy"): _header(archive, entry) for entry in entries}
    except UNREADABLE as error:
        raise ModelError(f"arrays: expected an NPZ file, as numpy.savez writes it: {error}") from error


def _header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Header:
    with archive.open(entry) as file:
        version = np.lib.format.read_magic(file)
        read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}.get(version)
        if read is None:
            raise ModelError(f"arrays: {entry.filename}: format {version} is not read; expected 1.0 or 2.0")
        shape, _, dtype = read(file)
        if dtype.hasobject:
            raise ModelError(
                f"arrays: {entry.filename} holds pickled objects, which are never read; store plain values"
            )
        expected = file.tell() + math.prod(shape) * dtype.itemsize
    if entry.file_size != expected:
        raise ModelError(f"arrays: {entry.filename} has {entry.file_size} bytes; its header says {expected}")
    return Header(shape, dtype)


def read(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an NPZ file whose headers were found good. Raises ModelError where their values are damaged."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except UNREADABLE as error:
        raise ModelError(f"arrays: the NPZ file is damaged: {error}; send it again") from error


def check(kind: str, headers: Mapping[str, Header]) -> None:
    """Whether these arrays can be what a fit of this kind learns from. Raises ModelError that names the array."""
    unknown = [name for name in headers if name not in NAMES[kind]]
    if unknown:
        raise ModelError(f"arrays: {', '.join(unknown)}: unknown; a fit of kind {kind} takes {', '.join(NAMES[kind])}")
    if "labels" in NAMES[kind]:
        bins = _check_labelled(headers)
    elif NAMES[kind] is CONTINUOUS:
        bins = _check(headers, "rates", REAL, (None, None))[0]
        _check(headers, "targets", REAL, (bins, None))
        _check_optional(headers, "target_names", TEXT, (headers["targets"].shape[1],))
        _check_optional(headers, "channels", TEXT, (None,))
    elif kind == "lrr":
        bins = _check(headers, "samples", REAL, (None, None))[0]
        _check_optional(headers, "channels", TEXT, (headers["samples"].shape[1],))
    else:
        bins = _check_encoder(headers)
    _check_optional(headers, "times", REAL, (bins,))
    _check_optional(headers, "usable", TRUTH, (bins,))


def _check_labelled(headers: Mapping[str, Header]) -> int:
    given = [name for name in ("rates", "trials") if name in headers]
    if len(given) != 1:
        raise ModelError(f"arrays: expected either 'rates' or 'trials', got {', '.join(headers) or 'nothing'}")
    count, _ = _check(headers, given[0], REAL, (None, None))
    _check(headers, "labels", WHOLE + TEXT, (count,))
    _check_optional(headers, "trial_numbers", WHOLE, (count,))
    for name in ("channels", "classes"):
        _check_optional(headers, name, TEXT, (None,))
    _check_optional(headers, "duration_s", REAL, ())
    return count


def _check_encoder(headers: Mapping[str, Header]) -> int:
    stimulus = headers.get("stimulus")
    axes = len(stimulus.shape) if stimulus is not None else 1
    bins = _check(headers, "stimulus", REAL, (None,) * min(max(axes, 1), 4))[0]
    counts = headers.get("counts")
    per_cell = counts is not None and len(counts.shape) == 2
    cells = (*_check(headers, "counts", REAL, (bins, None) if per_cell else (bins,)), 1)[1]
    _check_optional(headers, "cells", TEXT, (cells,))
    _check_optional(headers, "locations", WHOLE, (cells, 2))
    return bins


def _check(headers: Mapping[str, Header], name: str, kinds: str, shape: tuple[int | None, ...]) -> tuple[int, ...]:
    """The shape of an array that must be there."""
    if name not in headers:
        raise ModelError(f"arrays: {name!r} is missing; the file holds {', '.join(headers) or 'nothing'}")
    found = headers[name]
    fits = len(found.shape) == len(shape) and all(
        size > 0 and size == (expected or size) for size, expected in zip(found.shape, shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("at least 1" if size is None else str(size) for size in shape)
        raise ModelError(f"arrays: {name!r}: expected the shape ({wanted}), got {found.shape}")
    if found.dtype.kind not in kinds:
        words = {"b": "bool", "i": "integers", "f": "floats", "U": "text"}
        wanted = " or ".join(word for kind, word in words.items() if kind in kinds)
        raise ModelError(f"arrays: {name!r}: expected {wanted}, got {found.dtype}")
    return found.shape


def _check_optional(headers: Mapping[str, Header], name: str, kinds: str, shape: tuple[int | None, ...]) -> None:
    if name in headers:
        _check(headers, name, kinds, shape)
