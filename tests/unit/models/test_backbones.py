import numpy as np
import pytest
import torch

from neuroloop.models.backbones import make_stream
from neuroloop.models.backbones_torch import make_backbone
from neuroloop.models.lfr_settings import LFRSettings
from neuroloop.models.lfr_state import backbone_shapes

UNITS = 9
FORMS = [
    {"backbone": "conv", "bins": 12, "width": 7, "depth": 1, "kernel": 4},
    {"backbone": "conv", "bins": 12, "width": 7, "depth": 3, "kernel": 3},
    {"backbone": "conv", "bins": 5, "width": 6, "depth": 2, "kernel": 3},  # one output to pool
    {"backbone": "conv", "bins": 4, "width": 6, "depth": 2, "kernel": 1},
    {"backbone": "gru", "bins": 12, "width": 7},
    {"backbone": "gru", "bins": 1, "width": 5},
]


class Pair:
    """A backbone as it is trained, and as a session runs it."""

    def __init__(self, units=UNITS, seed=4, **settings):
        self.settings, generator = LFRSettings(**settings), np.random.default_rng(1)
        self.module = make_backbone(self.settings, units, seed)
        self.mean = generator.uniform(5, 30, units).astype(np.float32)
        self.std = generator.uniform(1, 9, units).astype(np.float32)
        self.stream = make_stream(self.settings, self.module.export(), self.mean, self.std)
        self.rates = generator.poisson(self.mean, (40, units)).astype(np.float32)

    def expected(self, window):
        standardised = torch.from_numpy((window - self.mean) / self.std)
        with torch.no_grad():
            return self.module(standardised[None])[0].numpy()


@pytest.fixture(params=FORMS, ids=str)
def pair(request):
    return Pair(**request.param)


def test_a_stream_gives_what_the_trained_form_gives_for_each_window(pair):
    bins = pair.settings.bins
    for number, rates in enumerate(pair.rates):
        pair.stream.push(rates)
        if number >= bins - 1:
            expected = pair.expected(pair.rates[number + 1 - bins : number + 1])
            np.testing.assert_allclose(pair.stream.features, expected, rtol=1e-5, atol=1e-5)
    assert (pair.stream.features >= 0).all()
    assert pair.stream.features.any()


def test_the_default_at_96_units_is_the_trained_form_within_1e_5():
    for backbone in ("conv", "gru"):
        pair = Pair(units=96, backbone=backbone)
        for rates in pair.rates[:25]:
            pair.stream.push(rates)
        np.testing.assert_allclose(pair.stream.features, pair.expected(pair.rates[:25]), rtol=1e-5, atol=1e-5)


def test_features_are_those_of_the_window_to_the_bit_wherever_it_began(pair):
    bins = pair.settings.bins
    for rates in pair.rates:
        pair.stream.push(rates)
    long = pair.stream.features.copy()
    pair.stream.reset()
    for rates in pair.rates[-bins:]:
        pair.stream.push(rates)
    assert np.array_equal(pair.stream.features, long)


def test_a_rate_that_is_missing_counts_as_its_mean(pair):
    window = pair.rates[: pair.settings.bins].copy()
    window[:, 3] = pair.mean[3]
    expected = pair.expected(window)
    window[:, 3] = np.nan
    for rates in window:
        pair.stream.push(rates)
    np.testing.assert_allclose(pair.stream.features, expected, rtol=1e-5, atol=1e-5)


def test_an_export_has_the_shapes_that_a_state_is_checked_for(pair):
    shapes = {name: array.shape for name, array in pair.module.export().items()}
    assert shapes == backbone_shapes(pair.settings, UNITS)


def test_the_same_seed_gives_the_same_first_weights():
    weights = [Pair(seed=seed).module.export()["weight0"] for seed in (4, 4, 5)]
    assert np.array_equal(weights[0], weights[1])
    assert not np.array_equal(weights[0], weights[2])


def test_convolutions_longer_than_the_window_are_refused():
    with pytest.raises(ValueError, match="2 convolutions of 5 bins need a window of 9 bins or more, got 8"):
        LFRSettings(bins=8)
