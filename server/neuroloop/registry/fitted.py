"""What a fit job made, as a version of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from neuroloop.registry.documents import Document
from neuroloop.registry.registry import Registry


def register_in(registry: Registry) -> Callable[[str, bytes, dict[str, Any]], int]:
    """A function for `training.jobs.FitJobs`: weights and what is known of the fit in, the version's number out."""

    def register(name: str, weights: bytes, result: dict[str, Any]) -> int:
        training = result["training"]
        document = Document(
            kind=result["kind"],
            settings=result["settings"] if result["kind"] == "lrr" else None,  # the other kinds' files have them
            parent=result["parent"],
            training_data=training["digest"],
            metrics=result["metrics"],
            metadata={"training": training},
        )
        return registry.add_version(name, weights, document, result["by"]).version

    return register
