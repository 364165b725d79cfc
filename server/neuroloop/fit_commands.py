"""`neuroloop fits`: the fit jobs of a running server."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from neuroloop.server_commands import LOCAL, Server, Token, client_of, print_json, read_bytes, read_yaml

app = typer.Typer(help="Fit models, beside a server's sessions.", no_args_is_help=True)

POLL_S = 0.5

Fit = Annotated[str, typer.Argument(help="Id of the fit, as `start` and `list` print it.")]


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
    with client_of(server, token) as client:
        document = read_yaml(request, "kind")
        content = None if arrays is None else read_bytes(arrays)
        job = client.start_fit(document, content, activate, session)
        if not wait:
            typer.echo(job["id"])
            return
        while job["state"] in ("queued", "running"):
            time.sleep(POLL_S)
            job = client.fit(job["id"])
    print_json(job)
    if job["state"] != "done":
        raise typer.Exit(1)


@app.command("list")
def list_fits(server: Server = LOCAL, token: Token = None) -> None:
    """Every fit that the server keeps, oldest first: id, state, progress, model, kind, metrics."""
    with client_of(server, token) as client:
        for job in client.fits():
            model = job["request"]["name"] + (f" {job['version']}" if job["version"] else "")
            metrics = " ".join(f"{name}={value:.3g}" for name, value in job["metrics"].items() if value is not None)
            columns = (job["id"], job["state"], f"{job['progress']:.0%}", model, job["request"]["kind"], metrics)
            typer.echo("\t".join(columns))


@app.command()
def show(fit: Fit, server: Server = LOCAL, token: Token = None) -> None:
    """Everything about a fit, as JSON."""
    with client_of(server, token) as client:
        print_json(client.fit(fit))


@app.command()
def resume(fit: Fit, server: Server = LOCAL, token: Token = None) -> None:
    """Have a fit go on that the end of the server or of its process interrupted."""
    with client_of(server, token) as client:
        typer.echo(client.resume_fit(fit)["state"])


@app.command()
def cancel(fit: Fit, server: Server = LOCAL, token: Token = None) -> None:
    """End a fit that waits or runs."""
    with client_of(server, token) as client:
        typer.echo(client.cancel_fit(fit)["state"])
