"""Running scores against numpy on whole arrays."""

import numpy as np
import pytest

from neuroloop.errors import ModelError
from neuroloop.models.encoder_scores import EncoderScores
from neuroloop.models.lnp_losses import bits_per_spike


def bins(count=3000, cells=4, seed=1):
    generator = np.random.default_rng(seed)
    rates = np.exp(0.7 * generator.standard_normal((count, cells)) - np.arange(1, cells + 1))
    return rates, generator.poisson(rates).astype(float)


def scored(rates, counts, half_life=np.inf):
    scores = EncoderScores(rates.shape[1], half_life)
    for expected, spikes in zip(rates, counts, strict=True):
        scores.add(expected, spikes)
    return scores


def test_without_forgetting_the_scores_are_those_of_the_whole_recording():
    rates, counts = bins()
    scores = scored(rates, counts)
    pearson = [np.corrcoef(rates[:, cell], counts[:, cell])[0, 1] for cell in range(4)]
    assert scores.correlation == pytest.approx(pearson, rel=1e-10)
    assert scores.bits_per_spike == pytest.approx(bits_per_spike(rates, counts), rel=1e-10)
    assert scores.residual == pytest.approx((counts - rates).mean(axis=0), rel=1e-9)
    assert scores.bins == 3000


@pytest.mark.parametrize("half_life", [20.0, 400.0])
def test_with_forgetting_every_bin_weighs_half_as_much_after_each_half_life(half_life):
    rates, counts = bins()
    scores = scored(rates, counts, half_life)
    weights = 0.5 ** (np.arange(2999, -1, -1) / half_life)
    for cell, (r, n) in enumerate(zip(rates.T, counts.T, strict=True)):
        covariance = np.cov(np.stack([r, n]), aweights=weights, ddof=0)
        pearson = covariance[0, 1] / np.sqrt(covariance[0, 0] * covariance[1, 1])
        assert scores.correlation[cell] == pytest.approx(pearson, rel=1e-9)
        assert scores.residual[cell] == pytest.approx(np.average(n - r, weights=weights), rel=1e-8)
        mean = np.average(n, weights=weights)
        gain = (weights * (n * np.log2(r / mean) - (r - mean) / np.log(2))).sum()
        assert scores.bits_per_spike[cell] == pytest.approx(gain / (weights * n).sum(), rel=1e-8)


def test_the_scores_follow_a_cell_that_changes():
    rates, counts = bins(cells=1)
    scores = scored(rates, counts, 100.0)
    assert scores.correlation[0] > 0.3
    for expected, spikes in zip(rates, np.roll(counts, 7), strict=True):
        scores.add(expected, spikes)
    assert abs(scores.correlation[0]) < 0.2


def test_a_large_offset_costs_the_correlation_no_digits():
    rates, counts = bins()
    scores = scored(rates + 1e6, counts + 1e6, 500.0)
    assert scores.correlation == pytest.approx(scored(rates, counts, 500.0).correlation, abs=1e-6)


def test_what_is_not_known_is_nan():
    scores = EncoderScores(2, 10.0)
    assert np.isnan([scores.correlation, scores.bits_per_spike, scores.residual]).all()
    for spikes in (1.0, 0.0, 2.0):
        scores.add(np.array([0.5, 0.5]), np.array([0.0, spikes]))
    assert np.isnan(scores.correlation).all()  # the rates never varied
    assert np.isnan(scores.bits_per_spike[0])  # never a spike
    assert np.isfinite(scores.bits_per_spike[1])
    assert scores.residual[0] == pytest.approx(-0.5)


def test_other_shapes_are_refused_and_not_counted():
    scores = EncoderScores(2, 10.0)
    with pytest.raises(ModelError, match=r"expected \(2,\) rates and counts, got \(2,\) and \(3,\)"):
        scores.add(np.ones(2), np.ones(3))
    assert scores.bins == 0
    with pytest.raises(ModelError, match="half_life: expected a number of bins above 0, got 0"):
        EncoderScores(2, 0)


def test_scores_go_on_with_the_state_of_others_to_the_bit():
    rates, counts = bins(count=50)
    whole, first = scored(rates, counts, 20.0), scored(rates[:30], counts[:30], 20.0)
    rest = EncoderScores(4, 20.0)
    rest.load_state_dict(first.state_dict())
    for expected, spikes in zip(rates[30:], counts[30:], strict=True):
        rest.add(expected, spikes)
        first.add(np.zeros(4), spikes)  # the state is a copy
    assert rest.bins == 50
    for name in ("correlation", "bits_per_spike", "residual"):
        assert getattr(rest, name).tobytes() == getattr(whole, name).tobytes()
    with pytest.raises(ModelError, match=r"rate: expected shape \(3,\), got \(4,\)"):
        EncoderScores(3, 20.0).load_state_dict(whole.state_dict())
