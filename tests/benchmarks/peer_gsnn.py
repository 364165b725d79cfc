"""GSNN's side of the table: a decision of one rate vector in the published sparse form.

GSNN is a repository without a package, so this is its formula (`neuroloop.models.gsnn_parameters`) in PyTorch's own
scatter operations, in our own environment: values are gathered along the edges, weighed, and added up at the nodes that
they lead to. Inference mode, one thread; it ends in the logits, where ours goes on to probabilities.
"""

import numpy as np
import torch
from tests.benchmarks import data
from tests.benchmarks.workers import Work, serve

PACKAGES = ("torch", "numpy")
EPS = 0.1


class Sparse:
    """The network; x: (inputs,) -> (outputs,)."""

    def __init__(self) -> None:
        arrays = data.gsnn()
        source, target = torch.from_numpy(arrays.pop("edges"))
        outputs = data.FUNCTIONS + data.INPUTS
        self.weights = {name: torch.from_numpy(array) for name, array in arrays.items()}
        self.into, self.out_of = (torch.nonzero(end < data.FUNCTIONS)[:, 0] for end in (target, source))
        self.heard, self.speaker = target[self.into], source[self.out_of]
        self.from_inputs = torch.nonzero((source >= data.FUNCTIONS) & (source < outputs))[:, 0]
        self.input = source[self.from_inputs] - data.FUNCTIONS
        self.to_outputs = torch.nonzero(target >= outputs)[:, 0]
        self.output = target[self.to_outputs] - outputs
        degree = torch.bincount(self.output, minlength=data.OUTPUTS)
        self.scale = 1 / torch.sqrt(degree * data.LAYERS)
        self.edge_count = len(source)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        edges = torch.zeros(self.edge_count)
        edges[self.from_inputs] = x[self.input]
        for layer in range(data.LAYERS):
            own = {name: array[layer] for name, array in self.weights.items()}
            carried = edges[self.into, None] * own["in_weight"]
            h = own["in_bias"].index_add(0, self.heard, carried)
            h = (h - h.mean(1, keepdim=True)) / (h.std(1, keepdim=True) + EPS)
            h = torch.nn.functional.elu(h * own["norm_gain"][:, None] + own["norm_shift"][:, None])
            said = (h[self.speaker] * own["out_weight"]).sum(1)
            edges = (own["out_bias"] + torch.relu(own["residual"]) * edges).index_add(0, self.out_of, said)
        return torch.zeros(data.OUTPUTS).index_add(0, self.output, edges[self.to_outputs]) * self.scale


def decision() -> Work:
    network, inputs = Sparse(), torch.from_numpy(data.gsnn_inputs())
    results = {"logits": np.stack([network(x).numpy() for x in inputs])}
    next_input = data.in_turn(inputs)
    return Work(lambda: network(next_input()), results)


if __name__ == "__main__":
    torch.set_num_threads(1)
    with torch.inference_mode():
        serve(PACKAGES, {"gsnn_decision_200x1000x4": decision})
