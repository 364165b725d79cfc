"""State dicts of the published GSNN, in both directions, and the forms in which its graphs come.

The published network keeps sparse matrices as `values` with their `indices` (an edge and a channel of a function,
counted function by function); ours keeps a row of channels for each edge. What else it stores (masks, groups of
channels) follows from the graph.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models.base import check_settings
from neuroloop.models.gsnn_graph import KINDS, Graph, graph_of
from neuroloop.models.gsnn_parameters import GSNNParameters, make_parameters
from neuroloop.models.gsnn_settings import GSNNSettings

Arrays = dict[str, NDArray[Any]]

NODES = ("input", "function", "output")
SHOWN = ("share_layers", "node_attn", "node_mlp", "node_mlp_hidden")  # arguments of the published network
GIVEN = ("input_function", "function_function", "function_output")  # kinds of edges in the order of a plain sequence
NORM = {"gain": "gamma", "shift": "beta"}
MLP = {"in": "0.weight", "in_bias": "0.bias", "gain": "1.weight", "shift": "1.bias", "out": "4.weight"}
MLP |= {"out_bias": "4.bias"}
ATTENTION = {"in": "0.weight", "in_bias": "0.bias", "gain": "2.weight", "shift": "2.bias", "out": "3.weight"}
ATTENTION |= {"out_bias": "3.bias"}
DENSE = (  # ours, theirs
    {f"norm_{own}": f"norm.{name}" for own, name in NORM.items()}
    | {f"mlp_{own}": f"mlp.mlp.{name}" for own, name in MLP.items()}
    | {f"attention_{own}": f"node_attn.mlp.{name}" for own, name in ATTENTION.items()}
)


def read_graph(edges: Mapping[Any, Any] | Sequence[Any], counts: Mapping[str, Any] | Sequence[Any]) -> Graph:
    """A graph as the published network is given it.

    edges: (2, edges) of each kind, by `input_function`, `function_function`, `function_output` (also with `edges_`
    before, or as `("input", "to", "function")`), or as a sequence in this order. counts: of `input`, `function` and
    `output` nodes, or the nodes' names, by these names, or as a sequence in this order. Raises ModelError.
    """
    named = dict(edges) if isinstance(edges, Mapping) else dict(zip(GIVEN, edges, strict=False))
    found = {_edge_kind(key): np.asarray(array) for key, array in named.items()}
    if set(found) != set(KINDS):
        raise ModelError(f"edges: expected {', '.join(GIVEN)}; got {', '.join(found) or 'none'}")
    given = [counts.get(name, 0) for name in NODES] if isinstance(counts, Mapping) else list(counts)
    sizes = [int(one) if np.ndim(one) == 0 else len(one) for one in given]
    if len(sizes) != len(NODES):
        raise ModelError(f"counts: expected those of input, function and output nodes, got {sizes}")
    return graph_of(sizes, **found)


def _edge_kind(key: Any) -> str:
    return f"{key[0]}_{key[-1]}" if isinstance(key, tuple) else str(key).removeprefix("edges_")


def read(graph: Graph, state: Mapping[str, Any], given: Mapping[str, Any]) -> tuple[GSNNSettings, GSNNParameters]:
    """Settings and parameters from a published state dict.

    given: settings that it does not show (`norm_first`, `residual`), or that it must agree with; the published
    arguments that it shows under another name are passed over. Raises ModelError.
    """
    arrays = {name: np.asarray(array) for name, array in state.items()}
    layers = len({name.split(".")[1] for name in arrays if name.startswith("ResBlocks.")})
    if not layers or "ResBlocks.0.lin_in.values" not in arrays or "ResBlocks.0.lin_in.bias" not in arrays:
        raise ModelError(
            f"state dict: expected ResBlocks.0.lin_in.values and others; got {', '.join(arrays) or 'none'}"
        )
    settings = _settings(graph, arrays, layers, given)
    per_layer = [_layer(graph, settings, arrays, f"ResBlocks.{layer}.") for layer in range(layers)]
    stacked = {name: np.stack([one[name] for one in per_layer]) for name in per_layer[0]}
    return settings, make_parameters(settings, graph, stacked)


def _settings(graph: Graph, arrays: Arrays, layers: int, given: Mapping[str, Any]) -> GSNNSettings:
    first = "ResBlocks.0."
    norm = "none"
    if f"{first}norm.channel_groups" in arrays:
        norm = "softmax" if f"{first}norm.gamma" not in arrays else "rms"
    if f"{first}norm.beta" in arrays:
        norm = "layer"
    shown: dict[str, Any] = {
        "layers": layers,
        "channels": len(arrays[f"{first}lin_in.bias"]) // graph.functions,
        "norm": norm,
        "mlp": len(arrays[f"{first}mlp.mlp.0.bias"]) if f"{first}mlp.mlp.0.bias" in arrays else None,
        "attention": len(arrays[f"{first}node_attn.mlp.0.bias"]) if f"{first}node_attn.mlp.0.bias" in arrays else None,
    }
    for name, value in given.items():
        if name in shown and value != shown[name]:
            raise ModelError(f"{name}: the state dict says {shown[name]}, the settings {value}")
    kept = {name: value for name, value in given.items() if name not in SHOWN}
    settings = check_settings("gsnn", GSNNSettings, shown | kept)
    assert isinstance(settings, GSNNSettings)
    return settings


def _layer(graph: Graph, settings: GSNNSettings, arrays: Arrays, prefix: str) -> Arrays:
    def take(name: str) -> NDArray[Any]:
        if prefix + name not in arrays:
            raise ModelError(f"state dict: {prefix}{name} is missing")
        return arrays[prefix + name]

    channels = settings.channels
    taken = {
        "residual": take("residual_weight"),
        "in_weight": _rows(take("lin_in.values"), take("lin_in.indices"), graph.into_functions, channels, prefix),
        "in_bias": take("lin_in.bias").reshape(-1, channels),
        "out_weight": _rows(
            take("lin_out.values"), take("lin_out.indices")[::-1], graph.out_of_functions, channels, prefix
        ),
        "out_bias": take("lin_out.bias").ravel(),
    }
    for own, name in DENSE.items():
        if prefix + name in arrays:
            taken[own] = arrays[prefix + name]
    if "attention_out" in taken:
        taken["attention_out"] = taken["attention_out"].ravel()
    return taken


def _rows(
    values: NDArray[Any], indices: NDArray[Any], edges: NDArray[np.int64], channels: int, prefix: str
) -> NDArray[Any]:
    """A row of channels for each edge. indices: the edge, and the channel counted over all functions."""
    row = np.searchsorted(edges, indices[0])
    rows = np.full((len(edges), channels), np.nan, np.float32)
    if len(values) != rows.size or row.max(initial=0) >= len(edges) or (edges[row] != indices[0]).any():
        raise ModelError(f"state dict: {prefix}: its indices are not those of the graph's edges")
    rows[row, indices[1] % channels] = values
    return rows


def write(graph: Graph, settings: GSNNSettings, parameters: GSNNParameters) -> Arrays:
    """The published state dict of these parameters; `read` reads it, and so does the published network."""
    source, target = graph.edge_index
    nodes, channels = graph.functions + graph.inputs + graph.outputs, settings.channels
    numbers = np.arange(nodes)
    is_function, is_output = numbers < graph.functions, numbers >= graph.functions + graph.inputs
    groups = np.repeat(np.arange(graph.functions), channels)
    arrays: Arrays = {
        "output_node_mask": is_output,
        "input_node_mask": ~is_function & ~is_output,
        "edge_index": graph.edge_index,
        "function_edge_mask": is_function[source] & is_function[target],
        "input_edge_mask": ~is_function[source],
        "output_edge_mask": is_output[target],
    }
    into, out_of = graph.into_functions, graph.out_of_functions
    own = parameters.arrays()
    read, written = _indices(into, target[into], channels), _indices(out_of, source[out_of], channels)
    by_unit = np.argsort(written[1], kind="stable")  # rows of the published matrix come first
    for layer in range(settings.layers):
        block: Arrays = {
            "residual_weight": parameters.residual[layer],
            "channel_groups": groups,
            "lin_in.values": parameters.in_weight[layer].ravel(),
            "lin_in.bias": parameters.in_bias[layer].reshape(-1, 1),
            "lin_in.indices": read,
            "lin_out.values": parameters.out_weight[layer].ravel()[by_unit],
            "lin_out.bias": parameters.out_bias[layer].reshape(-1, 1),
            "lin_out.indices": written[::-1, by_unit],
        }
        block |= {theirs: own[name][layer] for name, theirs in DENSE.items() if own[name].size}
        if settings.norm != "none":
            block |= {"norm.channel_groups": groups, "norm.n_channels": np.full(graph.functions, channels)}
        if settings.attention:
            block["node_attn.channel_groups"] = groups
            block["node_attn.mlp.3.weight"] = block["node_attn.mlp.3.weight"][None]
        arrays |= {f"ResBlocks.{layer}.{name}": array for name, array in block.items()}
    return {name: np.array(array, order="C") for name, array in arrays.items()}


def _indices(edges: NDArray[np.int64], functions: NDArray[np.int64], channels: int) -> NDArray[np.int64]:
    """The edge, and the channel counted over all functions, of every weight: (2, weights)."""
    units = functions[:, None] * channels + np.arange(channels)
    return np.stack([np.repeat(edges, channels), units.ravel()])
