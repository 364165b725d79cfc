"""Backbones for windows of standardised rates, as they are trained: (batch, bins, units) -> (batch, width), >= 0.

Both end in a ReLU, so that MaxRate can be their head. As a session runs them, without PyTorch: `backbones`.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroloop.models.lfr_projectors import seeded
from neuroloop.models.lfr_settings import LFRSettings

F32 = NDArray[np.float32]


class ConvBackbone(nn.Module):
    """`depth` convolutions over time without padding, each followed by a ReLU; then the mean over time."""

    def __init__(self, units: int, settings: LFRSettings) -> None:
        super().__init__()
        width = settings.width
        layers = range(settings.depth)
        self.layers = nn.ModuleList(nn.Conv1d(width if layer else units, width, settings.kernel) for layer in layers)

    def forward(self, x: Tensor) -> Tensor:
        values = x.transpose(1, 2)
        for layer in self.layers:
            values = torch.relu(layer(values))
        return values.mean(2)

    def export(self) -> dict[str, F32]:
        """By the names and in the layout of `backbones`."""
        arrays, found = {}, _arrays(self)
        for number in range(len(self.layers)):
            weight = found[f"layers.{number}.weight"].transpose(2, 1, 0)  # (kernel, inputs, width)
            arrays[f"weight{number}"] = np.ascontiguousarray(weight.reshape(-1, weight.shape[2]))
            arrays[f"bias{number}"] = found[f"layers.{number}.bias"]
        return arrays


class GRUBackbone(nn.Module):
    """A gated recurrent unit from rest over the window; features are a rectified readout of its last state."""

    def __init__(self, units: int, settings: LFRSettings) -> None:
        super().__init__()
        self.unit = nn.GRU(units, settings.width, batch_first=True)
        self.readout = nn.Linear(settings.width, settings.width)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.readout(self.unit(x)[1][-1]))

    def export(self) -> dict[str, F32]:
        """By the names and in the layout of `backbones`."""
        found = _arrays(self)
        return {
            "inputs": np.ascontiguousarray(found["unit.weight_ih_l0"].T),
            "input_bias": found["unit.bias_ih_l0"],
            "states": np.ascontiguousarray(found["unit.weight_hh_l0"].T),
            "state_bias": found["unit.bias_hh_l0"],
            "readout": np.ascontiguousarray(found["readout.weight"].T),
            "readout_bias": found["readout.bias"],
        }


Backbone = ConvBackbone | GRUBackbone


def make_backbone(settings: LFRSettings, units: int, seed: int) -> Backbone:
    """With first weights of this seed."""
    with seeded(seed):
        return ConvBackbone(units, settings) if settings.backbone == "conv" else GRUBackbone(units, settings)


def _arrays(module: nn.Module) -> dict[str, F32]:
    return {name: tensor.detach().cpu().float().numpy().copy() for name, tensor in module.state_dict().items()}
