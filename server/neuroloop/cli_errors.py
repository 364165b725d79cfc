"""How the command tells an error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import typer

from neuroloop.errors import NeuroloopError


@contextmanager
def one_line_errors() -> Iterator[None]:
    """What a user caused is told without a traceback, with exit code 1."""
    try:
        yield
    except NeuroloopError as error:
        typer.echo(f"neuroloop: {error}", err=True)
        raise typer.Exit(1) from error
