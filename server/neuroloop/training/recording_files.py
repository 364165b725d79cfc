"""Which recordings a fit may read: those in the server's folder of recordings, by their path below it."""

from __future__ import annotations

from pathlib import Path

from neuroloop.errors import ModelError

SUFFIXES = (".edf", ".npz", ".xdf")


def find(folder: Path, name: str) -> Path:
    """The file of a recording in the folder of recordings. Raises ModelError for any other place, and where it is not.

    Whether it can be read shows when it is.
    """
    parts = Path(name).parts
    if Path(name).is_absolute() or ".." in parts or "\0" in name:
        raise ModelError(f"recording: expected a path below the server's folder of recordings, got {name!r}")
    path = folder / name
    if path.suffix.lower() not in SUFFIXES or not _is_file(path):
        raise ModelError(f"recording: expected an .edf, .npz or .xdf file in {folder}, and there is no {name!r}")
    return path


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long for the file system, or a folder that may not be read
        return False
