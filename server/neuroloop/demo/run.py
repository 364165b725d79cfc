"""`neuroloop demo`: a server and a source as processes of their own, watched through the client like anybody would."""

from __future__ import annotations

import json
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import yaml
from pylsl import local_clock
from rich.console import RenderableType
from rich.live import Live

from neuroloop.demo.plan import Plan, recorded, simulated
from neuroloop.demo.processes import Process
from neuroloop.demo.score import Score
from neuroloop.demo.table import table
from neuroloop.demo.watch import Watcher
from neuroloop.errors import Unavailable
from neuroloop_client import Client, NeuroloopClientError
from neuroloop_sources.signals import stop_on_signal

READY_S = 90.0
REFRESH_S = 0.25
SETTLE_S = 1.0  # after the source ends, until every answer is here
ACCURACY = ("maxrate", "poisson", "maxrate_without_lrr", "ideal")


class Demo:
    """The server, the source, and what is known of them."""

    def __init__(self, plan: Plan, server: Process, source: Process, address: str) -> None:
        """Wait until the server is ready, subscribe, and wait until the source streams."""
        self.plan = plan
        self.address = address
        self._server = server
        self._source = source
        self._client = Client(address)
        self._wait_for_server()
        self.score = Score(plan.decoders.values(), plan.sessions[0]["bin_ms"] / 1000, plan.learning_trials)
        names = [session["name"] for session in plan.sessions]
        self.watchers = [Watcher(self._client, name, plan.names(name), self.score) for name in names]
        facts = source.json_line()
        self._trials = plan.trials(facts["start_time"])
        self._add_trials()
        for watcher in self.watchers:
            watcher.account.newest_s = 1.0 / facts["nominal_srate"]

    def _wait_for_server(self) -> None:
        deadline = time.monotonic() + READY_S
        while True:
            self._server.check()
            try:
                return self._client.check_ready()
            except NeuroloopClientError as error:
                if time.monotonic() > deadline:
                    raise Unavailable(f"the server was not ready within {READY_S:g} s: {error}") from error
            time.sleep(0.05)

    def _add_trials(self) -> None:
        """Let the score know the trials of the next seconds."""
        while self.score.known_until < local_clock() + 5.0:
            trial = next(self._trials, None)
            if trial is None:
                return
            self.score.add(trial)

    def step(self) -> bool:
        """Look after everything; returns whether the source still streams. Raises Unavailable if a part failed."""
        self._add_trials()
        self._server.check()
        for watcher in self.watchers:
            if watcher.failure:
                raise Unavailable(f"session {watcher.session}: {watcher.failure}")
        return self._source.running

    def table(self) -> RenderableType:
        """What is known now, for the terminal."""
        statuses, now = self._statuses(), local_clock()
        summary = self._summary(statuses, now)
        shares, last = self.score.so_far(now), self.score.last(now)
        return table(self.address, statuses[0]["stream"], summary, shares, last, self.plan.learning_trials)

    def summary(self) -> dict[str, Any]:
        """The line of `--json`. Bins and latency are what the client got; missed bins and gaps are those of all."""
        return self._summary(self._statuses(), local_clock())

    def _statuses(self) -> list[dict[str, Any]]:
        return [self._client.status(watcher.session) for watcher in self.watchers]

    def _summary(self, statuses: list[dict[str, Any]], now: float) -> dict[str, Any]:
        account = self.watchers[0].account
        shares = self.score.accuracy(now)
        return {
            "bins": account.bins,
            "missed_bins": sum(s["missed_bins"] for s in statuses) + sum(w.account.missed for w in self.watchers),
            "gaps": sum(s["gaps"] for s in statuses),
            "trials": len(self.score.complete(now)),
            "accuracy": {name: shares.get(name) for name in ACCURACY},
            "chance": round(1 / len(self.plan.classes), 4),
            "latency_ms": account.latency_ms(),
        }

    def end(self) -> None:
        for watcher in self.watchers:
            watcher.end()
        self._client.close()


def _show(demo: Demo, seconds: float | None, stop: threading.Event, *, quiet: bool) -> None:
    """Until the time is over, the source has ended, or somebody stops it; with a live table unless quiet."""
    deadline = None if seconds is None else time.monotonic() + seconds
    with ExitStack() as stack:
        live = None if quiet else stack.enter_context(Live(auto_refresh=False))
        while demo.step() and not stop.is_set():
            left = REFRESH_S if deadline is None else min(REFRESH_S, deadline - time.monotonic())
            if left <= 0:
                return
            stop.wait(left)
            if live is not None:
                live.update(demo.table(), refresh=True)
    stop.wait(SETTLE_S)


def run(*, seconds: float | None, as_json: bool, port: int, dataset: str | None, seed: int) -> None:
    """Run the demo and print its summary. Raises NeuroloopError where anything that it needs is missing."""
    try:
        summary = _run(seconds, port, dataset, seed, quiet=as_json)
    except NeuroloopClientError as error:
        raise Unavailable(str(error)) from error
    if as_json:
        print(json.dumps(summary))
    else:
        _tell(summary)


def _run(seconds: float | None, port: int, dataset: str | None, seed: int, *, quiet: bool) -> dict[str, Any]:
    plan = simulated(seed) if dataset is None else recorded(dataset)
    with stop_on_signal() as stop, ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="neuroloop-demo-")))
        config = folder / "demo.yaml"
        config.write_text(
            yaml.safe_dump({"port": port, "folder": str(folder), "outlive_s": 0, "sessions": plan.sessions})
        )
        server = stack.enter_context(Process("neuroloop", ["serve", str(config)]))
        address = server.line("neuroloop listening on ").split()[-1]
        source = stack.enter_context(Process("neuroloop_sources", plan.source))
        demo = Demo(plan, server, source, address)
        stack.callback(demo.end)
        _show(demo, seconds, stop, quiet=quiet)
        return demo.summary()


def _tell(summary: dict[str, Any]) -> None:
    latency = summary["latency_ms"]
    print()
    print("{bins} bins, {missed_bins} missed, {gaps} gaps, {trials} trials".format_map(summary))
    print(f"latency ms: p50 {latency['p50']}, p99 {latency['p99']}, max {latency['max']}")
    for name, share in summary["accuracy"].items():
        if share is not None:
            print(f"accuracy of {name}: {share:.3f} (chance {summary['chance']:.3f})")
