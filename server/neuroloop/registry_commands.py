"""`neuroloop registry`: whether what a server keeps of its models is whole."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path
from typing import Annotated

import typer

from neuroloop.cli_errors import one_line_errors
from neuroloop.errors import NotFound

app = typer.Typer(help="The model registry of a server.", no_args_is_help=True)


@app.callback()
def _registry() -> None:
    """Makes `verify` a command of its own name although it is the only one."""


@app.command()
def verify(
    config: Annotated[
        Path | None,
        typer.Argument(metavar="[CONFIG.yaml]", help="The server whose `folder` and `registry` to look at."),
    ] = None,
    repair: Annotated[bool, typer.Option("--repair", help="Remove files that belong to no version.")] = False,
    min_age: Annotated[
        float, typer.Option(min=0, help="Seconds; --repair leaves younger files, which someone may be uploading.")
    ] = 3600.0,
) -> None:
    """Check every version, its weights and every alias; exit code 1 if something is wrong. Servers may be running."""
    from neuroloop.registry.registry import Registry
    from neuroloop.registry.verify import collect, verify
    from neuroloop.server_config import load, parse

    with one_line_errors():
        settings = parse({}) if config is None else load(config)
        folder = settings.folder / "registry"
        if not folder.is_dir():
            raise NotFound(f"no registry in {settings.folder}; a server makes one when it starts")
        with closing(Registry(folder, settings.registry.url)) as registry:
            removed = collect(registry, min_age) if repair else None
            report = verify(registry)
    for fault in report.faults:
        typer.echo(fault, err=True)
    for digest in report.orphans:
        typer.echo(f"blob {digest}: belongs to no version")
    left = len(report.orphans) + report.unfinished
    done = "" if removed is None else f", {removed} removed"
    typer.echo(f"versions: {report.versions}; faults: {len(report.faults)}; files of no version: {left}{done}")
    if report.faults:
        raise typer.Exit(1)
