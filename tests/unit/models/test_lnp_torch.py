import numpy as np
import pytest
import torch

from neuroloop.errors import ModelError
from neuroloop.models import lnp_losses, lnp_torch
from neuroloop.models.lnp import LNP
from neuroloop.models.lnp_parameters import LNPSettings
from neuroloop.models.lnp_torch import LNPModule, module_of


def make_bank(**chosen):
    generator = np.random.default_rng(0)
    settings = LNPSettings(**{"lags": 4, "rank": 2, "kernel": (3, 4), "history": 2, "coupling": 3} | chosen)
    normal = generator.standard_normal
    return LNP(
        5,
        (2, 6, 7),
        settings,
        space=normal((5, 2, 2, 3, 4)),
        time=normal((5, 2, 4)),
        gain=normal(5),
        bias=normal(5),
        softplus_a=[0.5, 1, 2, 1, 1],
        softplus_b=normal(5),
        softplus_w=[0.5, 1, 2, 3, 1],
        history=0.3 * normal((5, settings.history)),
        coupling=0.1 * normal((5, 5, settings.coupling)) * (1 - np.eye(5))[..., None],
        mean=normal(2),
        scale=[0.5, 2.0],
        locations=[[0, 0], [5, 6], [3, 3], [2, 5], [5, 0]],
    )


def make_recording(device="cpu"):
    generator = np.random.default_rng(1)
    x, counts = generator.standard_normal((3, 2, 9, 6, 7)), generator.poisson(0.5, (3, 9, 5)).astype(float)
    return x, counts, torch.from_numpy(x).to(device), torch.from_numpy(counts).to(device)


@pytest.mark.parametrize("nonlinearity", ["exp", "softplus", "parametrized_softplus"])
@pytest.mark.parametrize("normalize", [True, False])
def test_the_module_gives_the_rates_of_the_bank(nonlinearity, normalize):
    bank = make_bank(nonlinearity=nonlinearity, normalize_weights=normalize)
    x, counts, stimulus, spikes = make_recording()
    rates = module_of(bank).double()(stimulus, spikes).detach().numpy()
    np.testing.assert_allclose(rates, bank.forward(x, counts), rtol=1e-6)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU")
def test_the_module_gives_the_rates_of_the_bank_on_a_gpu():
    bank = make_bank()
    x, counts, stimulus, spikes = make_recording("cuda")
    rates = module_of(bank).to("cuda")(stimulus.float(), spikes.float()).detach().cpu().numpy()
    np.testing.assert_allclose(rates, bank.forward(x, counts), rtol=1e-3, atol=1e-4)


def test_an_export_is_what_the_module_was_made_of():
    bank = make_bank()
    exported = module_of(bank).export()
    for name, array in bank.parameters.arrays().items():
        assert np.array_equal(getattr(exported, name), array), name


def test_a_learned_kernel_of_zeros_has_a_finite_gradient():
    settings = LNPSettings(lags=2)
    module = LNPModule(LNP(1, (1, 3, 3), settings).parameters, settings, (1, 3, 3))
    module(torch.ones(1, 1, 4, 3, 3)).sum().backward()
    assert all(torch.isfinite(p.grad).all() for p in module.parameters() if p.grad is not None)


@pytest.mark.parametrize(
    ("nonlinearity", "learn_a", "learned"),
    [
        ("softplus", True, set()),
        ("parametrized_softplus", False, {"b", "w"}),
        ("parametrized_softplus", True, set("abw")),
    ],
)
def test_of_the_softplus_only_what_is_asked_for_is_learned(nonlinearity, learn_a, learned):
    module = module_of(make_bank(nonlinearity=nonlinearity, learn_a=learn_a))
    found = {name for name in "abw" if getattr(module, f"softplus_{name}").requires_grad}
    assert found == learned


def test_losses_and_roughness_are_those_of_numpy():
    generator = np.random.default_rng(0)
    output, target = generator.uniform(0.1, 2, (2, 7, 3)), generator.poisson(1.0, (2, 9, 3)).astype(float)
    tensors = torch.from_numpy(output), torch.from_numpy(target)
    np.testing.assert_allclose(lnp_torch.poisson_loss(*tensors), lnp_losses.poisson_loss(output, target))
    np.testing.assert_allclose(lnp_torch.correlation(*tensors), lnp_losses.correlation(output, target))
    weights = generator.standard_normal((2, 3, 1, 5, 4))
    for axes in (1, 2):
        rough = lnp_torch.roughness(torch.from_numpy(weights), axes)
        np.testing.assert_allclose(rough, [lnp_losses.roughness(cell, axes=axes) for cell in weights])


def test_a_constant_rate_at_the_mean_carries_no_information():
    counts = np.random.default_rng(0).poisson(0.3, (500, 2))
    rates = np.broadcast_to(counts.mean(axis=0), counts.shape)
    np.testing.assert_allclose(lnp_losses.bits_per_spike(rates, counts), 0.0, atol=1e-9)
    assert np.isnan(lnp_losses.bits_per_spike(np.ones((5, 1)), np.zeros((5, 1)))).all()


def test_knowing_every_bin_carries_the_logarithm_of_the_gain():
    counts = np.tile([[4.0], [0.0], [0.0], [0.0]], (10, 1))
    assert lnp_losses.bits_per_spike(counts, counts)[0] == pytest.approx(2.0)


def test_a_target_that_does_not_fit_is_refused():
    with pytest.raises(ModelError, match=r"at least as long as \(1, 5, 2\), got \(1, 4, 2\)"):
        lnp_losses.poisson_loss(np.ones((1, 5, 2)), np.ones((1, 4, 2)))


def test_spike_filters_without_counts_are_refused():
    bank = make_bank()
    x, _, stimulus, _ = make_recording()
    with pytest.raises(ModelError, match="spike filters"):
        module_of(bank).double()(stimulus)
    with pytest.raises(ModelError, match="spike filters"):
        bank.forward(x)
