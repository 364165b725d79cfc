"""GSNN and its pathway regulariser, reproduced on the arrays that they gave."""

from pathlib import Path

import numpy as np
import pytest
import torch

from neuroloop.errors import ModelError
from neuroloop.reference import gsnn_forward, pathway_losses

DATA = dict(np.load(Path(__file__).parents[1] / "fixtures" / "gsnn_plr.npz"))
BATCH, NODES, CHANNELS, LAYERS = DATA["B_N_C_L"].tolist()
LOSSES = {
    "hard": {"membership": DATA["M_hard"]},
    "hard_dis": {"membership": DATA["M_hard"], "dissim_pairs": DATA["pairs"], "lambda_dis": 0.5},
    "soft_dis": {
        "membership": DATA["M_soft"],
        "dissim_pairs": DATA["pairs"],
        "lambda_sim": 1.0,
        "lambda_dis": 1.0,
    },
    "soft_learned": {
        "membership": DATA["M_soft"],
        "dissim_pairs": DATA["pairs"],
        "lambda_sim": 1.0,
        "lambda_dis": 1.0,
        "phi_weight": DATA["soft_learned_phi_w"],
    },
    "one_layer": {
        "membership": DATA["M_hard"],
        "dissim_pairs": DATA["pairs"],
        "lambda_sim": 1.0,
        "lambda_dis": 1.0,
    },
    "eps1": {"membership": DATA["M_hard"], "lambda_sim": 1.0, "eps": 0.1},
    "const_node": {"membership": DATA["M_hard"], "lambda_sim": 1.0},
}
NETWORKS = {
    "layer": {},
    "none_mlp": {},
    "rms": {},
    "softmax": {"norm_first": False},
    "noshare": {},
    "nores": {"residual": False},
    "attn": {},
}
EDGES = {name.removeprefix("edges_"): array for name, array in DATA.items() if name.startswith("edges_")}
COUNTS = DATA["n_in_fn_out"]


def close(actual, expected, tolerance=1e-4):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def activations_of(tag):
    if tag == "const_node":
        return [DATA["A_const_node0"]]
    return [DATA[f"A{layer}"] for layer in range(1 if tag == "one_layer" else LAYERS)]


def state_of(tag):
    prefix = f"gsnn_{tag}_sd::"
    return {name.removeprefix(prefix): array for name, array in DATA.items() if name.startswith(prefix)}


@pytest.fixture(params=LOSSES)
def loss(request):
    return request.param


@pytest.fixture(params=NETWORKS)
def network(request):
    return request.param


def test_the_pathway_losses_are_as_published(loss):
    similar, dissimilar = pathway_losses(activations_of(loss), CHANNELS, **LOSSES[loss])
    close(similar, DATA[f"{loss}_Lsim"], 1e-5)
    close(dissimilar, DATA[f"{loss}_Ldis"], 1e-5)


def test_the_gradients_of_the_pathway_losses_are_as_published(loss):
    tensors = [torch.from_numpy(one).requires_grad_() for one in activations_of(loss)]
    sum(pathway_losses(tensors, CHANNELS, **LOSSES[loss])).backward()
    for layer, tensor in enumerate(tensors):
        close(tensor.grad, DATA[f"{loss}_gradA{layer}"], 1e-5)


def test_the_network_and_its_activations_are_as_published(network):
    outputs, activations = gsnn_forward(DATA["gsnn_x"], EDGES, COUNTS, state_of(network), **NETWORKS[network])
    close(outputs, DATA[f"gsnn_{network}_y"])
    assert len(activations) == 3
    for layer, activation in enumerate(activations):
        close(activation, DATA[f"gsnn_{network}_act{layer}"])


def test_the_pathway_losses_of_a_network_are_as_published(network):
    _, activations = gsnn_forward(DATA["gsnn_x"], EDGES, COUNTS, state_of(network), **NETWORKS[network])
    similar, dissimilar = pathway_losses(activations, 4, DATA["gsnn_M"], [(0, 1)], 0.1, 0.2)
    close(similar, DATA[f"gsnn_{network}_Lsim"])
    close(dissimilar, DATA[f"gsnn_{network}_Ldis"])


def test_edges_and_counts_may_come_in_any_published_form():
    expected = DATA["gsnn_layer_y"]
    counts = dict(zip(("input", "function", "output"), COUNTS.tolist(), strict=True))
    named = {(*(kind.split("_")[:1]), "to", kind.split("_")[1]): edges for kind, edges in EDGES.items()}
    listed = [EDGES[kind] for kind in ("input_function", "function_function", "function_output")]
    prefixed = {f"edges_{kind}": edges for kind, edges in EDGES.items()}
    names = {"input": ["a", "b", "c"], "function": list("vwxyz"), "output": ["left", "right"]}
    close(gsnn_forward(DATA["gsnn_x"], EDGES, names, state_of("layer"), share_layers=False)[0], expected)
    for edges in (named, listed, prefixed):
        close(gsnn_forward(DATA["gsnn_x"], edges, counts, state_of("layer"))[0], expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"edges": {"input_function": EDGES["input_function"]}}, "edges: expected .*function_function"),
        ({"counts": [3, 5]}, "counts: expected those of input, function and output"),
        ({"counts": [3, 4, 2]}, "function_function: function 4 is none of the 4"),
        ({"x": np.zeros((6, 4), np.float32)}, r"expected inputs of shape \(batch, 3\), got \(6, 4\)"),
        ({"layers": 2}, "layers: the state dict says 3, the settings 2"),
        ({"chanels": 4}, "chanels: unknown"),
        ({"state_dict": {}}, "state dict: expected .*ResBlocks.0.lin_in.values"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, message):
    given = {"x": DATA["gsnn_x"], "edges": EDGES, "counts": COUNTS, "state_dict": state_of("layer")}
    with pytest.raises(ModelError, match=message):
        gsnn_forward(**(given | change))
