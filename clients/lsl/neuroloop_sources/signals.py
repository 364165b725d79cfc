"""A clean end for a command in the foreground, and a clean word for what it could not do."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import typer

from neuroloop_sources.errors import SourceError


@contextmanager
def stop_on_signal() -> Iterator[threading.Event]:
    """An event that SIGINT and SIGTERM set, while the block runs; in the main thread only."""
    stop = threading.Event()
    before = {number: signal.signal(number, lambda *_: stop.set()) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def one_line_errors() -> Iterator[None]:
    """A SourceError as one line on standard error, and exit code 1."""
    try:
        yield
    except SourceError as error:
        typer.echo(f"error: {error}", err=True)
        raise typer.Exit(1) from error
