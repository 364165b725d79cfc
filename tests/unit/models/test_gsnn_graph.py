import json

import numpy as np
import pytest

from neuroloop.errors import ModelError
from neuroloop.models.gsnn_graph import from_clusters, from_positions, graph_of, make_graph, read_nodes
from neuroloop.models.gsnn_settings import NeighbourGraph

NODES = {
    "inputs": ["ch1", "ch2"],
    "functions": ["A", "B", "C"],
    "outputs": ["left", "right"],
    "edges": [["ch1", "A"], ["ch2", "B"], ["A", "C"], ["B", "C"], ["C", "left"], ["C", "right"]],
}


def edges(array):
    return set(map(tuple, array.T.tolist()))


def test_nodes_and_edges_are_numbered_functions_first_and_every_function_has_an_edge_to_itself():
    graph = graph_of((2, 3, 1), np.array([[0, 1], [0, 1]]), np.array([[0, 1], [2, 2]]), np.array([[2], [0]]))
    assert graph.edge_count == 8
    assert graph.edge_index.T.tolist() == [[0, 2], [1, 2], [3, 0], [4, 1], [2, 5], [0, 0], [1, 1], [2, 2]]
    assert graph.from_inputs.tolist() == [2, 3]
    assert graph.into_functions.tolist() == [0, 1, 2, 3, 5, 6, 7]
    assert graph.out_of_functions.tolist() == [0, 1, 4, 5, 6, 7]
    assert graph.into_outputs.tolist() == [4]


def test_sites_hear_their_nearest_neighbours():
    grid = [[x, y] for y in range(3) for x in range(3)]
    graph = from_positions(grid, 9, 2, neighbours=2)
    assert edges(graph.input_function) == {(channel, channel) for channel in range(9)}
    heard = {site: {first for first, last in edges(graph.function_function) if last == site} for site in range(9)}
    assert heard[0] == {1, 3}
    assert heard[8] == {5, 7}
    assert len(heard[4] & {1, 3, 5, 7}) == 2
    assert edges(graph.function_output) == {(site, output) for site in range(9) for output in range(2)}


def test_the_features_of_a_channel_lead_to_its_site():
    graph = from_positions([[0.0], [1.0]], 6, 2, neighbours=6)
    assert graph.functions == 2
    assert edges(graph.input_function) == {(0, 0), (1, 0), (2, 0), (3, 1), (4, 1), (5, 1)}
    assert edges(graph.function_function) == {(0, 1), (1, 0)}


def test_without_positions_channels_lie_in_a_row():
    graph = make_graph(NeighbourGraph(neighbours=2), 5, ["left", "right"])
    assert {(1, 2), (3, 2)} <= edges(graph.function_function)
    assert (0, 2) not in edges(graph.function_function)


def test_clusters_hear_each_other_through_their_hubs():
    graph = from_clusters([[0, 2], [1]], 4, 2)
    assert (graph.inputs, graph.functions, graph.outputs) == (4, 6, 2)
    assert edges(graph.function_function) == {(0, 4), (4, 0), (2, 4), (4, 2), (1, 5), (5, 1), (4, 5), (5, 4)}


def test_a_graph_is_read_from_a_file_of_nodes_and_edges():
    graph = make_graph(read_nodes(json.dumps(NODES)), 2, ["left", "right"])
    assert edges(graph.input_function) == {(0, 0), (1, 1)}
    assert edges(graph.function_function) == {(0, 2), (1, 2)}
    assert edges(graph.function_output) == {(2, 0), (2, 1)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edges": [*NODES["edges"], ["A", "D"]]}, "edge 'A' to 'D': there is no node 'D'"),
        ({"edges": [*NODES["edges"], ["A", "ch1"]]}, "edge 'A' to 'ch1': expected .* got function to input"),
        ({"edges": [*NODES["edges"], ["ch1", "left"]]}, "edge 'ch1' to 'left': expected .* got input to output"),
        ({"edges": [*NODES["edges"], ["A", "A"]]}, "function 'A' has an edge to itself already"),
        ({"edges": [*NODES["edges"], ["A", "C"]]}, r"edge: \('A', 'C'\) is given twice"),
        ({"edges": NODES["edges"][:-1]}, "output 'right' has no edge from a function"),
        ({"functions": ["A", "B", "C", "ch1"]}, "node: ch1 is given twice"),
        ({"inputs": ["ch1"]}, "an input for each of 2 features, got 1"),
        ({"outputs": ["right", "left"]}, "in their order: left, right; got right, left"),
    ],
)
def test_a_file_that_is_no_graph_is_refused_and_names_the_node(change, message):
    with pytest.raises(ModelError, match=message):
        make_graph(read_nodes(json.dumps(NODES | change)), 2, ["left", "right"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "expected a JSON file"),
        ("[]", "expected a JSON object"),
        ('{"inputs": ["a"]}', "functions: Field required"),
        (json.dumps(NODES | {"nodes": []}), "nodes: unknown"),
    ],
)
def test_a_file_of_another_form_is_refused(text, message):
    with pytest.raises(ModelError, match=message):
        read_nodes(text)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: from_clusters([[0, 4]], 4, 2), "channel 4 is none of the 4 features"),
        (lambda: from_clusters([[0, 0]], 4, 2), "channel: 0 is given twice"),
        (lambda: from_positions([[0.0], [np.nan]], 2, 2, 1), "positions: expected finite"),
        (lambda: from_positions([[0.0], [1.0, 2.0]], 2, 2, 1), r"got axes \[1, 2\]"),
        (lambda: from_positions([[0.0], [1.0]], 3, 2, 1), "a position for each of 3 features or of its channels; 2"),
        (lambda: graph_of((1, 1, 0), *np.zeros((3, 2, 0), int)), "one input, function and output or more"),
        (lambda: graph_of((1, 1, 1 << 30), *np.zeros((3, 2, 0), int)), "at most 1048576 nodes"),
        (lambda: graph_of((1, 1, 1), np.zeros((3, 2)), *np.zeros((2, 2, 0), int)), "integers of shape"),
        (lambda: graph_of((1, 1, 1), [[0, 0], [0, 0]], *np.zeros((2, 2, 0), int)), r"\(0, 0\) is given twice"),
    ],
)
def test_what_is_no_graph_is_refused(make, message):
    with pytest.raises(ModelError, match=message):
        make()
