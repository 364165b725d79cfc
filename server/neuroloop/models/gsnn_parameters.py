"""What a GSNN is made of: a graph, settings, and the parameters of its layers.

A feature travels on every edge (one number), and every function node has c channels. In each of L layers

    h  = e W_in + b_in             each node's channels read the edges that lead to it
    A  = gate(mlp(elu(norm(h))))   within each node; what is not asked for is left out
    e' = A W_out + b_out + max(residual, 0) e

where e starts with the inputs on their edges and 0 on all others; at last e / sqrt(L), where edges keep what they
carried, and an output is the sum of the edges that lead to it over the square root of their number. W_in and W_out have
a weight for each edge and channel and are zero elsewhere. Per node, over its channels:

    norm   layer    gain (h - mean) / (unbiased deviation + 0.1) + shift
           rms      gain h / sqrt(mean square + 1e-6)
           softmax  exp(h) over its sum
    mlp    h -> out elu(layer norm(in h))
    gate   h -> h sigmoid(out layer norm(elu(in h))), a number for each node: its attention

A GSNN is a decoder (`gsnn`, `gsnn_continuous`), a module to be fitted (`gsnn_torch`) and a compiled step
(`gsnn_inference`): all three are made of these parameters. After GSNN; `gsnn_published` reads and writes its state
dicts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models.gsnn_graph import KINDS, Graph, graph_of
from neuroloop.models.gsnn_settings import NetworkSettings

F32 = NDArray[np.float32]

LAYER_EPS, RMS_EPS = 0.1, 1e-6


@dataclass(frozen=True, eq=False, slots=True)
class GSNNParameters:
    """float32; the first axis is the layer. Where a part is not asked for, its arrays have no values."""

    residual: F32  # (layers,)
    in_weight: F32  # (layers, edges into functions, channels), in the order of the edges
    in_bias: F32  # (layers, functions, channels)
    out_weight: F32  # (layers, edges out of functions, channels)
    out_bias: F32  # (layers, edges)
    norm_gain: F32  # (layers, functions), of norms layer and rms
    norm_shift: F32  # (layers, functions), of norm layer
    mlp_in: F32  # (layers, hidden, channels)
    mlp_in_bias: F32  # (layers, hidden)
    mlp_gain: F32  # (layers, hidden)
    mlp_shift: F32  # (layers, hidden)
    mlp_out: F32  # (layers, channels, hidden)
    mlp_out_bias: F32  # (layers, channels)
    attention_in: F32  # (layers, hidden, channels)
    attention_in_bias: F32  # (layers, hidden)
    attention_gain: F32  # (layers, hidden)
    attention_shift: F32  # (layers, hidden)
    attention_out: F32  # (layers, hidden)
    attention_out_bias: F32  # (layers,)

    def arrays(self) -> dict[str, NDArray[Any]]:
        return {entry.name: getattr(self, entry.name) for entry in fields(self)}


def shapes(settings: NetworkSettings, graph: Graph) -> dict[str, tuple[int, ...]]:
    """The shape of each parameter."""
    layers, channels = settings.layers, settings.channels
    gained = graph.functions if settings.norm in ("layer", "rms") else 0
    shifted = graph.functions if settings.norm == "layer" else 0
    mlp, attention = settings.mlp or 0, settings.attention or 0
    per_layer: dict[str, tuple[int, ...]] = {
        "residual": (),
        "in_weight": (len(graph.into_functions), channels),
        "in_bias": (graph.functions, channels),
        "out_weight": (len(graph.out_of_functions), channels),
        "out_bias": (graph.edge_count,),
        "norm_gain": (gained,),
        "norm_shift": (shifted,),
        "mlp_in": (mlp, channels),
        "mlp_in_bias": (mlp,),
        "mlp_gain": (mlp,),
        "mlp_shift": (mlp,),
        "mlp_out": (channels, mlp),
        "mlp_out_bias": (channels if mlp else 0,),
        "attention_in": (attention, channels),
        "attention_in_bias": (attention,),
        "attention_gain": (attention,),
        "attention_shift": (attention,),
        "attention_out": (attention,),
        "attention_out_bias": (1 if attention else 0,),
    }
    return {name: (layers, *shape) for name, shape in per_layer.items()}


def make_parameters(settings: NetworkSettings, graph: Graph, given: Mapping[str, Any]) -> GSNNParameters:
    """Checked and as float32; what has no values may be missing.

    Raises ModelError, naming the parameter, for one that is missing, has another shape, or is not finite.
    """
    taken = {}
    for name, shape in shapes(settings, graph).items():
        if name not in given and 0 not in shape:
            raise ModelError(f"GSNN parameter {name}: expected shape {shape}, got none")
        array = np.asarray(given.get(name, np.zeros(shape, np.float32)))
        if array.shape != shape or array.dtype.kind not in "iuf":
            raise ModelError(
                f"GSNN parameter {name}: expected real numbers of shape {shape}, got {array.dtype} {array.shape}"
            )
        with np.errstate(over="ignore", invalid="ignore"):
            taken[name] = np.array(array, dtype=np.float32, order="C")
        if not np.isfinite(taken[name]).all():
            raise ModelError(f"GSNN parameter {name}: expected finite numbers within the range of float32")
    return GSNNParameters(**taken)


def start(settings: NetworkSettings, graph: Graph, seed: int) -> GSNNParameters:
    """Where a fit starts: weights normal with variance 1 / (what is summed), gains and residuals 1, the rest 0."""
    generator = np.random.default_rng(seed)
    ones = ("residual", "norm_gain", "mlp_gain", "attention_gain")
    arrays = {
        name: np.full(shape, 1.0 if name in ones else 0.0, np.float32)
        for name, shape in shapes(settings, graph).items()
    }
    into = graph.edge_index[1][graph.into_functions]
    summed = np.bincount(into, minlength=graph.functions)[into][:, None]
    scales = {
        "in_weight": 1.0 / np.sqrt(summed),
        "out_weight": 1.0 / np.sqrt(settings.channels),
        "mlp_in": 1.0 / np.sqrt(settings.channels),
        "mlp_out": 1.0 / np.sqrt(settings.mlp or 1),
        "attention_in": 1.0 / np.sqrt(settings.channels),
        "attention_out": 1.0 / np.sqrt(settings.attention or 1),
    }
    for name, scale in scales.items():
        arrays[name] = (generator.standard_normal(arrays[name].shape) * scale).astype(np.float32)
    return GSNNParameters(**arrays)


def graph_arrays(graph: Graph) -> dict[str, NDArray[np.int64]]:
    """The graph as arrays: the counts of inputs, functions and outputs, and the edges of each kind."""
    counts = np.array([graph.inputs, graph.functions, graph.outputs], np.int64)
    return {"nodes": counts} | {kind: getattr(graph, kind) for kind in KINDS}


def read_graph(arrays: Mapping[str, Any]) -> Graph:
    """The inverse of `graph_arrays`. Raises ModelError."""
    for name in ("nodes", *KINDS):
        if name not in arrays:
            raise ModelError(f"GSNN graph: {name} is missing")
    counts = np.asarray(arrays["nodes"])
    if counts.shape != (3,) or counts.dtype.kind not in "iu":
        raise ModelError(f"GSNN graph: expected nodes as three counts, got {counts.dtype} {counts.shape}")
    return graph_of(counts.tolist(), **{kind: np.asarray(arrays[kind]) for kind in KINDS})
