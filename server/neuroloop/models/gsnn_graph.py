"""The graph of a GSNN: inputs (features), functions (sites) and outputs (classes, or targets), and its edges.

Edges lead from inputs to functions, between functions, and from functions to outputs; every function has an edge to
itself beside these. Where all nodes or edges are numbered, functions come first, then inputs, then outputs; edges
between functions come first, then those from inputs, those to outputs, and the functions' own.

A graph comes from electrode positions, from clusters of channels, or from a list of nodes and edges (`make_graph`).
Where a channel has several features (bands), they all lead to its site; a site reads every output that there is.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic_core import from_json

from neuroloop.errors import ModelError
from neuroloop.models.base import check_settings
from neuroloop.models.gsnn_settings import ClusterGraph, GraphSettings, NeighbourGraph, NodeGraph

Indices = NDArray[np.int64]
Edges = NDArray[np.integer[Any]]

LARGEST = 1 << 20  # nodes
KINDS = ("function_function", "input_function", "function_output")  # of edges, in the order of their numbers


@dataclass(frozen=True, eq=False, slots=True)
class Graph:
    """Counts of nodes; edges (2, edges) of each kind, from row 0 to row 1, in the numbers of their own kind of node."""

    inputs: int
    functions: int
    outputs: int
    function_function: Indices
    input_function: Indices
    function_output: Indices

    @property
    def edge_count(self) -> int:
        count: int = self.functions + sum(getattr(self, kind).shape[1] for kind in KINDS)
        return count

    @property
    def edge_index(self) -> Indices:
        """All edges, (2, edges), in the numbers of all nodes."""
        own = np.tile(np.arange(self.functions), (2, 1))
        first_input, first_output = self.functions, self.functions + self.inputs
        lead_in = self.input_function + np.array([[first_input], [0]])
        lead_out = self.function_output + np.array([[0], [first_output]])
        numbers: Indices = np.concatenate([self.function_function, lead_in, lead_out, own], axis=1)
        return numbers

    @property
    def from_inputs(self) -> Indices:
        """Numbers of the edges that leave inputs."""
        first = self.function_function.shape[1]
        return np.arange(first, first + self.input_function.shape[1])

    @property
    def into_functions(self) -> Indices:
        """Numbers of the edges that lead to functions."""
        return np.flatnonzero(self.edge_index[1] < self.functions)

    @property
    def out_of_functions(self) -> Indices:
        """Numbers of the edges that leave functions."""
        return np.flatnonzero(self.edge_index[0] < self.functions)

    @property
    def into_outputs(self) -> Indices:
        """Numbers of the edges that lead to outputs."""
        return np.flatnonzero(self.edge_index[1] >= self.functions + self.inputs)


def graph_of(counts: Sequence[int], input_function: Edges, function_function: Edges, function_output: Edges) -> Graph:
    """A graph of so many inputs, functions and outputs.

    Edges: (2, edges), from row 0 to row 1, in the numbers of their own kind of node, each from 0 on.
    Raises ModelError for an edge that names no node, one given twice, one from a function to itself, and an output
    without an edge.
    """
    inputs, functions, outputs = (int(count) for count in counts)
    if min(inputs, functions, outputs) < 1:
        raise ModelError(f"graph: expected one input, function and output or more, got {inputs, functions, outputs}")
    if inputs + functions + outputs > LARGEST:
        raise ModelError(f"graph: expected at most {LARGEST} nodes, got {inputs + functions + outputs}")
    sizes = {"input": inputs, "function": functions, "output": outputs}
    given = {
        "function_function": function_function,
        "input_function": input_function,
        "function_output": function_output,
    }
    edges = {kind: _checked(kind, given[kind], sizes) for kind in KINDS}
    silent = sorted(set(range(outputs)) - set(edges["function_output"][1].tolist()))
    if silent:
        raise ModelError(f"graph: output {silent[0]} has no edge from a function")
    return Graph(inputs, functions, outputs, **edges)


def _checked(kind: str, edges: Edges, sizes: dict[str, int]) -> Indices:
    source, target = kind.split("_")
    array = np.asarray(edges)
    if array.size == 0:
        return np.zeros((2, 0), np.int64)
    if array.ndim != 2 or array.shape[0] != 2 or array.dtype.kind not in "iu":
        raise ModelError(f"graph: {kind}: expected integers of shape (2, edges), got {array.dtype} {array.shape}")
    pairs = [(first, last) for first, last in array.T.tolist()]
    for first, last in pairs:
        for end, number in ((source, first), (target, last)):
            if not 0 <= number < sizes[end]:
                raise ModelError(f"graph: {kind}: {end} {number} is none of the {sizes[end]}, from 0 on")
        if kind == "function_function" and first == last:
            raise ModelError(f"graph: function {first} has an edge to itself already; leave it out")
    _once(f"graph: {kind}", pairs)
    return np.ascontiguousarray(array, dtype=np.int64)


def _once(what: str, items: Iterable[Any]) -> None:
    seen: set[Any] = set()
    for item in items:
        if item in seen:
            raise ModelError(f"{what}: {item} is given twice")
        seen.add(item)


def make_graph(settings: GraphSettings, features: int, outputs: Sequence[str]) -> Graph:
    """The graph that settings describe, for so many features and these classes or targets. Raises ModelError."""
    if isinstance(settings, NodeGraph):
        return _from_nodes(settings, features, outputs)
    if isinstance(settings, ClusterGraph):
        return from_clusters(settings.clusters, features, len(outputs))
    assert isinstance(settings, NeighbourGraph)
    positions = [[float(channel)] for channel in range(features)] if settings.positions is None else settings.positions
    return from_positions(positions, features, len(outputs), settings.neighbours)


def from_positions(positions: Sequence[Sequence[float]], features: int, outputs: int, neighbours: int) -> Graph:
    """A site for each position, which hears the nearest others; ties go to the lower number.

    positions: (channels, axes). features: a multiple of the channels, those of a channel side by side.
    """
    lengths = {len(position) for position in positions}
    if len(lengths) != 1 or 0 in lengths or not np.isfinite(np.asarray(positions, np.float64)).all():
        raise ModelError(f"graph: positions: expected finite (channels, axes), got axes {sorted(lengths)}")
    where, channels = np.asarray(positions, np.float64), len(positions)
    distance = np.square(where[:, None] - where[None]).sum(axis=2)
    np.fill_diagonal(distance, np.inf)
    count = min(neighbours, channels - 1)
    nearest = np.argsort(distance, axis=1, kind="stable")[:, :count]
    between = np.stack([nearest.ravel(), np.repeat(np.arange(channels), count)])
    sites = _features_to_sites(features, channels)
    return graph_of((features, channels, outputs), sites, between, _all_to_all(channels, outputs))


def from_clusters(clusters: Sequence[Sequence[int]], features: int, outputs: int) -> Graph:
    """A site for each feature, and after these a hub for each cluster; the hubs hear each other."""
    between: list[tuple[int, int]] = []
    hubs = range(features, features + len(clusters))
    for hub, cluster in zip(hubs, clusters, strict=True):
        _once("graph: clusters: channel", cluster)
        for channel in cluster:
            if not 0 <= channel < features:
                raise ModelError(f"graph: clusters: channel {channel} is none of the {features} features, from 0 on")
            between += [(channel, hub), (hub, channel)]
    between += [(one, other) for one in hubs for other in hubs if one != other]
    functions = features + len(clusters)
    edges = np.array(between, np.int64).reshape(-1, 2).T
    sites = _features_to_sites(features, features)
    return graph_of((features, functions, outputs), sites, edges, _all_to_all(functions, outputs))


def _features_to_sites(features: int, channels: int) -> Indices:
    if features % channels:
        raise ModelError(f"graph: expected a position for each of {features} features or of its channels; {channels}")
    numbers = np.arange(features)
    return np.stack([numbers, numbers // (features // channels)])


def _all_to_all(functions: int, outputs: int) -> Indices:
    return np.stack([np.repeat(np.arange(functions), outputs), np.tile(np.arange(outputs), functions)])


def read_nodes(text: str | bytes) -> NodeGraph:
    """The graph in a JSON file: `{"inputs": [name, ...], "functions": ..., "outputs": ..., "edges": [[from, to]]}`.

    Raises ModelError for anything else; whether the edges can be is checked where a graph is made of it.
    """
    try:
        document = from_json(text)
    except ValueError as error:
        raise ModelError(f"graph: expected a JSON file: {error}") from error
    if not isinstance(document, dict):
        raise ModelError("graph: expected a JSON object with inputs, functions, outputs and edges")
    return cast(NodeGraph, check_settings("graph", NodeGraph, {"kind": "nodes"} | document))


def _from_nodes(nodes: NodeGraph, features: int, outputs: Sequence[str]) -> Graph:
    if len(nodes.inputs) != features:
        raise ModelError(f"graph: expected an input for each of {features} features, got {len(nodes.inputs)}")
    if nodes.outputs != list(outputs):
        wanted, got = ", ".join(outputs), ", ".join(nodes.outputs)
        raise ModelError(f"graph: expected an output for each class or target, in their order: {wanted}; got {got}")
    _once("graph: node", [*nodes.inputs, *nodes.functions, *nodes.outputs])
    place = {
        name: (kind, number)
        for kind in ("input", "function", "output")
        for number, name in enumerate(getattr(nodes, f"{kind}s"))
    }
    found: dict[str, list[tuple[int, int]]] = {kind: [] for kind in KINDS}
    for first, last in nodes.edges:
        for name in (first, last):
            if name not in place:
                raise ModelError(f"graph: edge {first!r} to {last!r}: there is no node {name!r}")
        (source, start), (target, end) = place[first], place[last]
        if f"{source}_{target}" not in found:
            raise ModelError(
                f"graph: edge {first!r} to {last!r}: expected input to function, function to function or function to "
                f"output, got {source} to {target}"
            )
        if first == last:
            raise ModelError(f"graph: function {first!r} has an edge to itself already; leave it out")
        found[f"{source}_{target}"].append((start, end))
    _once("graph: edge", nodes.edges)
    reached = {last for _, last in nodes.edges}
    for name in nodes.outputs:
        if name not in reached:
            raise ModelError(f"graph: output {name!r} has no edge from a function")
    edges = {kind: np.array(pairs, np.int64).reshape(-1, 2).T for kind, pairs in found.items()}
    return graph_of((features, len(nodes.functions), len(outputs)), **edges)
