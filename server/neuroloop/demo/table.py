"""The demo's live table."""

from __future__ import annotations

from typing import Any

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from neuroloop.demo.score import Trial


def _number(value: float | None, form: str = ".2f") -> str:
    return "-" if value is None else format(value, form)


def _mark(answer: str | None, truth: str) -> Text:
    if answer is None:
        return Text("-", style="dim")
    return Text(answer, style="green" if answer == truth else "red")


def table(
    address: str,
    stream: dict[str, Any],
    summary: dict[str, Any],
    accuracy: dict[str, float | None],
    last: tuple[Trial, dict[str, str | None]] | None,
    learning: int,
) -> RenderableType:
    """stream: its health from `status`. summary: as the demo prints it. accuracy: of each decoder, so far.

    last: the last trial and the answers to it. learning: trials until answers count.
    """
    health = Table(title=f"neuroloop demo   {address}   Ctrl-C ends it", title_justify="left")
    for column in ("stream", "channels", "bins", "missed", "gaps", "latency p50 / p99 / max ms"):
        health.add_column(column)
    latency = summary["latency_ms"]
    rate = stream.get("nominal_srate")
    health.add_row(
        f"{stream.get('name') or '-'}: {stream.get('state', 'searching')}",
        "-" if rate is None else f"{stream['channel_count']} at {rate:g} Hz",
        str(summary["bins"]),
        str(summary["missed_bins"]),
        str(summary["gaps"]),
        " / ".join(_number(latency[key]) for key in ("p50", "p99", "max")),
    )
    decoders = Table(title=f"trials: {summary['trials']}, the first {learning} to learn", title_justify="left")
    decoders.add_column("decoder")
    decoders.add_column("last trial: " + ("-" if last is None else last[0].label))
    decoders.add_column(f"accuracy (chance {summary['chance']:.3f})")
    for name, share in accuracy.items():
        answer = Text("-", style="dim")
        if last is not None:
            answer = _mark(last[0].ideal if name == "ideal" else last[1].get(name), last[0].label)
        decoders.add_row(name, answer, _number(share, ".3f"))
    return Group(health, decoders)
