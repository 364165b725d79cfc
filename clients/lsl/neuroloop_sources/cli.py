"""`neuroloop simulate` and `neuroloop play`, also as `python -m neuroloop_sources simulate` and `... play`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from neuroloop_sources import player, simulator
from neuroloop_sources.errors import SourceError
from neuroloop_sources.fault_commands import faults
from neuroloop_sources.loaders import open_source
from neuroloop_sources.settings import SimulatorSettings
from neuroloop_sources.signals import one_line_errors, stop_on_signal
from neuroloop_sources.stream import Ready
from neuroloop_sources.truth import Truth

app = typer.Typer(
    help="Sources to stream from: a simulator with known truth, a player of recordings.", no_args_is_help=True
)
app.command()(faults)
DEFAULT = SimulatorSettings()

Wait = Annotated[bool, typer.Option("--wait", help="Begin when somebody receives the stream.")]
Speed = Annotated[float, typer.Option(help="Times real time; timestamps keep the nominal sample period.")]
AsJson = Annotated[bool, typer.Option("--json", help="Say that the stream has begun as one line of JSON.")]
Blocking = Annotated[bool, typer.Option("--blocking", help="Cheaper transport; a stalled consumer stalls the source.")]


@app.command()
def simulate(
    name: Annotated[str, typer.Option(help="Of the LSL stream; its markers are on NAME-markers.")] = DEFAULT.name,
    source_id: Annotated[str, typer.Option(help="Of the LSL stream.")] = DEFAULT.source_id,
    channel_count: Annotated[int, typer.Option(help="Electrodes.")] = DEFAULT.channel_count,
    nominal_srate: Annotated[float, typer.Option(help="Hz.")] = DEFAULT.nominal_srate,
    format: Annotated[str, typer.Option(help="float32 or int16, microvolts.")] = DEFAULT.format,
    chunk_ms: Annotated[float, typer.Option(help="Pushed at once.")] = DEFAULT.chunk_ms,
    trial_s: Annotated[float, typer.Option(help="Time of one direction.")] = DEFAULT.trial_s,
    seed: Annotated[int, typer.Option(help="Of everything that is random.")] = DEFAULT.seed,
    unit_count: Annotated[int | None, typer.Option(help="Neurons; by default one per channel.")] = DEFAULT.unit_count,
    concentration: Annotated[float, typer.Option(help="Kappa of the von Mises tuning.")] = DEFAULT.concentration,
    baseline_hz: Annotated[float, typer.Option(help="Median of the lowest rates.")] = DEFAULT.baseline_hz,
    baseline_spread: Annotated[
        float, typer.Option(help="Of the logarithm of the lowest rates.")
    ] = DEFAULT.baseline_spread,
    modulation: Annotated[float, typer.Option(help="Added when preferred, in baselines.")] = DEFAULT.modulation,
    spike_uv: Annotated[float, typer.Option(help="Median depth of spikes.")] = DEFAULT.spike_uv,
    noise_uv: Annotated[float, typer.Option(help="Sigma of each channel's own noise.")] = DEFAULT.noise_uv,
    common_mode_uv: Annotated[float, typer.Option(help="Sigma of the shared noise.")] = DEFAULT.common_mode_uv,
    line_uv: Annotated[float, typer.Option(help="Amplitude of the line's hum.")] = DEFAULT.line_uv,
    line_hz: Annotated[float, typer.Option(help="50 or 60.")] = DEFAULT.line_hz,
    seconds: Annotated[float | None, typer.Option(help="End after so much of the session.")] = None,
    speed: Speed = 1.0,
    wait: Wait = False,
    blocking: Blocking = False,
    truth: Annotated[Path | None, typer.Option(help="At the end, write spikes and labels to this .npz.")] = None,
    as_json: AsJson = False,
) -> None:
    """Stream a simulated electrode array: tuned units, eight reach directions, markers; everything known."""
    with one_line_errors():
        settings = SimulatorSettings(
            name=name,
            source_id=source_id,
            channel_count=channel_count,
            nominal_srate=nominal_srate,
            format=format,
            chunk_ms=chunk_ms,
            trial_s=trial_s,
            seed=seed,
            unit_count=unit_count,
            concentration=concentration,
            baseline_hz=baseline_hz,
            baseline_spread=baseline_spread,
            modulation=modulation,
            spike_uv=spike_uv,
            noise_uv=noise_uv,
            common_mode_uv=common_mode_uv,
            line_uv=line_uv,
            line_hz=line_hz,
        )
        if truth is not None and not truth.parent.is_dir():
            raise SourceError(f"truth: {truth.parent} is no directory; make it first")
        with stop_on_signal() as stop:
            samples = simulator.run(
                settings,
                stop=stop,
                ready=_announce(asdict(settings), as_json),
                wait_for_consumers=wait,
                speed=speed,
                seconds=seconds,
                blocking=blocking,
            )
        if truth is not None:
            Truth(settings).save(truth, -(-samples // settings.trial_samples))


@app.command()
def play(
    source: Annotated[str, typer.Argument(help="An .xdf, .edf or .npz file, or 'eegbci'.")],
    subject: Annotated[int, typer.Option(help="eegbci: 1 to 109.")] = 1,
    run: Annotated[
        list[int] | None, typer.Option(help="eegbci: run, 1 to 14, may be given often; .npz: its run.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Spike recordings: bins per second.")] = None,
    stream: Annotated[str | None, typer.Option(help=".xdf: its name or number, where there are several.")] = None,
    markers: Annotated[
        str | None, typer.Option(help=".xdf: name or number of their stream; by default all of the type Markers.")
    ] = None,
    name: Annotated[str | None, typer.Option(help="Of the LSL stream; by default the recording's.")] = None,
    source_id: Annotated[str | None, typer.Option(help="Of the LSL stream; by default the recording's name.")] = None,
    format: Annotated[str | None, typer.Option(help="LSL format; by default the recording's.")] = None,
    chunk: Annotated[int | None, typer.Option(help="Samples pushed at once; by default about 20 ms.")] = None,
    loop: Annotated[bool, typer.Option("--loop", help="Begin again at the end.")] = False,
    recorded_times: Annotated[bool, typer.Option("--recorded-times", help="Send the recorded timestamps.")] = False,
    speed: Speed = 1.0,
    wait: Wait = False,
    blocking: Blocking = False,
    as_json: AsJson = False,
) -> None:
    """Stream a recording."""
    with one_line_errors():
        recording = open_source(source, subject=subject, runs=run, rate=rate, stream=stream, markers=markers)
        stream_name = name or recording.name
        facts = {
            "name": stream_name,
            "source_id": source_id or stream_name,
            "channel_count": len(recording.channels),
            "nominal_srate": recording.nominal_srate,
            "format": format or recording.format,
            "seconds": recording.sample_count / recording.nominal_srate,
        }
        with stop_on_signal() as stop:
            player.play(
                recording,
                name=stream_name,
                source_id=source_id or stream_name,
                format=format,
                chunk=chunk,
                speed=speed,
                loop=loop,
                recorded_times=recorded_times,
                stop=stop,
                ready=_announce(facts, as_json),
                wait_for_consumers=wait,
                blocking=blocking,
            )


def _announce(facts: dict[str, Any], as_json: bool) -> Ready:
    """What is printed once the LSL time of sample 0 is known."""

    def ready(start_time: float) -> None:
        if as_json:
            print(json.dumps({"ready": True, **facts, "start_time": start_time}), flush=True)
            return
        Console(highlight=False).print(
            f"streaming '{facts['name']}' (source_id '{facts['source_id']}'): {facts['channel_count']} channels at "
            f"{facts['nominal_srate']:g} Hz, {facts['format']}, from LSL time {start_time:.3f}; Ctrl-C ends it",
            markup=False,
            soft_wrap=True,
        )

    return ready
