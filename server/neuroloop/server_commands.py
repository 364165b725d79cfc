"""What the commands that talk to a running server have in common."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from neuroloop.cli_errors import one_line_errors
from neuroloop.errors import ConfigError, NeuroloopError

if TYPE_CHECKING:
    from neuroloop_client import Client

LOCAL = "http://127.0.0.1:8765"

Server = Annotated[str, typer.Option(help="Address of the server.")]
Token = Annotated[str | None, typer.Option(envvar="NEUROLOOP_TOKEN", help="Of a server that asks for one.")]
Session = Annotated[str, typer.Argument(help="Name of the session.")]
Model = Annotated[str, typer.Argument(help="Name of the model.")]
Version = Annotated[int | None, typer.Option(min=1, help="Its number.")]
Alias = Annotated[str | None, typer.Option(help="Its alias, which the session then follows.")]
Role = Annotated[Literal["active", "shadow"], typer.Option(help="As what it runs.")]
Shadow = Annotated[str, typer.Argument(help="Name of a shadow.")]


@contextmanager
def client_of(server: str, token: str | None) -> Iterator[Client]:
    """A client whose errors are told in one line."""
    from neuroloop_client import Client, NeuroloopClientError

    with one_line_errors(), Client(server, token=token) as client:
        try:
            yield client
        except NeuroloopClientError as error:
            raise NeuroloopError(str(error)) from error


def print_json(content: Any) -> None:
    typer.echo(json.dumps(content, indent=2))


def read_bytes(path: Path) -> bytes:
    """Raises ConfigError."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def read_yaml(path: Path, example: str) -> dict[str, Any]:
    """A mapping. example: of its keys, for the error. Raises ConfigError."""
    import yaml

    try:
        document = yaml.safe_load(read_bytes(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a mapping with keys such as {example!r}, got {type(document).__name__}")
    return document
