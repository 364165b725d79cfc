"""Random projectors and the predictors of what they give, made from settings; and many projectors as one product.

A projector is a random function of a window of rates, (batch, bins, units) -> (batch, outputs). The default is a mix of
kinds and widths, from which `dpp` keeps those that differ the most.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import cycle, islice, product

import torch
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state

from neuroloop.errors import ModelError
from neuroloop.models.lfr_settings import PredictorSettings, ProjectorKind, ProjectorSettings


class TimeLast(nn.Module):
    """(batch, bins, units) -> (batch, units, bins), as convolutions take it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


class MeanOverTime(nn.Module):
    """(batch, width, bins) -> (batch, width)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean(2)


def make_projectors(settings: ProjectorSettings, bins: int, units: int, seed: int) -> list[nn.Module]:
    """`settings.count` projectors of windows (bins, units): every kind, width and depth in turn, each of its own seed.

    Raises ModelError where a convolution is longer than the window.
    """
    settings.check_window(bins)
    forms = product(settings.kinds, settings.depths, settings.widths)
    made = []
    for number, (kind, depth, width) in enumerate(islice(cycle(forms), settings.count)):
        with seeded(seed + number):
            made.append(_projector(kind, bins, units, width, depth, settings))
    return made


def make_predictors(settings: PredictorSettings, count: int, inputs: int, outputs: int, seed: int) -> list[nn.Module]:
    """As many predictors, (batch, inputs) -> (batch, outputs)."""
    with seeded(seed):
        return [_perceptron(inputs, settings.width, settings.depth, outputs) for _ in range(count)]


def _projector(
    kind: ProjectorKind, bins: int, units: int, width: int, depth: int, settings: ProjectorSettings
) -> nn.Module:
    if kind == "linear":
        return nn.Sequential(nn.Flatten(), nn.Linear(bins * units, settings.outputs))
    if kind == "mlp":
        return nn.Sequential(nn.Flatten(), _perceptron(bins * units, width, depth, settings.outputs))
    layers: list[nn.Module] = [TimeLast()]
    for layer in range(depth):
        layers += [nn.Conv1d(width if layer else units, width, settings.kernel), nn.ReLU()]
    return nn.Sequential(*layers, MeanOverTime(), nn.Linear(width, settings.outputs))


def _perceptron(inputs: int, width: int, depth: int, outputs: int) -> nn.Module:
    """depth: hidden layers; 0 is linear."""
    layers: list[nn.Module] = []
    for layer in range(depth):
        layers += [nn.Linear(width if layer else inputs, width), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(width if depth else inputs, outputs))


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Run with PyTorch's generator at a seed, and leave it as it was."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


class ProjectorStack(nn.Module):
    """Projectors, frozen and always in evaluation mode: x -> (projectors, batch, outputs).

    Those that differ in nothing but their weights are evaluated as one, with the weights stacked (`torch.func`): the
    default mix of 24 is 9 products, not 24. Which they are is read from how modules print themselves, so it is done
    for modules of PyTorch and of this file only; any other is evaluated for itself.
    """

    def __init__(self, projectors: Sequence[nn.Module]) -> None:
        super().__init__()
        self._given = tuple(projectors)  # in a tuple, whose modules are not this one's
        forms: dict[object, list[int]] = {}
        for number, projector in enumerate(projectors):
            projector.requires_grad_(False).eval()
            forms.setdefault(_form(projector) or number, []).append(number)
        self._groups = list(forms.values())
        self.alone = nn.ModuleDict()
        self._stacked: list[dict[str, str]] = []  # of each group, the name of a weight -> that of the buffer with all
        for number, group in enumerate(self._groups):
            names = {}
            if len(group) == 1:
                self.alone[str(number)] = projectors[group[0]]
            else:
                weights, buffers = stack_module_state([projectors[index] for index in group])
                for name, tensor in (weights | buffers).items():
                    names[name] = f"group{number}_{name.replace('.', '_')}"
                    self.register_buffer(names[name], tensor.detach())
            self._stacked.append(names)

    def of(self, chosen: Sequence[int]) -> ProjectorStack:
        """Some of them, in this order; where these are."""
        device = next((tensor.device for tensor in self.state_dict().values()), torch.device("cpu"))
        return ProjectorStack([self._given[index] for index in chosen]).to(device)

    def forward(self, x: Tensor) -> Tensor:
        outputs: list[Tensor] = [x] * len(self._given)
        for number, group in enumerate(self._groups):
            for index, output in zip(group, self._evaluate(number, x), strict=True):
                outputs[index] = output
        shapes = {tuple(output.shape) for output in outputs}
        if len(shapes) > 1 or outputs[0].ndim != 2:
            raise ModelError(f"projectors: expected (batch, outputs), the same for all; got {sorted(shapes)}")
        return torch.stack(outputs)

    def train(self, mode: bool = True) -> ProjectorStack:
        """In evaluation mode, whatever is asked."""
        super().train(False)
        return self

    def _evaluate(self, number: int, x: Tensor) -> Sequence[Tensor]:
        """The outputs of each projector of a group."""
        names = self._stacked[number]
        if str(number) in self.alone:
            return [self.alone[str(number)](x)]
        form = self._given[self._groups[number][0]]

        def one(weights: dict[str, Tensor], x: Tensor) -> Tensor:
            output: Tensor = functional_call(form, weights, (x,))
            return output

        weights = {name: getattr(self, buffer) for name, buffer in names.items()}
        outputs: Tensor = torch.vmap(one, in_dims=(0, None))(weights, x)
        return outputs.unbind()


def _form(projector: nn.Module) -> object:
    """What a projector is apart from its weights, or None where that cannot be told."""
    for module in projector.modules():
        if not type(module).__module__.startswith(("torch.nn.modules.", __name__)):
            return None
    return repr(projector)
