import sys

import numpy as np
import pytest
from tests.unit.models.interruptions import interrupted

from neuroloop.errors import ModelError
from neuroloop.models.lnp import LNP
from neuroloop.models.lnp_fit import LNPFitSettings, fit, score
from neuroloop.models.lnp_losses import bits_per_spike, roughness
from neuroloop.models.lnp_parameters import LNPSettings, unit_norm


def correlate(a, b):
    return np.array([np.corrcoef(x, y)[0, 1] for x, y in zip(a.T, b.T, strict=True)])


@pytest.fixture(scope="module")
def movie():
    """White noise on 8 x 9 pixels, the spikes of three cells with small receptive fields, and the cells."""
    generator = np.random.default_rng(3)
    y, x = np.mgrid[-1:2, -1:2]
    bump = np.exp(-(x**2 + y**2) / 2)
    shape = np.stack([[bump, bump * x], [-bump, bump * y], [bump, -bump * x]])[:, :, None]
    time = np.array([[0.0, 0.3, 1.0, -0.6], [0.4, 0.8, -0.2, 0.0]])
    cells = LNP(
        3,
        (1, 8, 9),
        LNPSettings(lags=4, rank=2, kernel=(3, 3), nonlinearity="softplus"),
        space=shape,
        time=np.tile(time, (3, 1, 1)),
        gain=[2.0, 2.5, 1.5],
        bias=[-1.0, -0.5, 0.0],
        locations=[[1, 1], [4, 7], [6, 3]],
    )
    stimulus = generator.standard_normal((6000, 8, 9))
    return stimulus, generator.poisson(cells.run(stimulus)), cells


def test_a_fit_finds_where_the_cells_look_and_what_they_respond_to(movie):
    stimulus, counts, truth = movie
    fitted = fit(stimulus[:5000], counts[:5000], truth.settings, cells=["a", "b", "c"])
    bank = fitted.model
    assert bank.cells == ("a", "b", "c")
    assert bank.parameters.locations.tolist() == truth.parameters.locations.tolist()
    rates = truth.run(stimulus)
    assert (correlate(bank.run(stimulus)[5000:], rates[5000:]) > 0.98).all()
    np.testing.assert_allclose(bank.run(stimulus).mean(axis=0), rates.mean(axis=0), rtol=0.1)
    reached, possible = score(bank, stimulus, counts), bits_per_spike(rates, counts)
    assert (reached.bits_per_spike > 0.95 * possible).all()
    assert (reached.correlation > 0.2).all()


def test_a_fit_is_the_same_bit_for_bit_every_time(movie):
    stimulus, counts, truth = movie
    for training in (LNPFitSettings(epochs=2), LNPFitSettings(optimizer="adamw", epochs=2, batch_bins=300)):
        one, other = (fit(stimulus[:1500], counts[:1500], truth.settings, training) for _ in range(2))
        assert one.curve == other.curve
        for name, array in one.model.parameters.arrays().items():
            assert np.array_equal(array, getattr(other.model.parameters, name))


def test_adamw_on_pieces_reaches_what_lbfgs_reaches(movie):
    stimulus, counts, truth = movie
    training = LNPFitSettings(optimizer="adamw", epochs=25, batch_bins=500)
    fitted = fit(stimulus, counts, truth.settings, training)
    assert (correlate(fitted.model.run(stimulus), truth.run(stimulus)) > 0.97).all()


def test_a_fit_knows_nothing_of_the_spikes_that_are_not_to_be_used(movie):
    stimulus, counts, truth = movie
    use = np.ones(1500, bool)
    use[400:700] = False
    changed = counts[:1500].copy()
    changed[~use] = 99
    training = LNPFitSettings(epochs=2)
    one = fit(stimulus[:1500], counts[:1500], truth.settings, training, use=use)
    other = fit(stimulus[:1500], changed, truth.settings, training, use=use)
    assert np.array_equal(one.model.parameters.space, other.model.parameters.space)


def test_early_stopping_keeps_the_epoch_with_the_best_held_out_correlation(movie):
    stimulus, counts, truth = movie
    fitted = fit(stimulus[:1500], counts[:1500], truth.settings, LNPFitSettings(epochs=8, patience=8))
    last = np.zeros(1500, bool)
    last[1350:] = True
    kept = score(fitted.model, stimulus[:1500], counts[:1500], last).correlation.mean()
    assert kept == pytest.approx(max(fitted.curve), abs=2e-3)


@pytest.mark.parametrize("nonlinearity", ["exp", "softplus", "parametrized_softplus"])
def test_a_series_of_any_size_and_offset_is_fitted_with_history_and_coupling(nonlinearity):
    generator = np.random.default_rng(0)
    settings = LNPSettings(lags=3, nonlinearity=nonlinearity, history=2, coupling=2)
    coupling = np.zeros((2, 2, 2))
    coupling[1, 0] = [0.6, 0.2]
    truth = LNP.for_series(
        2,
        settings.model_copy(update={"nonlinearity": "exp"}),
        space=np.ones((2, 1, 1, 1, 1)), time=[[[0.0, 0.5, 1.0]], [[1.0, 0.0, -1.0]]],
        gain=[0.7, 0.5], bias=[-1.2, -1.5], history=[[-2.0, -0.5], [-0.5, 0.0]], coupling=coupling,
            mean=[500.0], scale=[20.0],
    )  # fmt: skip
    stimulus = 500 + 20 * generator.standard_normal(8000)
    rates, counts = np.zeros((8000, 2)), np.zeros((8000, 2))
    for t, value in enumerate(stimulus):
        rates[t] = truth.predict(value)
        counts[t] = generator.poisson(rates[t])
        truth.observe(counts[t])
    bank = fit(stimulus, counts, settings).model
    found = bank.parameters
    assert (correlate(bank.run(stimulus, counts), rates) > (0.97 if nonlinearity == "exp" else 0.85)).all()
    assert found.history[0, 0] < -1
    assert found.coupling[1, 0, 0] > 0.3
    assert np.abs(found.coupling[0, 1]).max() < 0.2
    assert found.coupling[[0, 1], [0, 1]].tolist() == [[0, 0], [0, 0]]


def test_a_series_of_one_cell_is_two_vectors():
    generator = np.random.default_rng(0)
    stimulus = generator.standard_normal(2000)
    counts = generator.poisson(np.exp(stimulus - 1))
    bank = fit(stimulus, counts, LNPSettings(lags=2)).model
    assert bank.frame == (1, 1, 1)
    assert score(bank, stimulus, counts).bits_per_spike[0] > 0.4
    assert np.abs(unit_norm(bank.parameters.time)[0, 0, 1]) > 0.99


def test_a_silent_cell_and_a_constant_stimulus_are_fitted_without_nan():
    counts = np.zeros((300, 2))
    counts[::10, 0] = 1
    for stimulus in (np.random.default_rng(0).standard_normal(300), np.full(300, 0.1)):
        bank = fit(stimulus, counts, LNPSettings(lags=3)).model
        rates = bank.run(stimulus)
        assert np.isfinite(rates).all()
        assert (rates[:, 1] < 0.02).all()


def test_a_fit_tells_its_progress_and_can_be_ended():
    heard = []

    def listen(epoch, value):
        heard.append((epoch, value))
        if epoch == 2:
            raise TimeoutError

    generator = np.random.default_rng(0)
    stimulus, counts = generator.standard_normal(300), generator.poisson(0.5, 300)
    with pytest.raises(TimeoutError):
        fit(stimulus, counts, LNPSettings(lags=2), LNPFitSettings(patience=9), on_epoch=listen)
    assert [epoch for epoch, _ in heard] == [1, 2]


def test_missing_values_in_the_stimulus_are_held(movie):
    stimulus, counts, truth = movie
    holes = stimulus[:1500].copy()
    holes[200:203, 2, 2] = np.nan
    bank = fit(holes, counts[:1500], truth.settings, LNPFitSettings(epochs=1)).model
    assert np.isfinite(bank.parameters.space).all()


def test_smoothing_makes_kernels_smoother(movie):
    stimulus, counts, _ = movie
    settings = LNPSettings(lags=4, rank=1)
    rough, smooth = (
        fit(stimulus[:800], counts[:800], settings, LNPFitSettings(validation=0, epochs=3, smooth_space=weight)).model
        for weight in (0.0, 0.05)
    )
    assert roughness(smooth.parameters.space) < 0.8 * roughness(rough.parameters.space)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stimulus": np.zeros((100, 1, 1, 1, 1))}, r"expected \(time,\), \(time, channels\).*got \(100, 1, 1, 1, 1\)"),
        ({"counts": np.zeros(99)}, r"expected \(100,\) or \(100, cells\), as many as frames, got \(99,\)"),
        ({"counts": np.full(100, np.nan)}, "expected finite numbers from 0 on"),
        ({"use": np.ones(100)}, r"use: expected \(100,\) of bool, got \(100,\) of float64"),
        ({"use": np.arange(100) < 4}, "no bin is left of 100, each after the 4 that it depends on"),
        ({"settings": LNPSettings(lags=5, rank=2)}, "rank: expected at most 1"),
        ({"cells": ["a", "b"]}, "expected a name for each of 1 cells, got 2"),
    ],
)
def test_a_recording_that_does_not_fit_is_refused_by_name(change, message):
    given = {"stimulus": np.zeros(100), "counts": np.zeros(100), "settings": LNPSettings(lags=5)}
    with pytest.raises(ModelError, match=message):
        fit(**given | change)


def test_without_lightning_the_error_names_the_extra(monkeypatch):
    monkeypatch.delitem(sys.modules, "neuroloop.models.lnp_training", raising=False)
    monkeypatch.setitem(sys.modules, "lightning", None)
    with pytest.raises(ModelError, match=r"needs lightning.*pip install 'neuroloop\[train\]'"):
        fit(np.arange(50.0), np.ones(50), LNPSettings(lags=2))


@pytest.mark.realdata
@pytest.mark.parametrize(("history", "least"), [(0, 0.80), (10, 1.40)])
def test_held_out_spikes_of_a_grasshoppers_receptor_are_predicted_as_well_as_is_known(recordings, history, least):
    """1 ms bins, 20 lags, 5 contiguous folds; 0.85 bits per spike are known, and 1.49 with 10 ms of spike history.

    The stimulus is the sound's level in dB, the unit in which receptors respond; in volts it is 0.81 and 1.39.
    """
    with np.load(recordings / "grasshopper_auditory_lnp.npz") as data:
        amplitude = data["stim1"].reshape(-1, 20).mean(axis=1)
        counts = np.histogram(data["spike_times_s1"], np.arange(len(amplitude) + 1) / 1000)[0]
    level = 20 * np.log10(amplitude / 2e-5)
    settings = LNPSettings(lags=20, nonlinearity="parametrized_softplus", history=history)
    bits = []
    for fold in np.array_split(np.arange(len(level)), 5):
        held_out = np.isin(np.arange(len(level)), fold)
        use = ~held_out
        use[fold[-1] + 1 :][:history] = False  # their history is held out
        bank = fit(level, counts, settings, use=use).model
        bits.append(score(bank, level, counts, held_out).bits_per_spike[0])
    assert np.mean(bits) >= least


@pytest.mark.parametrize("how", [{}, {"optimizer": "adamw", "batch_bins": 300}, {"validation": 0.0}])
@pytest.mark.parametrize("after", [1, 2])
def test_a_fit_that_was_interrupted_goes_on_to_the_same_end(movie, how, after):
    stimulus, counts, truth = movie
    training = LNPFitSettings(epochs=6, **how)

    def once(kept):
        return fit(stimulus[:1500], counts[:1500], truth.settings, training, kept=kept)

    expected, resumed = fit(stimulus[:1500], counts[:1500], truth.settings, training), interrupted(once, after)
    assert len(expected.curve) > after
    assert resumed.curve == expected.curve
    for name, array in expected.model.parameters.arrays().items():
        assert np.array_equal(array, resumed.model.parameters.arrays()[name]), name
