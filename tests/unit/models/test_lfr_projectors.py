import pytest
import torch
from torch import nn

from neuroloop.errors import ModelError
from neuroloop.models.lfr_projectors import ProjectorStack, make_predictors, make_projectors
from neuroloop.models.lfr_settings import PredictorSettings, ProjectorSettings

WINDOW = (7, 6)  # bins, units


@pytest.fixture
def projectors():
    return make_projectors(ProjectorSettings(), *WINDOW, seed=3)


def values(modules):
    return torch.cat([parameter.flatten() for module in modules for parameter in module.parameters()])


def test_the_default_is_a_mix_of_kinds_widths_and_depths(projectors):
    assert len(projectors) == 24
    forms = {repr(projector) for projector in projectors}
    assert len(forms) == 9  # linear; mlp and conv of two widths and two depths each
    assert {kind for form in forms for kind in ("Conv1d", "ReLU", "Flatten") if kind in form} == {
        "Conv1d",
        "ReLU",
        "Flatten",
    }


def test_a_stack_gives_what_the_projectors_give_one_by_one(projectors):
    x = torch.randn(11, *WINDOW)
    stack = ProjectorStack(projectors)
    torch.testing.assert_close(stack(x), torch.stack([projector(x) for projector in projectors]))
    chosen = [20, 3, 8]
    torch.testing.assert_close(stack.of(chosen)(x), torch.stack([projectors[index](x) for index in chosen]))


def test_modules_that_look_alike_but_may_differ_are_evaluated_one_by_one():
    class Times(nn.Module):
        def __init__(self, factor):
            super().__init__()
            self.factor = factor
            self.layer = nn.Linear(6, 2)

        def forward(self, x):
            return self.factor * self.layer(x)

    projectors = [Times(1.0), Times(-2.0)]
    x = torch.randn(4, 6)
    torch.testing.assert_close(ProjectorStack(projectors)(x), torch.stack([one(x) for one in projectors]))


def test_running_statistics_are_stacked_with_the_weights():
    projectors = [nn.Sequential(nn.Linear(6, 4), nn.BatchNorm1d(4)) for _ in range(3)]
    for projector in projectors:
        projector(torch.randn(20, 6) + 1)
    x = torch.randn(5, 6)
    stack = ProjectorStack(projectors)
    torch.testing.assert_close(stack(x), torch.stack([projector(x) for projector in projectors]))


def test_a_seed_says_it_all_and_leaves_the_generator_of_others_alone():
    torch.manual_seed(11)
    expected = torch.randn(3)
    torch.manual_seed(11)
    made = [make_projectors(ProjectorSettings(count=3), *WINDOW, seed=seed) for seed in (5, 5, 6)]
    predictors = [make_predictors(PredictorSettings(), 2, 5, 4, seed=seed) for seed in (5, 5, 6)]
    assert torch.equal(torch.randn(3), expected)
    for same, again, other in (made, predictors):
        assert torch.equal(values(same), values(again))
        assert not torch.equal(values(same), values(other))


def test_predictors_have_the_layers_that_are_asked_for():
    for depth in (0, 1, 3):
        predictors = make_predictors(PredictorSettings(depth=depth, width=9), 2, inputs=5, outputs=4, seed=0)
        assert predictors[0](torch.randn(7, 5)).shape == (7, 4)
        assert sum(isinstance(part, nn.Linear) for part in predictors[0]) == depth + 1


def test_what_does_not_fit_is_refused():
    with pytest.raises(ModelError, match="2 convolutions of 5 bins need a window of at least 9 bins, got 7"):
        make_projectors(ProjectorSettings(kernel=5, kinds=("conv",), depths=(2,)), *WINDOW, seed=0)
    with pytest.raises(ModelError, match="the same for all"):
        ProjectorStack([nn.Linear(6, 4), nn.Linear(6, 3)])(torch.randn(2, 6))
