"""Networks with random parameters, for the tests of GSNN."""

import numpy as np

from neuroloop.models.gsnn_graph import from_positions, graph_of
from neuroloop.models.gsnn_parameters import make_parameters, shapes
from neuroloop.models.gsnn_settings import GSNNSettings
from neuroloop.models.gsnn_state import GSNNWeights

VARIANTS = {
    "layer": {"norm": "layer"},
    "rms": {"norm": "rms"},
    "softmax": {"norm": "softmax", "norm_first": False},
    "none": {"norm": "none", "layers": 2},
    "mlp": {"norm": "none", "mlp": 8},
    "attention": {"norm": "layer", "attention": 16, "norm_first": False},
    "no residual": {"residual": False, "norm": "none"},
    "one channel": {"channels": 1, "norm": "rms"},
}


def make_graph(inputs=12, outputs=3):
    return from_positions([[float(n % 4), float(n // 4)] for n in range(inputs)], inputs, outputs, 3)


def make_uneven_graph():
    """An input without an edge, one with two, functions that no input reaches, outputs with one edge and with two."""
    return graph_of(
        (3, 4, 2), np.array([[0, 0, 2], [0, 1, 1]]), np.array([[0, 1, 2], [2, 3, 3]]), np.array([[2, 3, 3], [0, 0, 1]])
    )


def make_network(graph, seed=0, **chosen):
    """Settings, and parameters of which no two are equal."""
    settings = GSNNSettings(**chosen)
    generator = np.random.default_rng(seed)
    given = {name: 0.3 * generator.standard_normal(shape) for name, shape in shapes(settings, graph).items()}
    for name in ("residual", "norm_gain", "mlp_gain", "attention_gain"):
        given[name] = given[name] + 0.5
    return settings, make_parameters(settings, graph, given)


def make_weights(graph, seed=0, **chosen):
    settings, parameters = make_network(graph, seed, **chosen)
    generator = np.random.default_rng(seed + 1)
    mean, scale = generator.uniform(1, 9, graph.inputs), generator.uniform(1, 3, graph.inputs)
    samples = np.arange(1, graph.outputs + 1)
    weights = GSNNWeights(graph, parameters, mean.astype(np.float32), scale.astype(np.float32), 1.5, samples)
    return settings, weights
