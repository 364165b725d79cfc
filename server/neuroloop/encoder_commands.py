"""`neuroloop encoders`: the encoders of a session, as `neuroloop sessions` has the same for its decoders."""

from __future__ import annotations

from typing import Annotated, Any

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
)

app = typer.Typer(help="Encoders of a session: exchange, promote, roll back, remove.", no_args_is_help=True)


@app.command()
def swap(
    session: Session,
    model: Model,
    version: Version = None,
    alias: Alias = None,
    role: Role = "active",
    encoder: Annotated[
        str | None, typer.Option(help="Its name in the session; by default the active one's, or the model's.")
    ] = None,
    server: Server = LOCAL,
    token: Token = None,
) -> None:
    """Exchange the encoder for a version of a model, between two bins; prints the receipt, as JSON."""
    how: dict[str, Any] = {"role": role} | ({} if encoder is None else {"encoder": encoder})
    with client_of(server, token) as client:
        print_json(client.put_encoder(session, model, version, alias, **how))


@app.command()
def promote(session: Session, encoder: Shadow, server: Server = LOCAL, token: Token = None) -> None:
    """Make a shadow the active encoder; prints the receipt, as JSON."""
    with client_of(server, token) as client:
        print_json(client.promote_encoder(session, encoder))


@app.command()
def rollback(session: Session, server: Server = LOCAL, token: Token = None) -> None:
    """Return to the encoder that was active before; prints the receipt, as JSON."""
    with client_of(server, token) as client:
        print_json(client.roll_back_encoder(session))


@app.command()
def remove(session: Session, encoder: Shadow, server: Server = LOCAL, token: Token = None) -> None:
    """Let a shadow go; prints which model it was, as JSON."""
    with client_of(server, token) as client:
        print_json(client.remove_shadow_encoder(session, encoder))
