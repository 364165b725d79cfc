"""The command `neuroloop`. Modules are imported by the command that needs them, so that each starts quickly."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from neuroloop import (
    encoder_commands,
    fit_commands,
    importing,
    model_commands,
    recording_commands,
    registry_commands,
    replay_commands,
    session_commands,
    token_commands,
)
from neuroloop.cli_errors import one_line_errors
from neuroloop.doctor_commands import doctor
from neuroloop_sources.cli import play, simulate
from neuroloop_sources.fault_commands import faults

app = typer.Typer(
    help="Real-time closed-loop BCI server: LSL in, decoded labels out over WebSocket and LSL.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
config_app = typer.Typer(help="Configurations: one YAML file is one server.", no_args_is_help=True)
app.add_typer(config_app, name="config")
schema_app = typer.Typer(help="Documents that describe the messages of a stream.", no_args_is_help=True)
app.add_typer(schema_app, name="schema")
app.add_typer(token_commands.app, name="token")
app.add_typer(registry_commands.app, name="registry")
app.add_typer(session_commands.app, name="sessions")
app.add_typer(encoder_commands.app, name="encoders")
app.add_typer(session_commands.labels_app, name="labels")
app.add_typer(model_commands.app, name="models")
app.add_typer(fit_commands.app, name="fits")
app.add_typer(recording_commands.app, name="recordings")
app.command()(simulate)
app.command()(play)
app.command()(faults)
app.command()(replay_commands.replay)
app.command()(doctor)

ConfigFile = Annotated[Path, typer.Argument(metavar="CONFIG.yaml", help="The server's configuration.")]


@app.command()
def serve(
    config: ConfigFile,
    host: Annotated[str | None, typer.Option(help="Address to listen on; beyond loopback only with tokens.")] = None,
    port: Annotated[int | None, typer.Option(help="0: any free port.")] = None,
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.")] = None,
) -> None:
    """Run the sessions of a configuration, and serve them over HTTP and WebSocket."""
    with importing.for_good():
        from neuroloop.api.server import serve as run
        from neuroloop.server_config import load, parse

    with one_line_errors():
        given: dict[str, Any] = {"host": host, "port": port, "log_level": log_level}
        settings = load(config).model_dump(mode="json") | {k: v for k, v in given.items() if v is not None}
        run(parse(settings))


@app.command(name="compile")
def compile_all() -> None:
    """Compile everything that sessions run, so that the first one starts as fast as those after it."""
    from neuroloop.session.compile_ahead import compile_ahead

    with one_line_errors():
        for name in compile_ahead():
            print(name, flush=True)


@app.command()
def demo(
    seconds: Annotated[float | None, typer.Option(help="End after so many seconds, with a summary.")] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the summary as one line of JSON, and no table.")
    ] = False,
    port: Annotated[int, typer.Option(help="Of the server; 0: any free port.")] = 8765,
    dataset: Annotated[
        str | None, typer.Option(help="Play a recording instead: eegbci, or an .edf, .npz or .xdf file.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the simulator.")] = 0,
) -> None:
    """Start a server and a simulated array, and watch it learn eight reach directions."""
    from neuroloop.demo.run import run

    with one_line_errors():
        run(seconds=seconds, as_json=as_json, port=port, dataset=dataset, seed=seed)


@app.command()
def streams(
    timeout: Annotated[float, typer.Option(min=0.1, max=60, help="Seconds to wait for answers.")] = 1.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON list.")] = False,
) -> None:
    """List the LSL streams on the network."""
    from dataclasses import asdict

    from rich.console import Console
    from rich.table import Table

    from neuroloop.session.streams import find_all

    found = find_all(timeout)
    if as_json:
        print(json.dumps([asdict(stream) for stream in found]))
        return
    if not found:
        typer.echo(f"no LSL stream answered within {timeout:g} s")
        return
    table = Table("name", "type", "source_id", "host", "channels", "Hz", "format")
    for stream in found:
        rate = f"{stream.nominal_srate:g}" if stream.nominal_srate else "irregular"
        table.add_row(
            stream.name, stream.type, stream.source_id, stream.hostname, str(stream.channel_count), rate, stream.format
        )
    Console().print(table)


@config_app.command("schema")
def config_schema() -> None:
    """Print the JSON schema of a configuration."""
    from neuroloop.server_config import ServerSettings

    print(json.dumps(ServerSettings.model_json_schema(), indent=2))


@config_app.command("check")
def config_check(config: ConfigFile) -> None:
    """Say whether a configuration can work: exit code 0, or 1 and what is wrong with which key."""
    from neuroloop.server_config import load

    with one_line_errors():
        settings = load(config)
    names = ", ".join(session.name for session in settings.sessions) or "none"
    typer.echo(f"{config}: valid; sessions: {names}")


@config_app.command("show")
def config_show(config: ConfigFile) -> None:
    """Print a configuration with every default filled in."""
    import yaml

    from neuroloop.server_config import load

    with one_line_errors():
        yaml.safe_dump(load(config).model_dump(mode="json"), sys.stdout, sort_keys=False)


@schema_app.command("messages")
def schema_messages() -> None:
    """Print the JSON schema of the messages that a session's stream sends."""
    from neuroloop.api.message_schema import message_schema

    print(json.dumps(message_schema(), indent=2))


@schema_app.command("asyncapi")
def schema_asyncapi() -> None:
    """Print the stream as an AsyncAPI 3 document."""
    from neuroloop.api.message_schema import asyncapi

    print(json.dumps(asyncapi(), indent=2))
