"""What a session is told when a fit is to be used; the sessions here only write it down."""

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from neuroloop.api.activation import activate_in
from neuroloop.api.hub import Hub
from neuroloop.models import decoder_files
from neuroloop.models.base import make_decoder
from neuroloop.models.lnp import LNP
from neuroloop.registry.registry import Registry
from neuroloop.signal.lrr import LRR
from neuroloop.training.job import Job
from neuroloop.training.request import FitRequest


class Process:
    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, Any]]] = []

    async def command(self, name: str, timeout: float = 5.0, **arguments: Any) -> dict[str, Any]:
        if name == "status":
            return {"time": 1.0}
        self.told.append((name, arguments))
        return {"bin": 41}


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(tmp_path)


def activate(registry: Registry, kind: str, weights: bytes, role: str) -> tuple[str, str, dict[str, Any]]:
    """What became of it, and what the session was told."""
    version = registry.add_version("reach", weights)
    request = FitRequest.model_validate({"name": "reach", "kind": kind, "source": {"arrays": "a.npz"}})
    job = Job(id="one", request=request, activate=role, session="demo", version=version.version)
    process = Process()
    sessions: Any = {"demo": SimpleNamespace(name="demo", process=process, hub=Hub(), loading=[])}
    outcome = asyncio.run(activate_in(sessions, registry)(job))
    ((command, arguments),) = process.told
    return outcome, command, arguments


def test_a_session_loads_a_decoder_with_the_identity_that_the_registry_knows(registry: Registry) -> None:
    weights = decoder_files.write(decoder_files.of(make_decoder("maxrate", ["left", "right"], 3), 3))
    outcome, command, arguments = activate(registry, "maxrate", weights, "shadow")
    assert outcome == "shadow in session 'demo' from bin 41 on"
    assert (command, arguments["role"], arguments["weights"]) == ("decoder_load", "shadow", weights)
    identity = {"name": "reach", "version": 1, "digest": registry.get("reach", 1).digest}
    assert (arguments["model"], arguments["state"]) == (identity | {"alias": None}, "cold")


def test_a_session_loads_an_encoder_as_such(registry: Registry) -> None:
    weights = LNP(["a", "b"], (1, 2, 2)).save()
    outcome, command, arguments = activate(registry, "lnp", weights, "shadow")
    assert outcome == "shadow in session 'demo' from bin 41 on"
    assert (command, arguments["role"], arguments["weights"]) == ("encoder_load", "shadow", weights)
    assert arguments["model"] == {"name": "reach", "version": 1, "digest": registry.get("reach", 1).digest} | {
        "alias": None
    }
    assert set(arguments) == {"model", "role", "weights", "encoder"}


def test_a_session_loads_rereferencing_weights_with_their_channels(registry: Registry) -> None:
    lrr = LRR(["a", "b", "c"]).fit(np.random.default_rng(0).standard_normal((500, 3)))
    outcome, command, arguments = activate(registry, "lrr", lrr.save("safetensors"), "active")
    assert outcome == "active in session 'demo' from bin 41 on"
    assert (command, arguments["channels"], arguments["shape"]) == ("rereference_load", ["a", "b", "c"], [3, 3])
    assert np.array_equal(np.frombuffer(arguments["weights"]).reshape(3, 3), lrr.weights.matrix)
