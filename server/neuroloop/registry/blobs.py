"""Files named by their content: `sha256/ab/abcdef...`, written whole or not at all.

A file is written under another name in the same folder, brought to the disk, and renamed; so under its final name there
is never a part of it. Reading compares the content with the name: other bytes are an error, never an answer.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from neuroloop.errors import RegistryError

PREFIX = "sha256:"
UNFINISHED = ".part"


def digest_of(data: bytes) -> str:
    """`sha256:...`, 64 hexadecimal digits."""
    return PREFIX + hashlib.sha256(data).hexdigest()


class Blobs:
    """The blobs in a folder, which is made with the first."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder / "sha256"

    def path(self, digest: str) -> Path:
        name = digest.removeprefix(PREFIX)
        return self._folder / name[:2] / name

    def write(self, data: bytes) -> str:
        """Keep the data; returns its digest. On the disk when this returns.

        Written anew even where it is there: that mends a damaged file, and makes it young for `collect`.
        """
        digest = digest_of(data)
        path = self.path(digest)
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex}{UNFINISHED}")
        try:
            with unfinished.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            unfinished.replace(path)
        except OSError:
            unfinished.unlink(missing_ok=True)
            raise
        for folder in (path.parent, self._folder, self._folder.parent):
            _sync_folder(folder)
        return digest

    def read(self, digest: str) -> bytes:
        """Raises RegistryError where the blob is missing, or is not what its name says."""
        try:
            data = self.path(digest).read_bytes()
        except FileNotFoundError as error:
            raise RegistryError(f"blob {digest}: its file is missing; restore {self.path(digest)}") from error
        found = digest_of(data)
        if found != digest:
            raise RegistryError(f"blob {digest}: its file holds {found}; restore {self.path(digest)}")
        return data

    def fault(self, digest: str) -> str | None:
        """What is wrong with a blob: missing, or damaged."""
        try:
            with self.path(digest).open("rb") as file:
                whole = PREFIX + hashlib.file_digest(file, "sha256").hexdigest() == digest
        except FileNotFoundError:
            return "missing"
        return None if whole else "damaged"

    def files(self) -> Iterator[tuple[str | None, Path]]:
        """Every file with the digest that it is named by; None for one that was never finished."""
        for path in sorted(self._folder.glob("??/*")):
            yield (None if path.name.endswith(UNFINISHED) else PREFIX + path.name), path


def _sync_folder(folder: Path) -> None:
    """Bring the folder's entries to the disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
