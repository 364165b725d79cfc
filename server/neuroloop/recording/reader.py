"""XDF files for the server: the reader of `neuroloop_sources.xdf`, whose errors are told as the server's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from neuroloop.errors import ModelError
from neuroloop_sources.errors import SourceError
from neuroloop_sources.xdf.reader import Samples, XdfFile, XdfStream

__all__ = ["Samples", "XdfFile", "XdfStream", "open_xdf"]


@contextmanager
def open_xdf(path: Path | str) -> Iterator[XdfFile]:
    """An XDF file, open within the `with`: scanned, not loaded.

    `file.streams` says what there is, `file.stream(name or id).read(start, stop)` reads some of it, and `file.damage`
    and `file.is_torn` say what could not be read. Raises ModelError for a file that is not there or is no XDF, and for
    every error of reading within the `with`.
    """
    try:
        with XdfFile(path) as file:
            yield file
    except SourceError as error:
        raise ModelError(str(error)) from error
