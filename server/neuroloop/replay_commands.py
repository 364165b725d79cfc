"""`neuroloop replay`: a recorded session, run again."""

from __future__ import annotations

import json
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from neuroloop.cli_errors import one_line_errors
from neuroloop.errors import ConfigError
from neuroloop.server_commands import read_bytes

if TYPE_CHECKING:
    from neuroloop.recording.verification import Verdict
    from neuroloop.recording.what_if import Comparison, Model

SHOWN = 40  # rows of a table of timelines

Recording = Annotated[Path, typer.Argument(metavar="REC.xdf", help="A recording that a session made.")]


def replay(
    recording: Recording,
    verify: Annotated[
        bool, typer.Option("--verify", help="Exit code 1 if a prediction is not the same as the recorded one.")
    ] = False,
    speed: Annotated[
        float | None, typer.Option(min=0.01, help="Times real time; by default as fast as it goes.")
    ] = None,
    decoder: Annotated[
        str | None, typer.Option(help="Decode with this one instead: NAME@VERSION of the registry, or a file.")
    ] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", help="Another setting of the session: rereference.ridge=0.01")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="Configuration of the server whose registry has the decoder.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Draw both timelines of labels into this file.")] = None,
    png: Annotated[Path | None, typer.Option(help="The same as a PNG file (needs matplotlib).")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON document.")] = False,
) -> None:
    """Run a recorded session again, by the same code: to see that it does the same, or what it would have done.

    What is compared is everything but age_ms and latency_ms, which are of the clock. On a GPU, and on another kind of
    processor or with other versions of the libraries, the last digits may differ: the first difference is told. With
    --decoder or --set, both timelines of labels are shown side by side.
    """
    from neuroloop.logs import configure_log

    configure_log("warning")
    with one_line_errors():
        if decoder is None and not changes:
            _verify(recording, verify, speed, as_json)
            return
        if verify:
            raise ConfigError("--verify: another decoder, or another setting, is not what was recorded; leave one out")
        from neuroloop.recording.what_if import parse_changes, what_if

        model = None if decoder is None else _model(decoder, config)
        comparison = what_if(recording, model, parse_changes(changes or []), speed)
        _draw(comparison, f"{recording.stem}: {_said(comparison)}", html, png)
        if as_json:
            typer.echo(json.dumps(comparison.plain()))
        else:
            _show(comparison)


def _draw(comparison: Comparison, title: str, html: Path | None, png: Path | None) -> None:
    """Raises ModelError."""
    from neuroloop.recording import picture

    if html is not None:
        html.write_text(picture.picture(comparison, title))
    if png is not None:
        png.write_bytes(picture.png(comparison, title))


def _verify(recording: Path, verify: bool, speed: float | None, as_json: bool) -> None:
    from neuroloop.recording.verification import verify as check

    verdict = check(recording, speed)
    if as_json:
        typer.echo(json.dumps(verdict.plain()))
    else:
        _tell(recording, verdict)
    if verify and not verdict.is_identical:
        raise typer.Exit(1)


def _tell(recording: Path, verdict: Verdict) -> None:
    typer.echo(
        f"{recording}: {verdict.data_s:.1f} s replayed in {verdict.seconds:.1f} s ({verdict.speed:.1f} x real time)"
    )
    same = "identical" if verdict.is_identical else f"{verdict.differing} differ, {verdict.missing} are missing"
    encodings = f", {verdict.encodings} of encoders" if verdict.encodings else ""
    typer.echo(f"{verdict.predictions} predictions{encodings} and {verdict.rates} rate vectors compared: {same}")
    if verdict.unchecked:
        typer.echo(f"{verdict.unchecked} answers of encoders not compared: the recording has not what they rest on")
    if verdict.before:
        typer.echo(f"{verdict.before} of bins before {verdict.first_bin} came before the session's state was recorded")
    for trouble in (verdict.first, verdict.ended):
        if trouble is not None:
            typer.echo(str(trouble))
    if verdict.others and not verdict.is_identical:
        typer.echo(f"it was recorded with {'; '.join(verdict.others)}")
    if verdict.lost:
        typer.echo(f"the recording lacks {verdict.lost} samples, by its own table")


def _model(text: str, config: Path | None) -> Model:
    """Raises ConfigError, NotFound."""
    from neuroloop.recording.what_if import Model
    from neuroloop.registry.registry import Registry
    from neuroloop.server_config import load, parse

    name, at, version = text.rpartition("@")
    if not at:
        return Model(Path(text).stem, 1, read_bytes(Path(text)))
    settings = parse({}) if config is None else load(config)
    with closing(Registry(settings.folder / "registry", settings.registry.url)) as registry:
        found = registry.resolve(name, int(version) if version.isdecimal() else version)
        return Model(found.model, found.version, registry.weights(found.model, found.version))


def _said(comparison: Comparison) -> str:
    return ", ".join(f"{key}={value}" for key, value in comparison.changes.items())


def _show(comparison: Comparison) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    table = Table("", "recorded", _said(comparison))
    sides = comparison.recorded, comparison.replayed
    rows: dict[str, tuple[Any, Any]] = {
        "bins": (sides[0].bins, sides[1].bins),
        "bins with a label": (sides[0].labelled, sides[1].labelled),
        "accuracy against the labels": (_share(sides[0].accuracy), _share(sides[1].accuracy)),
        "ms to answer (replayed: to compute), p50": (sides[0].latency_ms["p50"], sides[1].latency_ms["p50"]),
        "ms to answer (replayed: to compute), p99": (sides[0].latency_ms["p99"], sides[1].latency_ms["p99"]),
    }
    for name, (then, now) in rows.items():
        table.add_row(name, str(then), str(now))
    console.print(table)
    typer.echo(f"agreement: {_share(comparison.agreement)} of {comparison.compared} bins that have a label in both")
    timeline = Table("from s", "to s", "meant", "recorded", "replayed")
    for segment in comparison.segments[:SHOWN]:
        texts = (one or "-" for one in (segment.meant, segment.recorded, segment.replayed))
        timeline.add_row(f"{segment.start:.2f}", f"{segment.end:.2f}", *texts)
    console.print(timeline)
    if len(comparison.segments) > SHOWN:
        typer.echo(f"... and {len(comparison.segments) - SHOWN} more; --json has all, --html and --png draw them")


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"
