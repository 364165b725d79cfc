"""The answer of a linear readout on a device, for decoders on class rates (`maxrate`, `poisson`).

As the kernels in `models.answer_kernels`, with static shapes, so that it can follow the chain's graph or take many rate
vectors at once. Numbers are float64 as there: a readout is small, and logits are differences of large sums.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from neuroloop.models.answer_kernels import ANSWERED, MISSING, SILENT
from neuroloop.models.readout import Readout


class TorchReadout(nn.Module):
    """Logits `rates @ matrix + bias`, their softmax over the eligible classes, and the best of these.

    Weights are buffers that `load` changes in place: a captured graph goes on with the new ones.
    """

    matrix: Tensor
    bias: Tensor
    eligible: Tensor
    speaks: Tensor
    needs_evidence: Tensor
    sharpness: Tensor
    indices: Tensor

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        double = torch.float64
        self.register_buffer("matrix", torch.zeros(features, classes, dtype=double))
        self.register_buffer("bias", torch.zeros(classes, dtype=double))
        self.register_buffer("eligible", torch.zeros(classes, dtype=torch.bool))
        self.register_buffer("speaks", torch.zeros(features, dtype=torch.bool))
        self.register_buffer("needs_evidence", torch.zeros((), dtype=torch.bool))
        self.register_buffer("sharpness", torch.zeros((), dtype=double))
        self.register_buffer("indices", torch.arange(classes))

    @torch.no_grad()
    def load(self, readout: Readout, sharpness: float = 1.0, needs_evidence: bool = False) -> None:
        """Use this readout from the next call on.

        sharpness: 1 over the temperature of the softmax. needs_evidence: whether silence of all features that speak for
        a class is no answer, as for `maxrate`.
        """
        self.matrix.copy_(torch.from_numpy(readout.matrix))
        self.bias.copy_(torch.from_numpy(readout.bias))
        self.eligible.copy_(torch.from_numpy(readout.eligible))
        self.needs_evidence.fill_(needs_evidence)
        self.speaks.copy_(torch.from_numpy((readout.matrix != 0).any(axis=1)))
        self.sharpness.fill_(sharpness)

    @torch.no_grad()
    def forward(self, rates: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits, probabilities (both (..., classes) float64), index and outcome (...,) for rates (..., features).

        outcome: ANSWERED, MISSING or SILENT, of `models.answer_kernels`; index means something only where it is
        ANSWERED. Where a rate is not finite, all is 0 but the outcome: the decoder on the CPU answers without that
        feature.
        """
        given = rates.double()
        missing = ~given.isfinite().all(-1, keepdim=True)
        given = given.masked_fill(missing, 0.0)
        logits = given @ self.matrix + self.bias
        spoken = ((given != 0) & self.speaks).any(-1, keepdim=True) | ~self.needs_evidence
        silent = (logits == 0).all(-1, keepdim=True) | ~spoken
        masked = logits.masked_fill(~self.eligible, -torch.inf)
        best = masked.amax(-1, keepdim=True)
        # The lowest of equals, as on the CPU; argmax leaves open which one it takes.
        index = torch.where((masked == best) & self.eligible, self.indices, len(self.indices)).amin(-1)
        weight = ((masked - best) * self.sharpness).exp().masked_fill(silent, 1.0).masked_fill(~self.eligible, 0.0)
        probability = weight / weight.sum(-1, keepdim=True).clamp(min=1e-300)
        outcome = torch.where(silent, SILENT, ANSWERED).masked_fill(missing, MISSING).squeeze(-1)
        return logits.masked_fill(missing, 0.0), probability.masked_fill(missing, 0.0), index, outcome
