"""`neuroloop sessions` and `neuroloop labels`: the sessions of a running server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from neuroloop.server_commands import (
    LOCAL,
    Alias,
    Model,
    Role,
    Server,
    Session,
    Shadow,
    Token,
    Version,
    client_of,
    print_json,
    read_yaml,
)

app = typer.Typer(help="Sessions: see, start, stop, exchange decoders.", no_args_is_help=True)
labels_app = typer.Typer(help="Labels of a session: what was meant, and what is decoded.", no_args_is_help=True)


@app.command("list")
def list_sessions(server: Server = LOCAL, token: Token = None) -> None:
    """Every session: name, state."""
    with client_of(server, token) as client:
        for session in client.sessions():
            typer.echo(f"{session['name']}\t{session['state']}")


@app.command()
def status(session: Session, server: Server = LOCAL, token: Token = None) -> None:
    """Stream health, bins, missed bins, latency, decoders, as JSON."""
    with client_of(server, token) as client:
        print_json(client.status(session))


@app.command()
def create(
    settings: Annotated[Path, typer.Argument(metavar="SESSION.yaml", help="As an entry of `sessions`.")],
    server: Server = LOCAL,
    token: Token = None,
) -> None:
    """A new session; prints its name."""
    with client_of(server, token) as client:
        typer.echo(client.create(read_yaml(settings, "name"))["name"])


@app.command()
def delete(session: Session, server: Server = LOCAL, token: Token = None) -> None:
    """End a session and its process."""
    with client_of(server, token) as client:
        client.delete(session)


@app.command()
def start(session: Session, server: Server = LOCAL, token: Token = None) -> None:
    """Run the loop."""
    with client_of(server, token) as client:
        client.start(session)


@app.command()
def stop(session: Session, server: Server = LOCAL, token: Token = None) -> None:
    """Stop the loop; models and weights stay."""
    with client_of(server, token) as client:
        client.stop(session)


@app.command()
def swap(
    session: Session,
    model: Model,
    version: Version = None,
    alias: Alias = None,
    role: Role = "active",
    state: Annotated[
        Literal["carry", "reprime", "cold"] | None, typer.Option(help="What becomes of what is running.")
    ] = None,
    server: Server = LOCAL,
    token: Token = None,
) -> None:
    """Exchange the decoder for a version of a model, between two bins; prints the receipt, as JSON."""
    how: dict[str, Any] = {"role": role} | ({} if state is None else {"state": state})
    with client_of(server, token) as client:
        print_json(client.put_decoder(session, model, version, alias, **how))


@app.command()
def promote(session: Session, decoder: Shadow, server: Server = LOCAL, token: Token = None) -> None:
    """Make a shadow the active decoder; prints the receipt, as JSON."""
    with client_of(server, token) as client:
        print_json(client.promote_decoder(session, decoder))


@app.command()
def rollback(session: Session, server: Server = LOCAL, token: Token = None) -> None:
    """Return to the decoder that was active before; prints the receipt, as JSON."""
    with client_of(server, token) as client:
        print_json(client.roll_back_decoder(session))


@app.command()
def remove(session: Session, decoder: Shadow, server: Server = LOCAL, token: Token = None) -> None:
    """Let a shadow go; prints which model it was, as JSON."""
    with client_of(server, token) as client:
        print_json(client.remove_shadow(session, decoder))


@labels_app.command()
def send(
    session: Session,
    label: Annotated[str, typer.Argument(help="One of the session's classes.")],
    start: Annotated[float | None, typer.Option(help="LSL seconds; without times, the window that just ended.")] = None,
    end: Annotated[float | None, typer.Option(help="LSL seconds.")] = None,
    server: Server = LOCAL,
    token: Token = None,
) -> None:
    """Say what was meant; the decoders learn from it. Prints what became of it, as JSON."""
    with client_of(server, token) as client:
        print_json(client.label(session, label, start, end))


@labels_app.command()
def watch(
    session: Session,
    count: Annotated[int | None, typer.Option(min=1, help="End after so many bins.")] = None,
    server: Server = LOCAL,
    token: Token = None,
) -> None:
    """Print what is decoded, bin by bin: number, label or why there is none, confidence."""
    with client_of(server, token) as client:
        for number, prediction in enumerate(client.predictions(session), 1):
            said = prediction["label"] or f"({prediction['reason']})"
            confidence = "" if prediction["confidence"] is None else f"{prediction['confidence']:.2f}"
            typer.echo(f"{prediction['seq']}\t{said}\t{confidence}")
            if number == count:
                return
