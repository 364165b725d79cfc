"""Two label timelines one above the other: as one HTML file without anything from elsewhere, or as PNG (matplotlib)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from io import BytesIO

from neuroloop.errors import ModelError
from neuroloop.recording.what_if import Comparison, Segment, Side

WIDTH, BAR, GAP = 1200, 36, 26
COLOURS = ("#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#bbbbbb", "#000000")  # Paul Tol's bright
ROWS: tuple[tuple[str, Callable[[Segment], str | None]], ...] = (
    ("meant", lambda segment: segment.meant),
    ("recorded", lambda segment: segment.recorded),
    ("replayed", lambda segment: segment.replayed),
)


def picture(comparison: Comparison, title: str) -> str:
    """The HTML document."""
    segments = comparison.segments
    scale = WIDTH / max(segments[-1].end, 1e-9)
    colours = _colours(segments)
    parts = []
    for row, (name, of) in enumerate(ROWS):
        top = row * (BAR + GAP) + GAP
        parts.append(f'<text x="0" y="{top - 6}">{name}</text>')
        for segment in segments:
            label = of(segment)
            if label is None:
                continue
            width = max(0.5, (segment.end - segment.start) * scale)
            tip = escape(f"{label}, {segment.start:.2f} to {segment.end:.2f} s")
            place = f'x="{segment.start * scale:.2f}" y="{top}" width="{width:.2f}" height="{BAR}"'
            parts.append(f'<rect {place} fill="{colours[label]}"><title>{tip}</title></rect>')
    height = len(ROWS) * (BAR + GAP) + GAP
    legend = "".join(
        f'<span style="border-left: 1em solid {colour}; padding: 0 1em 0 .3em">{escape(label)}</span>'
        for label, colour in colours.items()
    )
    return (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{escape(title)}</title>'
        '<body style="font: 15px sans-serif; margin: 2em; color: #222; background: #fff">'
        f"<h1>{escape(title)}</h1><p>{escape(', '.join(summary(comparison)))}</p>"
        f'<svg width="{WIDTH}" height="{height}" role="img" aria-label="label timelines">{"".join(parts)}</svg>'
        f"<p>{legend} 0 to {segments[-1].end:.1f} s</p></body></html>\n"
    )


def png(comparison: Comparison, title: str) -> bytes:
    """The same as a PNG file. Raises ModelError where matplotlib is not installed."""
    try:
        from matplotlib.figure import Figure
        from matplotlib.patches import Patch
    except ImportError as error:
        raise ModelError("a PNG needs matplotlib: pip install matplotlib; or draw HTML, which needs nothing") from error
    figure = Figure(figsize=(WIDTH / 100, 3), dpi=100, layout="constrained")
    axes = figure.subplots()
    colours = _colours(comparison.segments)
    for row, (_, of) in enumerate(ROWS):
        shown = [(one, label) for one in comparison.segments if (label := of(one)) is not None]
        spans = [(one.start, one.end - one.start) for one, _ in shown]
        axes.broken_barh(spans, (row - 0.3, 0.6), facecolors=[colours[label] for _, label in shown])
    axes.set_yticks(range(len(ROWS)), [name for name, _ in ROWS])
    axes.set_ylim(len(ROWS) - 0.5, -0.5)
    axes.set_xlim(0, comparison.segments[-1].end)
    axes.set_xlabel("seconds")
    axes.set_title(", ".join(summary(comparison)), fontsize="medium")
    figure.suptitle(title, parse_math=False)
    handles = [Patch(color=colour, label=f"\u200b{label}") for label, colour in colours.items()]
    if handles:  # a label that begins with _ is hidden, and so has a character of no width before it
        legend = figure.legend(handles=handles, loc="outside right upper")
        for text in legend.get_texts():
            text.set_parse_math(False)
    made = BytesIO()
    figure.savefig(made, format="png")
    return made.getvalue()


def _colours(segments: Sequence[Segment]) -> dict[str, str]:
    labels = sorted({label for segment in segments for _, of in ROWS if (label := of(segment)) is not None})
    return {label: COLOURS[number % len(COLOURS)] for number, label in enumerate(labels)}


def summary(comparison: Comparison) -> list[str]:
    """The figures, as sentences."""
    agreement = "no bin has a label in both" if comparison.agreement is None else f"{comparison.agreement:.1%} agree"
    return [
        f"{agreement} ({comparison.agreed} of {comparison.compared} bins)",
        f"accuracy against the labels {_share(comparison.recorded)} then, {_share(comparison.replayed)} now",
    ]


def _share(side: Side) -> str:
    return "unknown" if side.accuracy is None else f"{side.accuracy:.1%} of {side.judged}"
