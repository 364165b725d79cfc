"""Metrics as text, in the exposition format of Prometheus (version 0.0.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Kind = Literal["counter", "gauge", "histogram"]


class Exposition:
    """Families of metrics, in the order in which they came; a family without a sample is left out."""

    def __init__(self) -> None:
        self._families: dict[str, list[str]] = {}

    def add(self, name: str, kind: Kind, about: str, value: float | None, **labels: str) -> None:
        """A sample of a counter, whose name ends in _total, or of a gauge. None: it is not known, and left out."""
        if value is not None:
            self._family(name, kind, about).append(_sample(name, value, labels))

    def add_histogram(
        self, name: str, about: str, edges: Sequence[float], counts: Sequence[int], total: float, **labels: str
    ) -> None:
        """counts: of each range up to an edge, and of what is beyond the last. total: the sum of all values."""
        lines = self._family(name, "histogram", about)
        so_far = 0
        for edge, count in zip((*map(_number, edges), "+Inf"), counts, strict=True):
            so_far += count
            lines.append(_sample(f"{name}_bucket", so_far, labels | {"le": edge}))
        lines.append(_sample(f"{name}_sum", total, labels))
        lines.append(_sample(f"{name}_count", so_far, labels))

    def _family(self, name: str, kind: Kind, about: str) -> list[str]:
        return self._families.setdefault(name, [f"# HELP {name} {_escaped(about)}", f"# TYPE {name} {kind}"])

    def text(self) -> str:
        return "".join(f"{line}\n" for line in _flat(self._families.values()))


def _flat(families: Iterable[list[str]]) -> Iterable[str]:
    return (line for family in families for line in family)


def _sample(name: str, value: float, labels: Mapping[str, str]) -> str:
    pairs = ",".join(f'{key}="{_escaped(text, quote=True)}"' for key, text in labels.items())
    return f"{name}{{{pairs}}} {_number(value)}" if pairs else f"{name} {_number(value)}"


def _number(value: float) -> str:
    return repr(value) if isinstance(value, int) else repr(float(value)).replace("inf", "Inf").replace("nan", "NaN")


def _escaped(text: str, *, quote: bool = False) -> str:
    text = text.replace("\\", r"\\").replace("\n", r"\n")
    return text.replace('"', r"\"") if quote else text
