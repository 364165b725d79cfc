"""`neuroloop recordings`: those of a server, and the files themselves."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from neuroloop.cli_errors import one_line_errors
from neuroloop.errors import ConfigError, NeuroloopError
from neuroloop.server_commands import LOCAL, Server, Session, Token, client_of, print_json

if TYPE_CHECKING:
    from neuroloop.recording.spike_times import SpikeTimes

app = typer.Typer(help="Recordings: start, stop, look at, check, repair, hand over.", no_args_is_help=True)

File = Annotated[Path, typer.Argument(metavar="FILE.xdf")]
ROWS = 1 << 14  # of a stream, read at once


@app.command("list")
def list_recordings(server: Server = LOCAL, token: Token = None) -> None:
    """Every recording of a server, the newest first: name, bytes, when it last grew, the session that records."""
    with client_of(server, token) as client:
        for one in client.recordings():
            typer.echo(f"{one['name']}\t{one['bytes']}\t{one['modified']}\t{one['recorded_by'] or '-'}")


@app.command()
def start(session: Session, server: Server = LOCAL, token: Token = None) -> None:
    """Record a session from now on; prints the recording's name."""
    with client_of(server, token) as client:
        typer.echo(client.start_recording(session)["name"])


@app.command()
def stop(session: Session, server: Server = LOCAL, token: Token = None) -> None:
    """Close the file of a session's recording; prints what is on the disk, as JSON."""
    with client_of(server, token) as client:
        print_json(client.stop_recording(session))


@app.command()
def show(
    recording: Annotated[str, typer.Argument(help="A file, or the name of a recording of the server.")],
    server: Server = LOCAL,
    token: Token = None,
) -> None:
    """The streams of a recording, the session's configuration, what it lacks, as JSON."""
    from neuroloop.recording.description import describe

    if Path(recording).is_file():
        with one_line_errors():
            print_json(describe(Path(recording)))
        return
    with client_of(server, token) as client:
        print_json(client.recording(recording))


@app.command()
def verify(recording: File) -> None:
    """Read every sample of a file; exit code 1 if it is damaged, torn, or lacks something by its own table."""
    from neuroloop.recording.description import losses
    from neuroloop.recording.reader import open_xdf

    with one_line_errors(), open_xdf(recording) as file:
        troubles = [str(damage) for damage in file.damage]
        for stream in file.streams:
            for first in range(0, stream.sample_count, ROWS):
                stream.read(first, first + ROWS)
            if stream.footer is None:
                troubles.append(f"stream {stream.name!r} has no footer: neuroloop recordings repair writes it")
        for lost in losses(file):
            what = "samples" if lost["what"] == "samples" else f"messages ({lost['kind']})"
            troubles.append(f"{lost['count']} {what} are not in it: {lost['why']}")
        samples = sum(stream.sample_count for stream in file.streams)
        typer.echo(f"{recording}: {len(file.streams)} streams, {samples} samples")
    for trouble in troubles:
        typer.echo(trouble)
    if troubles:
        raise typer.Exit(1)


@app.command()
def repair(recording: File) -> None:
    """Close a file properly that a crash left open: cut off what is torn, write the footers."""
    from neuroloop.recording.repair import repair as close

    with one_line_errors():
        done = close(recording)
    if not done.cut and not done.footers:
        typer.echo(f"{recording}: it is whole")
    if done.cut:
        typer.echo(f"{recording}: {done.cut} bytes cut off at the end, kept in {done.kept}")
    if done.footers:
        typer.echo(f"{recording}: footers written for {', '.join(done.footers)}")
    for damage in done.damage:
        typer.echo(f"{recording}: {damage} (left as it is)")


@app.command()
def export(
    recording: File,
    target: Annotated[
        Path,
        typer.Argument(
            metavar="TARGET", help="NAME_raw.fif for MNE, NAME.nwb for NWB; with --bids the data set's folder."
        ),
    ],
    stream: Annotated[
        str | None, typer.Option(help="Name of the stream, where there are several; NWB takes all by default.")
    ] = None,
    subject: Annotated[
        list[str] | None,
        typer.Option(help="Four of them: id=M7, species=Mus musculus, age=P90D, sex=F (or M, O, U); or none (NWB)."),
    ] = None,
    bids: Annotated[
        str | None, typer.Option(help="Name the NWB file as BIDS does: sub-01[_ses-02]_task-reach[_acq-a][_run-1].")
    ] = None,
    units: Annotated[
        bool, typer.Option(help="Replay a broadband session for the times of its spikes, which takes a while (NWB).")
    ] = True,
) -> None:
    """Hand a recording over to other programs.

    MNE gets the samples of a stream, with markers as annotations. NWB gets every stream of numbers, the electrodes,
    markers, and of a session its labels as trials, its rates, its predictions and its spikes.
    """
    from neuroloop.recording import to_mne, to_nwb

    with one_line_errors():
        if bids is not None:
            target = _bids(recording, target, bids, stream)
        if target.suffix not in (".fif", ".nwb"):
            raise ConfigError(f"target: expected a name that ends in .fif or .nwb, got {str(target)!r}")
        if target.exists():
            raise ConfigError(f"target: {target} is there already; choose another name")
        if target.suffix == ".nwb":
            to_nwb(recording, target, stream, _pairs(subject) if subject else None, _spikes if units else None)
        elif subject:
            raise ConfigError("subject: is only for a target that ends in .nwb")
        else:
            to_mne(recording, stream).save(target, verbose="error")
    typer.echo(str(target))


def _spikes(recording: Path) -> SpikeTimes | None:
    """None where they can't be had; standard error says why."""
    from neuroloop.logs import configure_log
    from neuroloop.recording.spike_times import spike_times

    configure_log("warning")
    try:
        return spike_times(recording)
    except NeuroloopError as error:
        typer.echo(f"without units: {error}", err=True)
        return None


def _pairs(texts: list[str]) -> dict[str, str]:
    """Raises ConfigError."""
    pairs = [text.partition("=") for text in texts]
    for (key, equals, value), text in zip(pairs, texts, strict=True):
        if not (key and equals and value):
            raise ConfigError(f"subject: expected key=value, as age=P30Y; got {text!r}")
    return {key: value for key, _, value in pairs}


def _bids(recording: Path, root: Path, entities: str, stream: str | None) -> Path:
    """The target. Raises ConfigError, ModelError."""
    from neuroloop.recording.bids import bids_path
    from neuroloop.recording.nwb_export import chosen_streams
    from neuroloop.recording.reader import open_xdf

    with open_xdf(recording) as file:
        types = {one.info.type for one in chosen_streams(file, stream)}
    if len(types) != 1:
        raise ConfigError(
            f"bids: streams of the types {', '.join(sorted(types))} go into different files; name a stream"
        )
    return bids_path(root, entities, types.pop())
