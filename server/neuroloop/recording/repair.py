"""Closes an XDF file that was left open by a crash: cuts off the chunk that is not whole, and writes the footers.

The file is changed in place, and only behind its last whole chunk: what is cut off is kept in a file beside it first,
then cut, then the footers are added in one write. Whatever ends this half-way leaves a file that can be repaired again.
"""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import IO

from neuroloop.errors import Conflict, ModelError
from neuroloop.recording.reader import XdfFile, XdfStream, open_xdf
from neuroloop.recording.writer import file_header_chunk, footer_chunk


@dataclass(frozen=True)
class Repair:
    """What was done to a file.

    cut: bytes that were cut off, and kept: the file that has them now. footers: the names of the streams that got one.
    damage: what is amiss within the file, and stays so.
    """

    path: Path
    cut: int
    kept: Path | None
    footers: tuple[str, ...]
    damage: tuple[str, ...]

    @property
    def changed(self) -> bool:
        return bool(self.cut or self.footers)

    def __str__(self) -> str:
        """One line for each thing that was done or found."""
        lines = [f"cut off {self.cut} bytes that are no whole chunk; they are in {self.kept}"] if self.cut else []
        if self.footers:
            lines.append(f"wrote the footers of {', '.join(self.footers)}")
        lines += [f"damage that stays: {damage}" for damage in self.damage]
        return "\n".join(f"{self.path}: {line}" for line in lines or ["nothing to repair"])


def repair(path: Path | str) -> Repair:
    """Close a file properly, and say what was done; a file that is whole is left as it is.

    Raises ModelError for a file that is no XDF or cannot be written, and Conflict for one that is being recorded.
    """
    path = Path(path)
    with _locked(path) as file, open_xdf(path) as found:
        end, size = found.index.end, found.index.size
        lacking = [stream for stream in found.streams if stream.footer is None]
        closing = b"" if found.index.header else file_header_chunk(datetime.now(UTC))
        closing += b"".join(_footer(stream) for stream in lacking)
        kept = _keep(file, path, end) if end < size else None
        if closing or kept:
            _replace_tail(file, end, closing)
        return Repair(path, size - end, kept, tuple(stream.name for stream in lacking), _lasting_damage(found))


def _footer(stream: XdfStream) -> bytes:
    """From the bytes of the stream's samples."""
    samples = stream.sample_count
    first, last = (float(stream.times(at, at + 1)[0]) for at in (0, samples - 1)) if samples else (0.0, 0.0)
    return footer_chunk(stream.stream_id, first, last, samples, stream.clock_offsets)


def _lasting_damage(found: XdfFile) -> tuple[str, ...]:
    return tuple(str(damage) for damage in found.damage if damage.start < found.index.end)


def _keep(file: IO[bytes], path: Path, end: int) -> Path:
    """Put what is to be cut off into a file of its own."""
    names = (path.with_name(f"{path.name}.cut{number or ''}") for number in count())
    kept = next(name for name in names if not name.exists())
    with kept.open("xb") as beside:
        file.seek(end)
        shutil.copyfileobj(file, beside)
        beside.flush()
        os.fsync(beside.fileno())
    return kept


def _replace_tail(file: IO[bytes], end: int, closing: bytes) -> None:
    os.ftruncate(file.fileno(), end)
    file.seek(end)
    file.write(closing)
    file.flush()
    os.fsync(file.fileno())


@contextmanager
def _locked(path: Path) -> Iterator[IO[bytes]]:
    """The file, which nobody else writes or repairs."""
    try:
        file = path.open("r+b")
    except OSError as error:
        raise ModelError(f"{path}: cannot be repaired: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise Conflict(f"{path}: it is being recorded; stop the recording first") from error
        yield file
