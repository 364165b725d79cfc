"""`neuroloop doctor`: what is wrong here, and what to do about it."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from neuroloop.cli_errors import one_line_errors


def doctor(
    config: Annotated[
        Path | None, typer.Argument(metavar="[CONFIG.yaml]", help="The server whose streams and files to look for.")
    ] = None,
    timeout: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds to wait for answers of a stream.")] = 2.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list, at the end.")] = False,
) -> None:
    """Say why a stream is not seen, and whether clock, GPU, files and real time are as they must be; what to do about
    each. Exit code 1 if something keeps the server from working. Servers may be running.
    """
    from neuroloop.doctor.examination import examine
    from neuroloop.server_config import load, parse

    findings = []
    with one_line_errors():
        settings = parse({}) if config is None else load(config)
        for finding in examine(settings, timeout):
            findings.append(finding)
            if not as_json:
                typer.echo(f"{finding.state:8} {finding.check}: {finding.found}")
                if finding.advice:
                    typer.echo(f"         -> {finding.advice}.")
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings]))
    if any(finding.state == "fault" for finding in findings):
        raise typer.Exit(1)
