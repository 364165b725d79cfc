"""`neuroloop replay`: a recorded session, run again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from neuroloop.cli_errors import one_line_errors

Recording = Annotated[Path, typer.Argument(metavar="REC.xdf", help="A recording that a session made.")]


def replay(
    recording: Recording,
    verify: Annotated[
        bool, typer.Option("--verify", help="Compare every prediction; exit code 1 if one differs.")
    ] = False,
    speed: Annotated[
        float | None, typer.Option(min=0.01, help="Times real time; by default as fast as it goes.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Run a recorded session again: the same code, with samples from the file.

    What is compared is everything but age_ms and latency_ms, which are of the clock. On a GPU, and on another kind of
    processor or with other versions of the libraries, the last digits may differ: the first difference is told.
    """
    from neuroloop.logs import configure_log
    from neuroloop.recording.verification import verify as check

    configure_log("warning")

    with one_line_errors():
        verdict = check(recording, speed)
    if as_json:
        typer.echo(json.dumps(verdict.plain()))
    else:
        typer.echo(
            f"{recording}: {verdict.data_s:.1f} s replayed in {verdict.seconds:.1f} s ({verdict.speed:.1f} x real time)"
        )
        if verify:
            same = "identical" if verdict.is_identical else f"{verdict.differing} differ, {verdict.missing} are missing"
            typer.echo(f"{verdict.predictions} predictions and {verdict.rates} rate vectors compared: {same}")
        for trouble in (verdict.first, verdict.ended):
            if verify and trouble is not None:
                typer.echo(str(trouble))
        if verdict.lost:
            typer.echo(f"the recording lacks {verdict.lost} samples, by its own table")
    if verify and not verdict.is_identical:
        raise typer.Exit(1)
