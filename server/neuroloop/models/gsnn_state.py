"""What a fitted GSNN decoder knows, as arrays: checked without the decoder, without a compiler and without PyTorch.

The registry asks before it stores a file, a decoder before it takes a state over: the same function.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models.base import check_settings
from neuroloop.models.gsnn_graph import Graph
from neuroloop.models.gsnn_parameters import GSNNParameters, graph_arrays, make_parameters, read_graph
from neuroloop.models.gsnn_settings import GSNNSettings, NetworkSettings


@dataclass(frozen=True, eq=False, slots=True)
class Network:
    """mean, scale: (features,) float32, of the rates that it was fitted on."""

    graph: Graph
    parameters: GSNNParameters
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]

    def network_arrays(self) -> dict[str, NDArray[Any]]:
        """By the names of a state dict; parameters that have no values are left out."""
        used = {name: array for name, array in self.parameters.arrays().items() if array.size}
        return {"mean": self.mean, "scale": self.scale} | graph_arrays(self.graph) | used


@dataclass(frozen=True, eq=False, slots=True)
class GSNNWeights(Network):
    """sharpness: 1 / temperature of the softmax. samples: (classes,) int64, how many of each it was fitted on."""

    sharpness: float
    samples: NDArray[np.int64]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `read_weights` reads."""
        return self.network_arrays() | {"sharpness": np.array([self.sharpness]), "samples": self.samples}


@dataclass(frozen=True, eq=False, slots=True)
class GSNNTargetWeights(Network):
    """target_mean, target_scale: (targets,) float64, of the targets that it was fitted on; samples: how many bins."""

    target_mean: NDArray[np.float64]
    target_scale: NDArray[np.float64]
    samples: int

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `read_target_weights` reads."""
        own = {"target_mean": self.target_mean, "target_scale": self.target_scale}
        return self.network_arrays() | own | {"samples": np.array([self.samples], np.int64)}


def read_weights(settings: GSNNSettings, features: int, classes: int, state: Mapping[str, Any]) -> GSNNWeights:
    """From the arrays of a state dict; other entries are passed over.

    Raises ModelError, naming the array, where they are not those of a network of these settings, features and classes.
    """
    network = _read_network(settings, features, classes, "classes", state)
    sharpness = float(_floats(state, "sharpness", (1,))[0])
    if sharpness < 0:
        raise ModelError(f"decoder state: expected sharpness from 0 on, got {sharpness:g}")
    samples = read_samples(state, classes)
    return GSNNWeights(network.graph, network.parameters, network.mean, network.scale, sharpness, samples)


def read_target_weights(
    settings: NetworkSettings, features: int, targets: int, state: Mapping[str, Any]
) -> GSNNTargetWeights:
    """The same of a network that answers with continuous targets."""
    network = _read_network(settings, features, targets, "targets", state)
    mean, scale = (_floats(state, f"target_{name}", (targets,)).astype(np.float64) for name in ("mean", "scale"))
    if (scale < 0).any():
        raise ModelError(f"decoder state: expected target_scale from 0 on, got {scale.min():g}")
    samples = int(read_samples(state, 1)[0])
    return GSNNTargetWeights(network.graph, network.parameters, network.mean, network.scale, mean, scale, samples)


def _read_network(
    settings: NetworkSettings, features: int, outputs: int, named: str, state: Mapping[str, Any]
) -> Network:
    graph = read_graph(state)
    if (graph.inputs, graph.outputs) != (features, outputs):
        raise ModelError(
            f"GSNN graph: expected {features} inputs (features) and {outputs} outputs ({named}), "
            f"got {graph.inputs} and {graph.outputs}"
        )
    mean, scale = (_floats(state, name, (features,)).astype(np.float32) for name in ("mean", "scale"))
    if not (scale > 0).all():
        raise ModelError(f"decoder state: expected scale above 0, got {scale.min():g}")
    return Network(graph, make_parameters(settings, graph, state), mean, scale)


def check_gsnn(settings: Mapping[str, Any], features: int, classes: int, state: Mapping[str, Any]) -> None:
    """Raise ModelError unless settings and arrays are those of a fitted GSNN decoder."""
    checked = check_settings("gsnn", GSNNSettings, settings)
    assert isinstance(checked, GSNNSettings)
    read_weights(checked, features, classes, state)


def read_samples(state: Mapping[str, Any], classes: int) -> NDArray[np.int64]:
    """Of each class. Raises ModelError."""
    samples = np.asarray(state.get("samples"))
    if samples.shape != (classes,) or samples.dtype.kind not in "iu" or (samples < 0).any():
        raise ModelError(
            f"decoder state: expected samples as {classes} integers from 0 on, got {samples.dtype} {samples.shape}"
        )
    return samples.astype(np.int64)


def standardised(rates: NDArray[Any], mean: NDArray[np.float32], scale: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the network gets for rates, (..., features): float32, 0 where one is missing."""
    values = ((rates - mean) / scale).astype(np.float32)
    return np.where(np.isfinite(values), values, np.float32(0))


def _floats(state: Mapping[str, Any], name: str, shape: tuple[int, ...]) -> NDArray[Any]:
    array = np.asarray(state.get(name))
    if array.shape != shape or array.dtype.kind != "f" or not np.isfinite(array.astype(np.float32)).all():
        raise ModelError(
            f"decoder state: expected {name} as finite floats of shape {shape}, got {array.dtype} {array.shape}"
        )
    return array
