"""`neuroloop fits`: the fit jobs of a running server."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from neuroloop.cli_errors import one_line_errors
from neuroloop.errors import ConfigError, NeuroloopError

if TYPE_CHECKING:
    from neuroloop_client import Client

app = typer.Typer(help="Fit models, beside a server's sessions.", no_args_is_help=True)

POLL_S = 0.5

Server = Annotated[str, typer.Option(help="Address of the server.")]
Token = Annotated[str | None, typer.Option(envvar="NEUROLOOP_TOKEN", help="Of a server that asks for one.")]
Fit = Annotated[str, typer.Argument(help="Id of the fit, as `start` and `list` print it.")]

LOCAL = "http://127.0.0.1:8765"


@contextmanager
def _client(server: str, token: str | None) -> Iterator[Client]:
    from neuroloop_client import Client, NeuroloopClientError

    with one_line_errors(), Client(server, token=token) as client:
        try:
            yield client
        except NeuroloopClientError as error:
            raise NeuroloopError(str(error)) from error


@app.command()
def start(
    request: Annotated[Path, typer.Argument(metavar="FIT.yaml", help="Name, kind, settings, source: see /docs.")],
    arrays: Annotated[Path | None, typer.Option(metavar="DATA.npz", help="The data, where no source is named.")] = None,
    activate: Annotated[
        Literal["none", "shadow", "active"], typer.Option(help="As what a session is to use the result.")
    ] = "none",
    session: Annotated[str | None, typer.Option(help="Which; that of a live source by default.")] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Return when it has ended; exit code 1 unless it is done.")
    ] = False,
    server: Server = LOCAL,
    token: Token = None,
) -> None:
    """Fit a model and print the job's id; with --wait, the job."""
    with _client(server, token) as client:
        document = _read(request)
        content = None if arrays is None else _bytes(arrays)
        job = client.start_fit(document, content, activate, session)
        if not wait:
            typer.echo(job["id"])
            return
        while job["state"] in ("queued", "running"):
            time.sleep(POLL_S)
            job = client.fit(job["id"])
    _print(job)
    if job["state"] != "done":
        raise typer.Exit(1)


@app.command("list")
def list_fits(server: Server = LOCAL, token: Token = None) -> None:
    """Every fit that the server keeps, oldest first: id, state, progress, model, kind, metrics."""
    with _client(server, token) as client:
        for job in client.fits():
            model = job["request"]["name"] + (f" {job['version']}" if job["version"] else "")
            metrics = " ".join(f"{name}={value:.3g}" for name, value in job["metrics"].items() if value is not None)
            columns = (job["id"], job["state"], f"{job['progress']:.0%}", model, job["request"]["kind"], metrics)
            typer.echo("\t".join(columns))


@app.command()
def show(fit: Fit, server: Server = LOCAL, token: Token = None) -> None:
    """Everything about a fit, as JSON."""
    with _client(server, token) as client:
        _print(client.fit(fit))


@app.command()
def cancel(fit: Fit, server: Server = LOCAL, token: Token = None) -> None:
    """End a fit that waits or runs."""
    with _client(server, token) as client:
        typer.echo(client.cancel_fit(fit)["state"])


def _print(job: dict[str, Any]) -> None:
    typer.echo(json.dumps(job, indent=2))


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror}") from error


def _read(path: Path) -> dict[str, Any]:
    import yaml

    try:
        document = yaml.safe_load(_bytes(path))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not YAML: {error}") from error
    if not isinstance(document, dict):
        raise ConfigError(f"{path}: expected a mapping with keys such as 'kind', got {type(document).__name__}")
    return document
