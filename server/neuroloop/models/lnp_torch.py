"""The LNP bank as a PyTorch module: for fitting, and for whole recordings on any device.

The kernels are laid over the box of the frame that holds all of them, so that projecting a recording is one matrix
product; the temporal kernels are one grouped convolution. Losses and regularisers: `neuroloop.models.lnp_losses`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from neuroloop.errors import ModelError
from neuroloop.models.lnp_losses import EPS, NORM_EPS
from neuroloop.models.lnp_parameters import LNPParameters, LNPSettings, make_parameters
from neuroloop.models.nonlinearities import LARGEST
from neuroloop.models.receptive_fields import Frame, lay_out

LEARNED = ("space", "time", "gain", "bias", "softplus_a", "softplus_b", "softplus_w", "history", "coupling")


class LNPModule(nn.Module):
    """The cells of `parameters`, on frames (channels, rows, columns). Its parameters have the names of `LNPParameters`.

    Of the softplus, b and w are learned where it is the parametrised one, and a if `learn_a`.
    """

    space: Tensor
    time: Tensor
    gain: Tensor
    bias: Tensor
    softplus_a: Tensor
    softplus_b: Tensor
    softplus_w: Tensor
    history: Tensor
    coupling: Tensor
    mean: Tensor
    scale: Tensor
    index: Tensor
    others: Tensor

    def __init__(self, parameters: LNPParameters, settings: LNPSettings, frame: Frame) -> None:
        super().__init__()
        self.settings, self.frame = settings, frame
        self._given = parameters
        self._layout = lay_out(parameters.locations, settings.kernel_on(frame), frame)
        fixed = set() if settings.learn_a else {"softplus_a"}
        if settings.nonlinearity != "parametrized_softplus":
            fixed |= {"softplus_a", "softplus_b", "softplus_w"}
        for name in LEARNED:
            learns = name not in fixed and getattr(parameters, name).size > 0
            setattr(self, name, nn.Parameter(torch.from_numpy(getattr(parameters, name).copy()), requires_grad=learns))
        self.register_buffer("mean", torch.from_numpy(parameters.mean.copy()))
        self.register_buffer("scale", torch.from_numpy(parameters.scale.copy()))
        self.register_buffer("index", torch.from_numpy(self._layout.index.copy()))
        others = 1.0 - np.eye(len(parameters.gain), dtype=np.float32)
        self.register_buffer("others", torch.from_numpy(others)[..., None])

    def forward(self, x: Tensor, counts: Tensor | None = None) -> Tensor:
        """Rates, (batch, frames - lags + 1, cells).

        x: (batch, channels, frames, rows, columns), finite. counts: (batch, frames, cells), for spike filters.
        """
        return self.respond(self.drive(self.pixels(x), counts))

    def pixels(self, x: Tensor) -> Tensor:
        """What the kernels see of the frames, standardised: (batch, frames, pixels). Nothing in it is learned."""
        if x.ndim != 5 or (x.shape[1], x.shape[3], x.shape[4]) != self.frame:
            raise ModelError(
                f"stimulus: expected (batch, channels, frames, rows, columns) of {self.frame}, got {x.shape}"
            )
        shape = (-1, 1, 1, 1)
        cut: Tensor = self._layout.cut(x)
        box = (cut - self.mean.view(shape)) / self.scale.view(shape)
        return box.transpose(1, 2).flatten(2)

    def kernels(self) -> tuple[Tensor, Tensor]:
        """Spatial and temporal kernels as they are used."""
        if not self.settings.normalize_weights:
            return self.space, self.time
        return unit_norm(self.space), unit_norm(self.time)

    def drive(self, pixels: Tensor, counts: Tensor | None = None) -> Tensor:
        """z, (batch, frames - lags + 1, cells), from what `pixels` gave."""
        space, time = self.kernels()
        cells, rank, lags = time.shape
        laid = space.new_zeros(cells, rank, self._layout.pixels + 1)
        laid = laid.scatter(2, self.index[:, None].expand(-1, rank, -1), space.flatten(2))[..., :-1]
        projections = (pixels @ laid.flatten(0, 1).T).transpose(1, 2)
        drive = functional.conv1d(projections, time, groups=cells).transpose(1, 2)
        drive = self.gain * drive + self.bias
        if self.history.shape[1] + self.coupling.shape[2] == 0:
            return drive
        if counts is None:
            raise ModelError("counts: this model has spike filters; expected (batch, frames, cells), got none")
        return drive + self._spike_drive(counts)[:, lags - 1 :]

    def respond(self, drive: Tensor) -> Tensor:
        """f(z). A negative w counts as its magnitude, so that no step of an optimiser makes a rate negative."""
        if self.settings.nonlinearity == "exp":
            return drive.clamp(max=LARGEST).exp()
        if self.settings.nonlinearity == "softplus":
            return softplus(drive)
        return self.softplus_w.abs() * softplus(self.softplus_a * drive + self.softplus_b)

    def regularisation(self, smooth_space: float, smooth_time: float, sparse: float) -> Tensor:
        """`smooth_space Lap2(s) + smooth_time Lap1(t) + sparse (mean |s| + mean |t|)`, averaged over the cells."""
        space, time = self.kernels()
        per_cell = sparse * (space.abs().flatten(1).mean(1) + time.abs().flatten(1).mean(1))
        if smooth_space:
            per_cell = per_cell + smooth_space * roughness(space, 2)
        if smooth_time:
            per_cell = per_cell + smooth_time * roughness(time, 1)
        return per_cell.mean()

    def export(self) -> LNPParameters:
        """The parameters as numpy arrays. Raises ModelError where the fit left values that are not finite."""
        learned = {name: getattr(self, name).detach().cpu().float().numpy() for name in LEARNED}
        learned["softplus_w"] = np.abs(learned["softplus_w"])
        learned["coupling"] = learned["coupling"] * self.others.cpu().float().numpy()
        given = self._given.arrays() | learned
        return make_parameters(self.settings, len(self._given.gain), self.frame, given)

    def _spike_drive(self, counts: Tensor) -> Tensor:
        spikes = counts.transpose(1, 2)
        drive = torch.zeros_like(spikes)
        for kernels, groups in ((self.history[:, None], len(self.gain)), (self.coupling * self.others, 1)):
            lags = kernels.shape[2]
            if lags:
                before = functional.pad(spikes, (lags, 0))[..., :-1]
                drive = drive + functional.conv1d(before, kernels.flip(2), groups=groups)
        return drive.transpose(1, 2)


def softplus(x: Tensor) -> Tensor:
    """log(1 + exp(x)): torch's own is linear from 20 on, 2e-9 too little for float64."""
    return functional.softplus(x, threshold=40.0)


def unit_norm(weights: Tensor) -> Tensor:
    """Each cell's weights, (cells, ...), over their norm; zeros stay zeros, with a finite gradient."""
    square = weights.square().flatten(1).sum(1)
    norm = torch.where(square > 0, square, torch.ones_like(square)).sqrt()
    return weights / norm.view(-1, *[1] * (weights.ndim - 1))


def poisson_loss(output: Tensor, target: Tensor) -> Tensor:
    """The loss of each bin; the target's leading frames that the output does not have are dropped."""
    return output - target[:, target.shape[1] - output.shape[1] :] * torch.log(output + EPS)


def correlation(output: Tensor, target: Tensor) -> Tensor:
    """Of each cell in each batch, (batch, cells), as in `neuroloop.models.lnp_losses`."""
    target = target[:, target.shape[1] - output.shape[1] :]
    output, target = output - output.mean(1, keepdim=True), target - target.mean(1, keepdim=True)
    return (output * target).mean(1) / ((output.square().mean(1) + EPS) * (target.square().mean(1) + EPS)).sqrt()


def roughness(weights: Tensor, axes: int) -> Tensor:
    """Lap(w) of each cell, (cells,), over the last one or two axes of (cells, ...), with one zero around."""
    padded = functional.pad(weights, (1, 1) * axes)
    if axes == 1:
        rough = 2 * weights - padded[..., :-2] - padded[..., 2:]
    else:
        rows, columns = padded[..., 1:-1], padded[..., 1:-1, :]
        rough = 4 * weights - rows[..., :-2, :] - rows[..., 2:, :] - columns[..., :-2] - columns[..., 2:]
    return rough.square().flatten(1).sum(1) / (weights.square().flatten(1).sum(1) + NORM_EPS)


def module_of(bank: Any) -> LNPModule:
    """The module of a streaming bank (`neuroloop.models.lnp.LNP`), for its rates on a device."""
    return LNPModule(bank.parameters, bank.settings, bank.frame)
