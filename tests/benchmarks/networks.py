"""The networks of learning from randomness that both sides train: backbone, projectors, predictors, adapter.

They are made as a fit makes them at its defaults, from one seed, the projectors chosen among 24. PyTorch and pydantic
only, so that the peer's environment can make them too.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from tests.benchmarks import data
from torch import Tensor, nn

from neuroloop.models.backbones_torch import make_backbone
from neuroloop.models.dpp import lfr_kernel, select
from neuroloop.models.lfr_projectors import make_predictors, make_projectors, seeded
from neuroloop.models.lfr_settings import LFRFitSettings, LFRSettings

SETTINGS, FIT = LFRSettings(bins=data.WINDOW), LFRFitSettings(targets=data.TARGETS)


@dataclass(frozen=True, eq=False)
class Networks:
    """windows: (WINDOWS, WINDOW, UNITS)."""

    backbone: nn.Module
    adapter: nn.Module
    projectors: list[nn.Module]
    predictors: list[nn.Module]
    windows: Tensor


def make() -> Networks:
    windows = torch.from_numpy(data.rate_windows())
    projectors = make_projectors(FIT.projectors, data.WINDOW, data.UNITS, 0)
    with torch.no_grad():
        outputs = torch.stack([projector(windows[:1000]) for projector in projectors])
    chosen = select(lfr_kernel(outputs.double().numpy()), FIT.targets).indices
    predictors = make_predictors(FIT.predictors, len(chosen), FIT.adapter, FIT.projectors.outputs, 1)
    with seeded(2):
        adapter = nn.Linear(SETTINGS.width, FIT.adapter)
    backbone = make_backbone(SETTINGS, data.UNITS, 3)
    return Networks(backbone, adapter, [projectors[index] for index in chosen], predictors, windows)
