"""`neuroloop token`: who may use a server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuroloop.cli_errors import one_line_errors
from neuroloop.tokens import Role, TokenFile

app = typer.Typer(help="Access tokens: who may use a server, and as what.", no_args_is_help=True)

Config = Annotated[
    Path | None, typer.Option("--config", metavar="CONFIG.yaml", help="The server whose `folder` holds the tokens.")
]


def _tokens(config: Path | None) -> TokenFile:
    from neuroloop.server_config import load, parse

    return TokenFile((parse({}) if config is None else load(config)).folder)


@app.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose it is, as the audit log will say.")],
    role: Annotated[Role, typer.Option(help="viewer looks, operator drives sessions, admin does everything.")],
    config: Config = None,
) -> None:
    """Make a token and print it; it is kept nowhere, and cannot be shown again."""
    with one_line_errors():
        typer.echo(_tokens(config).create(name, role))


@app.command("list")
def list_tokens(config: Config = None) -> None:
    """Whose tokens there are."""
    with one_line_errors():
        for token in _tokens(config).all():
            typer.echo(f"{token.name}\t{token.role}\t{token.created:%Y-%m-%d %H:%M}")


@app.command()
def revoke(name: Annotated[str, typer.Argument(help="Whose.")], config: Config = None) -> None:
    """Let nobody in with this token any more."""
    with one_line_errors():
        _tokens(config).revoke(name)
