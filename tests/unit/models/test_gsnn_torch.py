import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.unit.models.gsnn_networks import VARIANTS, make_graph, make_network, make_uneven_graph

from neuroloop.errors import ModelError
from neuroloop.models import gsnn_published
from neuroloop.models.gsnn_parameters import make_parameters, start
from neuroloop.models.gsnn_settings import GSNNSettings
from neuroloop.models.gsnn_torch import GSNNModule

DATA = dict(np.load(Path(__file__).parents[2] / "fixtures" / "gsnn_plr.npz"))
TAGS = {"layer": {}, "none_mlp": {}, "rms": {}, "softmax": {"norm_first": False}, "nores": {"residual": False}}
TAGS |= {"attn": {}, "noshare": {}}


def published(tag):
    prefix = f"gsnn_{tag}_sd::"
    state = {name.removeprefix(prefix): array for name, array in DATA.items() if name.startswith(prefix)}
    edges = {name: array for name, array in DATA.items() if name.startswith("edges_")}
    return gsnn_published.read_graph(edges, DATA["n_in_fn_out"]), state


@pytest.mark.parametrize("tag", TAGS)
def test_the_edges_carry_what_was_published(tag):
    graph, state = published(tag)
    module = GSNNModule(graph, *gsnn_published.read(graph, state, TAGS[tag]))
    passed = module(torch.from_numpy(DATA["gsnn_x"]))
    np.testing.assert_allclose(passed.edges.detach(), DATA[f"gsnn_{tag}_edge_out"], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("tag", TAGS)
def test_a_published_state_dict_is_written_as_it_was_read(tag):
    graph, state = published(tag)
    written = gsnn_published.write(graph, *gsnn_published.read(graph, state, TAGS[tag]))
    assert written.keys() == state.keys()
    for name, array in state.items():
        np.testing.assert_array_equal(written[name], array, err_msg=name)


@pytest.mark.parametrize("variant", VARIANTS)
def test_any_network_is_read_back_from_its_published_state_dict(variant):
    graph = make_uneven_graph()
    settings, parameters = make_network(graph, **VARIANTS[variant])
    state = gsnn_published.write(graph, settings, parameters)
    given = {"norm_first": settings.norm_first, "residual": settings.residual}
    found, read = gsnn_published.read(graph, state, given)
    assert found == settings
    for name, array in parameters.arrays().items():
        np.testing.assert_array_equal(getattr(read, name), array, err_msg=name)


def test_a_state_dict_of_another_graph_is_refused():
    graph, state = published("layer")
    with pytest.raises(ModelError, match=r"ResBlocks.0.: its indices are not those of the graph's edges"):
        gsnn_published.read(graph, state | {"ResBlocks.0.lin_in.indices": state["ResBlocks.0.lin_in.indices"] + 1}, {})
    with pytest.raises(ModelError, match=r"ResBlocks.1.lin_in.bias is missing"):
        gsnn_published.read(graph, {k: v for k, v in state.items() if k != "ResBlocks.1.lin_in.bias"}, {})
    gammas = {f"ResBlocks.{layer}.norm.gamma": np.ones(4) for layer in range(3)}
    with pytest.raises(ModelError, match="norm_gain: expected real numbers of shape"):
        gsnn_published.read(graph, state | gammas, {})


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_export_is_what_the_module_was_made_of_and_every_part_is_learned(variant):
    graph = make_graph()
    settings, parameters = make_network(graph, **VARIANTS[variant])
    module = GSNNModule(graph, settings, parameters)
    for name, array in parameters.arrays().items():
        np.testing.assert_array_equal(getattr(module.export(), name), array, err_msg=name)
    x = torch.from_numpy(np.random.default_rng(2).standard_normal((5, 12)).astype(np.float32))
    (module(x).outputs.square().sum() + sum(one.square().sum() for one in module(x).activations)).backward()
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad.abs().sum() > 0, name
    assert module.residual.requires_grad == settings.residual


def test_nothing_of_a_forward_pass_stays_on_the_module():
    graph = make_graph()
    module = GSNNModule(graph, *make_network(graph))
    before = set(vars(module))
    x = torch.ones(4, 12)
    passed = module(x)
    assert set(vars(module)) == before
    assert passed.activations[0].shape == (4, 12, 4)
    assert torch.equal(copy.deepcopy(module)(x).outputs, passed.outputs)


def test_a_fit_starts_where_its_seed_says():
    graph, settings = make_graph(), GSNNSettings(mlp=8, attention=4)
    one, same, other = (start(settings, graph, seed) for seed in (1, 1, 2))
    assert np.array_equal(one.in_weight, same.in_weight)
    assert not np.array_equal(one.in_weight, other.in_weight)
    outputs = GSNNModule(graph, settings, one)(torch.randn(50, 12, generator=torch.Generator().manual_seed(0))).outputs
    assert 0.1 < float(outputs.detach().std()) < 10


def test_inputs_of_another_width_are_refused():
    graph = make_graph()
    with pytest.raises(ModelError, match=r"expected inputs of shape \(batch, 12\), got \(4, 11\)"):
        GSNNModule(graph, *make_network(graph))(torch.ones(4, 11))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"in_bias": np.zeros((3, 12, 5))}, r"in_bias: expected real numbers of shape \(3, 12, 4\), got float64"),
        ({"residual": np.full(3, np.nan)}, "residual: expected finite numbers"),
        ({"out_bias": np.full((3, 96), 1e39)}, "out_bias: expected finite numbers within the range of float32"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_by_name(change, message):
    graph = make_graph()
    settings, parameters = make_network(graph)
    assert graph.edge_count == 96
    with pytest.raises(ModelError, match=message):
        make_parameters(settings, graph, parameters.arrays() | change)
    with pytest.raises(ModelError, match=r"residual: expected shape \(3,\), got none"):
        make_parameters(settings, graph, {})


@pytest.mark.parametrize("norm", ["layer", "softmax"])
def test_a_norm_over_a_single_channel_is_refused(norm):
    with pytest.raises(ValueError, match=f"norm: {norm} needs two channels or more, got channels 1"):
        GSNNSettings(channels=1, norm=norm)
