"""`neuroloop models`: the model registry of a running server."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from neuroloop.errors import ConfigError
from neuroloop.server_commands import LOCAL, Model, Server, Token, client_of, print_json, read_bytes

app = typer.Typer(help="Models: names, numbered versions, aliases.", no_args_is_help=True)

Version = Annotated[int, typer.Argument(min=1, help="Number of the version.")]
Alias = Annotated[str, typer.Argument(help="Such as champion.")]


@app.command("list")
def list_models(server: Server = LOCAL, token: Token = None) -> None:
    """Every model: name, newest version, aliases."""
    with client_of(server, token) as client:
        for model in client.models():
            newest = str(max(model["versions"], default="-"))
            aliases = " ".join(f"{alias}={number}" for alias, number in model["aliases"].items())
            typer.echo("\t".join((model["name"], newest, aliases)))


@app.command()
def show(model: Model, server: Server = LOCAL, token: Token = None) -> None:
    """The versions of a model with everything that is known of them, as JSON."""
    with client_of(server, token) as client:
        print_json(client.versions(model))


@app.command()
def upload(
    model: Model,
    weights: Annotated[Path, typer.Argument(metavar="WEIGHTS.safetensors")],
    description: Annotated[str, typer.Option(help="What to remember of it.")] = "",
    parent: Annotated[int | None, typer.Option(min=1, help="Version that it was made from.")] = None,
    server: Server = LOCAL,
    token: Token = None,
) -> None:
    """Make a version of a file of weights, and print its number."""
    with client_of(server, token) as client:
        document = {"description": description} | ({} if parent is None else {"parent": parent})
        typer.echo(client.upload_model(model, read_bytes(weights), **document)["version"])


@app.command()
def download(
    model: Model,
    version: Version,
    file: Annotated[Path, typer.Argument(metavar="FILE.safetensors", help="Written; must not be there yet.")],
    server: Server = LOCAL,
    token: Token = None,
) -> None:
    """Fetch the file of a version."""
    with client_of(server, token) as client:
        weights = client.weights(model, version)
        try:
            with file.open("xb") as out:
                out.write(weights)
        except OSError as error:
            raise ConfigError(f"{file}: cannot be written: {error.strerror}") from error


@app.command()
def alias(model: Model, alias: Alias, version: Version, server: Server = LOCAL, token: Token = None) -> None:
    """Point an alias to a version; sessions that follow it exchange their decoder. Prints what happened, as JSON."""
    with client_of(server, token) as client:
        print_json(client.move_alias(model, alias, version))


@app.command()
def delete(
    model: Model,
    version: Annotated[int | None, typer.Argument(min=1, help="Of one version; all by default.")] = None,
    server: Server = LOCAL,
    token: Token = None,
) -> None:
    """Delete a version, or a model with all of them; refused while one is in use."""
    with client_of(server, token) as client:
        if version is None:
            client.delete_model(model)
        else:
            client.delete_version(model, version)
