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
from neuroloop.models.gsnn_settings import GSNNSettings


@dataclass(frozen=True, eq=False, slots=True)
class GSNNWeights:
    """mean, scale: (features,) float32, of the rates that it was fitted on. sharpness: 1 / temperature of the softmax.

    samples: (classes,) int64, how many of each it was fitted on.
    """

    graph: Graph
    parameters: GSNNParameters
    mean: NDArray[np.float32]
    scale: NDArray[np.float32]
    sharpness: float
    samples: NDArray[np.int64]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """What `read_weights` reads."""
        own = {
            "mean": self.mean,
            "scale": self.scale,
            "sharpness": np.array([self.sharpness]),
            "samples": self.samples,
        }
        used = {name: array for name, array in self.parameters.arrays().items() if array.size}
        return own | graph_arrays(self.graph) | used


def read_weights(settings: GSNNSettings, features: int, classes: int, state: Mapping[str, Any]) -> GSNNWeights:
    """From the arrays of a state dict; other entries are passed over.

    Raises ModelError, naming the array, where they are not those of a network of these settings, features and classes.
    """
    graph = read_graph(state)
    if (graph.inputs, graph.outputs) != (features, classes):
        raise ModelError(
            f"GSNN graph: expected {features} inputs (features) and {classes} outputs (classes), "
            f"got {graph.inputs} and {graph.outputs}"
        )
    mean, scale = (_floats(state, name, (features,)).astype(np.float32) for name in ("mean", "scale"))
    if not (scale > 0).all():
        raise ModelError(f"decoder state: expected scale above 0, got {scale.min():g}")
    sharpness = float(_floats(state, "sharpness", (1,))[0])
    if sharpness < 0:
        raise ModelError(f"decoder state: expected sharpness from 0 on, got {sharpness:g}")
    return GSNNWeights(
        graph, make_parameters(settings, graph, state), mean, scale, sharpness, read_samples(state, classes)
    )


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
