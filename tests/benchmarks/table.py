"""The table of `numerics`: a row per work, as text, as JSON and as Markdown."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

HEADINGS = ("work", "ours ms", "peer ms", "ratio", "floor ms", "distance", "peer")


@dataclass(frozen=True)
class Row:
    """Medians in milliseconds; None where there is none.

    peer: packages and versions, or what is missing and why. notes: agreement, parts, failures: sentences.
    """

    name: str
    ours_ms: float | None
    peer: str
    peer_ms: float | None
    floor_ms: float
    notes: Sequence[str] = field(default=())

    @property
    def ratio(self) -> float | None:
        """How many times longer the peer takes."""
        return self.peer_ms / self.ours_ms if self.peer_ms and self.ours_ms else None

    @property
    def distance(self) -> float | None:
        """How many times longer than the floor ours takes."""
        return self.ours_ms / self.floor_ms if self.ours_ms else None

    def cells(self) -> tuple[str, ...]:
        ratio, distance = ("-" if value is None else f"{value:.1f}" for value in (self.ratio, self.distance))
        times = (told_ms(value) for value in (self.ours_ms, self.peer_ms, self.floor_ms))
        ours, peer, floor = times
        return self.name, ours, peer, ratio, floor, distance, self.peer


def told_ms(value: float | None) -> str:
    """Three significant digits."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 1000 else f"{value:#.3g}".rstrip(".")


def missing(package: str, why: str) -> str:
    return f"{package}: missing ({why})"


def as_text(rows: Iterable[Row]) -> str:
    """Aligned columns, and the notes under each row."""
    rows = list(rows)
    lines = [HEADINGS, *(row.cells() for row in rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(HEADINGS) - 1)]

    def aligned(cells: Sequence[str]) -> str:
        numbers = "  ".join(f"{cell:>{width}}" for cell, width in zip(cells[1:-1], widths[1:], strict=True))
        return f"{cells[0]:{widths[0]}}  {numbers}  {cells[-1]}"

    return "\n".join([aligned(HEADINGS), *(aligned(row.cells()) for row in rows)])


def as_markdown(rows: Iterable[Row], facts: Mapping[str, str]) -> str:
    """What was measured on, the table, and the notes."""
    rows = list(rows)
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    lines += ["", f"| {' | '.join(HEADINGS)} |", f"|---|{'---:|' * (len(HEADINGS) - 2)}---|"]
    lines += [f"| {' | '.join(row.cells())} |" for row in rows]
    notes = [f"- `{row.name}`: {'; '.join(row.notes)}" for row in rows if row.notes]
    return "\n".join([*lines, *(["", "Agreement of both sides' results, and parts:", "", *notes] if notes else [])])


def write_json(rows: Iterable[Row], file: Path) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    names = ("name", "ours_ms", "peer", "peer_ms", "ratio", "floor_ms")
    file.write_text(json.dumps([{name: getattr(row, name) for name in names} for row in rows], indent=1) + "\n")


def write_section(file: Path, name: str, text: str) -> None:
    """Put text between the marks of a section of a file; at its end, with marks, where there are none yet."""
    start, end = f"<!-- {name}: written by the program -->", f"<!-- end of {name} -->"
    section = f"{start}\n\n{text}\n\n{end}"
    old = file.read_text() if file.exists() else ""
    before, found, rest = old.partition(start)
    if found:
        file.write_text(before + section + rest.partition(end)[2])
    else:
        file.write_text(f"{old.rstrip()}\n\n{section}\n".lstrip())
