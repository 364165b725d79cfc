"""A GSNN as a PyTorch module, for fitting: `gsnn_parameters` has the formulas, this the gradients.

The sparse products are dense here, with the weights put in their places: at hundreds of nodes a matrix product is far
faster than a sparse one. As published, no gradient flows through the mean and the deviation of a norm. What is asked of
a forward pass is returned by it, and nothing of it stays on the module, which can be copied, moved and exchanged.
"""

from __future__ import annotations

import math
from dataclasses import fields
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuroloop.errors import ModelError
from neuroloop.models.gsnn_graph import Graph
from neuroloop.models.gsnn_parameters import LAYER_EPS, RMS_EPS, GSNNParameters, make_parameters
from neuroloop.models.gsnn_settings import NetworkSettings

NAMES = tuple(entry.name for entry in fields(GSNNParameters))


class Passed(NamedTuple):
    """outputs: (batch, outputs). activations: A of each layer, (batch, functions, channels). edges: (batch, edges)."""

    outputs: Tensor
    activations: list[Tensor]
    edges: Tensor


class GSNNModule(nn.Module):
    """Its parameters have the names of `GSNNParameters`; all are learned, except the residuals where there are none."""

    residual: Tensor
    in_weight: Tensor
    in_bias: Tensor
    out_weight: Tensor
    out_bias: Tensor
    norm_gain: Tensor
    norm_shift: Tensor
    mlp_in: Tensor
    mlp_in_bias: Tensor
    mlp_gain: Tensor
    mlp_shift: Tensor
    mlp_out: Tensor
    mlp_out_bias: Tensor
    attention_in: Tensor
    attention_in_bias: Tensor
    attention_gain: Tensor
    attention_shift: Tensor
    attention_out: Tensor
    attention_out_bias: Tensor
    into: Tensor
    out_of: Tensor
    from_inputs: Tensor
    to_outputs: Tensor
    target: Tensor
    source: Tensor
    feature: Tensor
    output: Tensor
    heard: Tensor

    def __init__(self, graph: Graph, settings: NetworkSettings, parameters: GSNNParameters) -> None:
        super().__init__()
        self.graph, self.settings = graph, settings
        for name, array in parameters.arrays().items():
            learned = array.size > 0 and (name != "residual" or settings.residual)
            setattr(self, name, nn.Parameter(torch.from_numpy(array.copy()), requires_grad=learned))
        source, target = torch.from_numpy(graph.edge_index)
        into, out_of = torch.from_numpy(graph.into_functions), torch.from_numpy(graph.out_of_functions)
        from_inputs, to_outputs = torch.from_numpy(graph.from_inputs), torch.from_numpy(graph.into_outputs)
        output = target[to_outputs] - graph.functions - graph.inputs
        self.register_buffer("into", into)
        self.register_buffer("out_of", out_of)
        self.register_buffer("from_inputs", from_inputs)
        self.register_buffer("to_outputs", to_outputs)
        self.register_buffer("target", target[into])
        self.register_buffer("source", source[out_of])
        self.register_buffer("feature", source[from_inputs] - graph.functions)
        self.register_buffer("output", output)
        self.register_buffer("heard", torch.bincount(output, minlength=graph.outputs).sqrt())

    def forward(self, x: Tensor) -> Passed:
        """x: (batch, inputs), finite."""
        graph, count = self.graph, self.settings.layers
        if x.ndim != 2 or x.shape[1] != graph.inputs:
            raise ModelError(f"GSNN: expected inputs of shape (batch, {graph.inputs}), got {tuple(x.shape)}")
        edges = x.new_zeros(len(x), graph.edge_count).index_copy(1, self.from_inputs, x[:, self.feature])
        activations = []
        for layer in range(count):
            h = (edges[:, self.into] @ self._dense_in(layer)).view(len(x), graph.functions, -1)
            activation = self._nodes(h + self.in_bias[layer], layer)
            leaving = activation.flatten(1) @ self._dense_out(layer).T
            after = self.out_bias[layer].expand(len(x), -1).index_add(1, self.out_of, leaving)
            edges = after + functional.relu(self.residual[layer]) * edges if self.settings.residual else after
            activations.append(activation)
        if self.settings.residual:
            edges = edges / math.sqrt(count)
        sums = x.new_zeros(len(x), graph.outputs).index_add(1, self.output, edges[:, self.to_outputs])
        return Passed(sums / self.heard, activations, edges)

    def _dense_in(self, layer: int) -> Tensor:
        """(edges into functions, functions * channels)."""
        return self._dense(self.in_weight[layer], self.target)

    def _dense_out(self, layer: int) -> Tensor:
        """(edges out of functions, functions * channels)."""
        return self._dense(self.out_weight[layer], self.source)

    def _dense(self, weight: Tensor, function: Tensor) -> Tensor:
        blank = weight.new_zeros(len(weight), self.graph.functions, weight.shape[1])
        return blank.index_put((torch.arange(len(weight), device=weight.device), function), weight).flatten(1)

    def _nodes(self, h: Tensor, layer: int) -> Tensor:
        """A from h, (batch, functions, channels)."""
        first = self.settings.norm_first
        h = functional.elu(self._normed(h, layer)) if first else self._normed(functional.elu(h), layer)
        if self.settings.mlp:
            h = self._mlp(h, layer)
        if self.settings.attention:
            h = self._gated(h, layer)
        return h

    def _normed(self, h: Tensor, layer: int) -> Tensor:
        match self.settings.norm:
            case "layer":
                mean = h.mean(2, keepdim=True).detach()
                deviation = (h.std(2, keepdim=True) + LAYER_EPS).detach()
                return self.norm_gain[layer][:, None] * (h - mean) / deviation + self.norm_shift[layer][:, None]
            case "rms":
                size = (h.square().mean(2, keepdim=True) + RMS_EPS).sqrt().detach()
                return self.norm_gain[layer][:, None] * h / size
            case "softmax":
                return h.softmax(2)
        return h

    def _mlp(self, h: Tensor, layer: int) -> Tensor:
        hidden = functional.linear(h, self.mlp_in[layer], self.mlp_in_bias[layer])
        hidden = functional.layer_norm(hidden, hidden.shape[-1:], self.mlp_gain[layer], self.mlp_shift[layer])
        return functional.linear(functional.elu(hidden), self.mlp_out[layer], self.mlp_out_bias[layer])

    def _gated(self, h: Tensor, layer: int) -> Tensor:
        hidden = functional.elu(functional.linear(h, self.attention_in[layer], self.attention_in_bias[layer]))
        gain, shift = self.attention_gain[layer], self.attention_shift[layer]
        hidden = functional.layer_norm(hidden, hidden.shape[-1:], gain, shift)
        logits = hidden @ self.attention_out[layer] + self.attention_out_bias[layer]
        return h * logits.sigmoid()[..., None]

    def export(self) -> GSNNParameters:
        """The parameters as numpy arrays. Raises ModelError where a fit left values that are not finite."""
        arrays: dict[str, Any] = {name: getattr(self, name).detach().cpu().float().numpy() for name in NAMES}
        return make_parameters(self.settings, self.graph, arrays)
