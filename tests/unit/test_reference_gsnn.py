"""The pathway regulariser of GSNN, reproduced on the arrays that it gave."""

from pathlib import Path

import numpy as np
import pytest
import torch

from neuroloop.reference import pathway_losses

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


def close(actual, expected, tolerance=1e-4):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


def activations_of(tag):
    if tag == "const_node":
        return [DATA["A_const_node0"]]
    return [DATA[f"A{layer}"] for layer in range(1 if tag == "one_layer" else LAYERS)]


@pytest.fixture(params=LOSSES)
def loss(request):
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
