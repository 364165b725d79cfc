"""`neuroloop faults`, also as `python -m neuroloop_sources faults`."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

from neuroloop_sources.faults.kinds import KINDS
from neuroloop_sources.signals import one_line_errors, stop_on_signal

ALL = "all"


def faults(
    source: Annotated[str, typer.Option("--from", help="Name of the LSL stream that is passed on.")],
    name: Annotated[str, typer.Option("--to", help="Name, and source_id, under which it is passed on.")],
    fault: Annotated[
        str, typer.Option(help=f"Kinds, with commas between: {', '.join(KINDS)}; all; none passes everything on.")
    ] = ALL,
    seconds: Annotated[float | None, typer.Option(help="End after so long, and a moment without faults.")] = None,
    rounds: Annotated[int | None, typer.Option(help="End after every kind came so often, likewise.")] = None,
    seed: Annotated[int, typer.Option(help="Of the faults: which, when, how much.")] = 0,
    every: Annotated[float, typer.Option(help="Seconds from one fault to the next, on average.")] = 2.0,
    wait: Annotated[bool, typer.Option("--wait", help="Begin when somebody receives the stream.")] = False,
) -> None:
    """Pass an LSL stream on with faults; each is one line of JSON, and a marker on NAME-faults."""
    from neuroloop_sources.faults import proxy

    kinds = list(KINDS) if fault == ALL else [kind.strip() for kind in fault.split(",") if fault != "none"]
    with one_line_errors(), stop_on_signal() as stop:
        sent = proxy.run(
            source,
            name,
            kinds,
            stop=stop,
            seconds=seconds,
            seed=seed,
            every_s=every,
            rounds=rounds,
            wait_for_consumers=wait,
            ready=lambda facts: _print({"ready": True, **facts}),
            tell=_print,
        )
        _print({"ended": True, **sent.told()})


def _print(facts: dict[str, Any]) -> None:
    print(json.dumps(facts), flush=True)
