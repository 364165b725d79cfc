"""The example configurations that come with neuroloop."""

from __future__ import annotations

from pathlib import Path

from neuroloop.errors import NotFound

PLACES = (Path(__file__).parent / "configs", Path(__file__).parents[2] / "configs")  # installed; in a checkout


def example(name: str) -> Path:
    """The file of an example, such as `demo`. Raises NotFound."""
    for folder in PLACES:
        path = folder / f"{name}.yaml"
        if path.is_file():
            return path
    raise NotFound(f"configuration {name!r} is missing from this installation; install neuroloop again")
