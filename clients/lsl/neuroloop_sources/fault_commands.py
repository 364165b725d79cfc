"""`neuroloop faults`, also as `python -m neuroloop_sources faults`."""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import asdict
from typing import Annotated, Any

import typer

from neuroloop_sources.faults.kinds import KINDS
from neuroloop_sources.signals import one_line_errors, stop_on_signal

ALL, NONE = "all", "none"


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
    session: Annotated[
        str | None,
        typer.Option(help="Of a server, with no bin yet: say at the end whether it accounts for every sample."),
    ] = None,
    url: Annotated[str, typer.Option(help="Of the server.")] = "http://127.0.0.1:8765",
    token: Annotated[str | None, typer.Option(envvar="NEUROLOOP_TOKEN", help="Where the server asks for one.")] = None,
) -> None:
    """Pass an LSL stream on with faults; each is one line of JSON, and a marker on NAME-faults.

    With --session the exit code is 1 where a sample is missing, or too much, without an event that says so.
    """
    from neuroloop_sources.faults import proxy

    kinds = list(KINDS) if fault == ALL else [] if fault == NONE else [kind.strip() for kind in fault.split(",")]
    passed_on: dict[str, Any] = {}

    def ready(facts: dict[str, Any]) -> None:
        passed_on.update(facts)
        _print({"ready": True, **facts})

    with one_line_errors(), ExitStack() as stack:
        stop = stack.enter_context(stop_on_signal())
        if session is not None:
            from neuroloop_client import Client
            from neuroloop_sources.faults import witness

            client = stack.enter_context(Client(url, token=token))
            witness.check_fresh(client, session)
            seen = stack.enter_context(witness.witnessing(client, session))
        sent = proxy.run(
            source,
            name,
            kinds,
            stop=stop,
            seconds=seconds,
            rounds=rounds,
            seed=seed,
            every_s=every,
            wait_for_consumers=wait or session is not None,
            ready=ready,
            tell=_print,
        )
        _print({"ended": True, **sent.told()})
        if session is not None and not stop.is_set():
            status = witness.final_status(client, session, seen)
            account = seen.account(sent, passed_on["nominal_srate"], status["stream"]["samples"])
            _print({"account": asdict(account)})
            raise typer.Exit(0 if account.adds_up else 1)


def _print(facts: dict[str, Any]) -> None:
    print(json.dumps(facts), flush=True)
