"""Openretina's LNP, reproduced on the arrays that it gave.

`v111_*` in the fixture is left out: it documents a fault of an old release (a roughness that can be negative).
"""

from pathlib import Path

import numpy as np
import pytest
import torch

from neuroloop.errors import ModelError
from neuroloop.models import lnp_losses, lnp_torch
from neuroloop.models.lnp_parameters import LNPSettings, make_parameters, unit_norm
from neuroloop.models.lnp_torch import LNPModule
from neuroloop.models.nonlinearities import rate
from neuroloop.reference import laplace_l2, lnp_correlation, lnp_crop, lnp_forward, lnp_poisson_loss

DATA = dict(np.load(Path(__file__).parents[1] / "fixtures" / "lnp.npz"))
CASES = ("r1", "r3", "r1nonorm", "r2exp", "edge")
SMOOTH_SPACE, SMOOTH_TIME, SPARSE = 0.3, 0.7, 0.11
SOFTPLUS = {"r3": {"a": 1.0, "b": 0.25, "w": 1.75}}
PADDINGS = {"None": None, "0": 0, "1": 1, "2": 2}


def close(actual, expected, tolerance=1e-5):
    np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


class Case:
    """One case of the fixture, by the names that its arrays have there."""

    def __init__(self, name):
        self.name = name
        self.nonlinearity = {"r2exp": "exp", "r3": "parametrized_softplus"}.get(name, "softplus")
        self.softplus = SOFTPLUS.get(name, {})
        self.normalize = bool(self["normalize"])

    def __getitem__(self, key):
        return DATA[f"{self.name}_{key}"]

    def module(self, suffix="", normalize=None):
        """As a module of ours, with the weights of a name."""
        x, space, time = self["x"], self[f"space_w{suffix}"], self[f"time_w{suffix}"]
        settings = LNPSettings(
            lags=time.shape[2],
            rank=len(space),
            kernel=space.shape[3:],
            nonlinearity=self.nonlinearity,
            normalize_weights=self.normalize if normalize is None else normalize,
        )
        frame = (x.shape[1], *x.shape[3:])
        arrays = {"space": space[None, :, :, 0], "time": time[:, :, :, 0, 0], "locations": self["loc"][None]}
        arrays |= {f"softplus_{key}": np.array([value]) for key, value in self.softplus.items()}
        return LNPModule(make_parameters(settings, 1, frame, arrays), settings, frame)


@pytest.fixture(params=CASES)
def case(request):
    return Case(request.param)


def total_loss(module, case):
    """Poisson loss and training total, as published: summed, the regulariser on the weights as they are used."""
    loss = lnp_torch.poisson_loss(module(torch.from_numpy(case["x"])), torch.from_numpy(case["target"])).sum()
    return loss, loss + module.regularisation(SMOOTH_SPACE, SMOOTH_TIME, SPARSE)


def test_the_forward_pass_is_as_published_on_whole_and_on_cropped_frames(case):
    arguments = (case["space_w"], case["time_w"], case.nonlinearity, case.normalize)
    close(lnp_forward(case["x"], *arguments, location=tuple(case["loc"]), **case.softplus), case["y"])
    close(lnp_forward(case["xc"], *arguments, **case.softplus), case["y"])


def test_the_forward_pass_leaves_the_weights_as_they_were(case):
    space, time = case["space_w"].copy(), case["time_w"].copy()
    lnp_forward(case["xc"], space, time, case.nonlinearity, case.normalize, **case.softplus)
    assert np.array_equal(space, case["space_w"])
    assert np.array_equal(time, case["time_w"])


def test_a_softplus_with_parameters_is_the_parametrised_one():
    case = Case("r3")
    close(lnp_forward(case["xc"], case["space_w"], case["time_w"], "softplus", a=1.0, b=0.25, w=1.75), case["y"])


def test_normalised_weights_are_as_published(case):
    for name in ("space_w", "time_w"):
        used = unit_norm(case[name][None])[0] if case.normalize else case[name]
        close(used, case[f"{name}_after"], 1e-6)


def test_the_crop_is_as_published():
    size = tuple(DATA["crop_HW"])
    for kh, kw, y, x, *span, height, width in DATA["crop_table"].tolist():
        y0, y1, x0, x1 = lnp_crop((kh, kw), (y, x), size)
        assert [y0, y1, x0, x1] == span
        assert (y1 - y0, x1 - x0) == (height, width)


def test_losses_and_correlation_of_each_case_are_as_published(case):
    close(lnp_poisson_loss(case["y"], case["target"]), case["train_loss"])
    close(lnp_poisson_loss(case["y"], case["target"]) / sum(case["y"].shape), case["val_loss"])
    close(lnp_correlation(case["y"], case["target"]), case["eval_corr"])


@pytest.mark.parametrize("variant", ["", "const_", "zero_"])
def test_losses_are_as_published_for_constant_and_zero_rates_too(variant):
    output = DATA["loss_out" + (f"_{variant}".rstrip("_"))]
    target = DATA["loss_tgt"]
    loss, correlation = lnp_losses.poisson_loss(output, target), lnp_losses.correlation(output, target)
    close(lnp_poisson_loss(output, target), DATA[f"pois_{variant}avg0"])
    close(loss.mean(), DATA[f"pois_{variant}avg1"])
    close(loss.mean(axis=(0, 1)), DATA[f"pois_{variant}per_neuron"])
    close(lnp_correlation(output, target), DATA[f"corr_{variant}avg1_neg0"])
    close(-correlation.mean(), DATA[f"corr_{variant}avg1_neg1"])
    close(correlation.sum(), DATA[f"corr_{variant}avg0_neg0"])
    close(-correlation.sum(), DATA[f"corr_{variant}avg0_neg1"])
    close(-correlation.mean(axis=0), DATA[f"corr_{variant}per_neuron_neg1"])
    tensors = torch.from_numpy(output), torch.from_numpy(target)
    close(lnp_torch.poisson_loss(*tensors).mean(dim=(0, 1)), DATA[f"pois_{variant}per_neuron"])
    close(-lnp_torch.correlation(*tensors).mean(dim=0), DATA[f"corr_{variant}per_neuron_neg1"])


@pytest.mark.parametrize("padding", PADDINGS)
def test_roughness_is_as_published(padding):
    zeros, name = PADDINGS[padding], f"pad{padding}"
    close(laplace_l2(DATA["reg_w2"], zeros), DATA[f"reg_LaplaceL2norm_{name}"])
    close(laplace_l2(DATA["reg_wt"], zeros), DATA[f"reg_TimeLaplaceL23dnorm_{name}"])
    close(laplace_l2(DATA["reg_ws"], zeros), DATA[f"reg_FlatLaplaceL23dnorm_{name}"])
    used, time = 1 if zeros is None else zeros, DATA["reg_wt"][..., 0, 0]
    close(lnp_losses.roughness(DATA["reg_w2"], used, average=True), DATA[f"reg_LaplaceL2norm_{name}_avg"])
    close(lnp_losses.roughness(time, used, axes=1, average=True), DATA[f"reg_TimeLaplaceL23dnorm_{name}_avg"])
    published = DATA[f"reg_Laplace1d_map_{name}"]
    close(lnp_losses.laplace_map(time, used, axes=1).reshape(published.shape), published)


@pytest.mark.parametrize("padding", ["None", "1"])
def test_roughness_outside_a_gaussian_is_as_published(padding):
    outside = lnp_losses.outside_gaussian(9, 7)
    close(1.0 - outside, DATA["reg_gauss_mask_9x7"])
    close(lnp_losses.roughness(DATA["reg_w2"], mask=outside), DATA[f"reg_GaussianLaplaceL2_pad{padding}"])


def test_kernels_of_zeros_are_not_rough():
    assert laplace_l2(np.zeros((3, 2, 9, 7))) == DATA["reg_zero_LaplaceL2norm"]


def test_the_parametrised_softplus_is_as_published():
    close(rate("parametrized_softplus", DATA["ps_x"], 1.5, -0.5, 2.0), DATA["ps_y_a1.5_b-0.5_w2"])


@pytest.mark.parametrize("when", ["before", "after"])
def test_regularisers_of_each_case_are_as_published(case, when):
    space, time = (case[f"{name}{'' if when == 'before' else '_after'}"] for name in ("space_w", "time_w"))
    laplace = SMOOTH_SPACE * laplace_l2(space) + SMOOTH_TIME * laplace_l2(time)
    average = lnp_losses.sparseness(space) + lnp_losses.sparseness(time)
    close(laplace + SPARSE * average, case[f"reg_{when}"])
    if when == "before":
        close(laplace, case["laplace_before"])
        close(average, case["l1avg_before"])
        close(np.abs(space).sum() + np.abs(time).sum(), case["l1sum_before"])


def test_the_training_total_is_as_published_and_normalising_functionally_gives_the_same(case):
    for module in (case.module(), case.module("_after", normalize=False)):
        loss, total = total_loss(module, case)
        close(loss.item(), case["train_loss"])
        close(total.item(), case["train_total"])


def test_gradients_and_one_step_of_adamw_are_as_published(case):
    # Upstream normalises in place, so that its gradients are those at the normalised weights.
    module = case.module("_after", normalize=False)
    total_loss(module, case)[1].backward()
    close(module.space.grad[0, :, :, None], case["grad_space"])
    close(module.time.grad[..., None, None], case["grad_time"])
    if case.name == "r3":
        close(module.softplus_b.grad.item(), case["grad_b"])
        close(module.softplus_w.grad.item(), case["grad_w"])
    torch.optim.AdamW([module.space, module.time], lr=1e-3, weight_decay=1e-2).step()
    close(module.space.detach()[0, :, :, None], case["space_w_step"])
    close(module.time.detach()[..., None, None], case["time_w_step"])


def test_a_receptive_field_over_the_border_sees_zeros_there():
    generator = np.random.default_rng(0)
    x, space = generator.standard_normal((2, 1, 5, 6, 6)), generator.standard_normal((1, 1, 1, 5, 5))
    time = generator.standard_normal((1, 1, 3, 1, 1))
    padded = np.pad(x, [(0, 0)] * 3 + [(3, 3)] * 2)
    for location in ((0, 0), (5, 0), (2, 5)):
        inside = (location[0] + 3, location[1] + 3)
        expected = lnp_forward(padded, space, time, location=inside)
        close(lnp_forward(x, space, time, location=location), expected, 1e-12)


def test_a_kernel_of_zeros_gives_the_rate_at_rest_and_not_nan():
    x = np.ones((1, 1, 4, 3, 3), np.float32)
    rates = lnp_forward(x, np.zeros((1, 1, 1, 3, 3)), np.zeros((1, 1, 2, 1, 1)), "exp")
    assert rates.ravel().tolist() == [1.0, 1.0, 1.0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"time_w": np.zeros((1, 2, 3, 1, 1))}, r"as many ranks as space_w.*time_w \(1, 2, 3, 1, 1\)"),
        ({"x": np.zeros((1, 2, 5, 4, 4))}, r"expected \(B, C, T_in, H, W\).*got x \(1, 2, 5, 4, 4\)"),
        ({"x": np.zeros((1, 1, 2, 4, 4))}, "at least as many frames as lags, 3, got 2"),
        ({"nonlinearity": "relu"}, "nonlinearity"),
        ({"c": 1.0}, r"has a, b and w; got \['c'\]"),
        ({"location": (9, 0)}, r"expected a pixel of a frame of 4 x 4, got \(9, 0\)"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(change, message):
    given = {"x": np.zeros((1, 1, 5, 4, 4)), "space_w": np.zeros((1, 1, 1, 4, 4)), "time_w": np.zeros((1, 1, 3, 1, 1))}
    with pytest.raises(ModelError, match=message):
        lnp_forward(**(given | change))
