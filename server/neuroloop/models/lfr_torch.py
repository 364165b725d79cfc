"""Learning from randomness: a backbone learns to predict what random, frozen projectors make of the same input.

    z = adapter(backbone(x)),    q_t = predictor_t(z),    v_t = projector_t(x),    loss = mean_t BT(q_t, v_t)

BT is the batch-wise Barlow Twins loss (`lfr_losses`). No label is needed: what many random functions of the input have
in common is the input, and a small backbone that predicts all of them must keep what tells inputs apart.

After minerva's LearnFromRandomnessModel, with these differences: similarities are clamped to [-1, 1] and not asserted
to lie there, which a perfect prediction fails by rounding; fewer targets than asked for are used and said; the adapter
is frozen together with the backbone; what the user froze stays frozen; the backbone takes exactly
`max_backbone_training_steps` steps; projectors are evaluated as a stack (`lfr_projectors`), in evaluation mode always.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from neuroloop.errors import ModelError
from neuroloop.models.dpp import Selection, lfr_kernel, select
from neuroloop.models.lfr_losses import LEAST_NORM, backbone_is_frozen
from neuroloop.models.lfr_projectors import ProjectorStack
from neuroloop.models.team import ALONE, Team

MOST_SAMPLES = 1000  # that a selection compares projectors on


class LearnFromRandomness(nn.Module):
    """backbone, adapter: learn from all targets. predictors: one for each projector, and with its outputs.

    x is whatever backbone and projectors take, samples first; the backbone gives (batch, ...) for the adapter, the
    adapter what the predictors take, predictors and projectors (batch, dim), the same dim for all.
    """

    def __init__(
        self,
        backbone: nn.Module,
        projectors: Sequence[nn.Module],
        predictors: Sequence[nn.Module],
        adapter: nn.Module | None = None,
        *,
        diag_lambda: float = 0.01,
        normalize: bool = True,
        predictor_training_epochs: int | None = None,
        max_backbone_training_steps: int | None = None,
    ) -> None:
        super().__init__()
        if len(projectors) != len(predictors) or not projectors:
            raise ModelError(
                "learning from randomness: expected a predictor for each projector, at least one; "
                f"got {len(projectors)} projectors and {len(predictors)} predictors"
            )
        self.backbone = backbone
        self.adapter = nn.Identity() if adapter is None else adapter
        self.predictors = nn.ModuleList(predictors)
        self.projectors = ProjectorStack(projectors)
        self.chosen = list(range(len(projectors)))
        self.backbone_steps = 0
        self.frozen = False
        self._diag_lambda, self._normalize = diag_lambda, normalize
        self._alone, self._most_steps = predictor_training_epochs, max_backbone_training_steps
        represents = [*self.backbone.parameters(), *self.adapter.parameters()]
        self._learns = [parameter for parameter in represents if parameter.requires_grad]
        self.begin_epoch(0)

    def select_targets(self, sample: Tensor, count: int, team: Team = ALONE) -> Selection:
        """Keep the targets that differ the most on a sample, at most 1000 inputs of it; see `dpp`.

        count: how many; 0, less, or more than there are: all that add anything. The numbers of the chosen projectors,
        among those that the model was made with, are `chosen`. Raises ModelError where none tells inputs apart.
        """
        with torch.no_grad():
            outputs = self.projectors(sample[:MOST_SAMPLES])
        kernel = torch.from_numpy(lfr_kernel(outputs.double().cpu().numpy()))
        team.take_first(kernel)  # all are to choose the same
        selection = select(kernel.numpy(), count)
        if not selection.indices:
            raise ModelError("learning from randomness: every projector gives 0 or values that are not finite")
        self.projectors = self.projectors.of(selection.indices)
        self.predictors = nn.ModuleList([self.predictors[index] for index in selection.indices])
        self.chosen = [self.chosen[index] for index in selection.indices]
        return selection

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Predictions and targets, (targets, batch, dim) each."""
        represented = self.adapter(self.backbone(x))
        predictions = torch.stack([predictor(represented) for predictor in self.predictors])
        with torch.no_grad():
            targets = self.projectors(x)
        if predictions.shape != targets.shape:
            raise ModelError(
                f"predictors: expected outputs like the projectors', {tuple(targets.shape)}, "
                f"got {tuple(predictions.shape)}"
            )
        return predictions, targets

    def loss(self, x: Tensor, team: Team = ALONE, batch: int | None = None) -> Tensor:
        """The mean over the targets; what these inputs add to it where they are the own part of a batch of that size.

        The predictions for them are compared with the targets of the whole batch, which have no gradient.
        """
        predictions, targets = self(x)
        count = targets.shape[1] if batch is None else batch
        own, whole = team.own(count).start, team.gathered(targets, count, dim=1)
        return barlow_twins(predictions, whole, self._diag_lambda, self._normalize, own).mean()

    def begin_epoch(self, epoch: int) -> None:
        """Freeze backbone and adapter, or not, as the schedule has it for this epoch, from 0 on."""
        self._freeze(backbone_is_frozen(epoch, self._alone) or self.has_done_its_steps)

    def after_step(self) -> None:
        """An optimiser has made a step: count it, and freeze the backbone with the last one that it has."""
        if not self.frozen:
            self.backbone_steps += 1
            if self.has_done_its_steps:
                self._freeze(True)

    @property
    def has_done_its_steps(self) -> bool:
        """Whether the backbone will not learn any more."""
        return self._most_steps is not None and self.backbone_steps >= self._most_steps

    def train(self, mode: bool = True) -> LearnFromRandomness:
        """A frozen backbone and the projectors stay in evaluation mode: their statistics are frozen too."""
        super().train(mode)
        self.backbone.train(mode and not self.frozen)
        self.adapter.train(mode and not self.frozen)
        return self

    def _freeze(self, frozen: bool) -> None:
        self.frozen = frozen
        for parameter in self._learns:
            parameter.requires_grad_(not frozen)
            if frozen:
                parameter.grad = None  # or an optimiser would go on with it
        self.train(self.training)

    def learned_parameters(self) -> list[nn.Parameter]:
        """For an optimiser: those of backbone and adapter, also while they are frozen, and of the predictors."""
        predicts = [parameter for parameter in self.predictors.parameters() if parameter.requires_grad]
        return [*self._learns, *predicts]


def barlow_twins(predictions: Tensor, targets: Tensor, diag_lambda: float, normalize: bool, first: int = 0) -> Tensor:
    """The loss of each target, (targets,); see `lfr_losses`. Both: (targets, batch, dim).

    The predictions may be those of a part of the batch, from its sample `first` on: then what they add to the loss.
    """
    q = functional.normalize(predictions, dim=2, eps=LEAST_NORM)
    v = functional.normalize(targets, dim=2, eps=LEAST_NORM)
    alike = (q @ v.transpose(1, 2)).clamp(-1.0, 1.0)
    own = alike.diagonal(first, 1, 2)
    off = alike.square().sum((1, 2)) - own.square().sum(1)
    loss = (own - 1.0).square().sum(1) + diag_lambda * off
    return loss / alike.shape[2] if normalize else loss
