"""The decoder in the tangent space: what it answers, what it keeps, and what mixing the channels does to it."""

import subprocess
import sys

import numpy as np
import pytest

from neuroloop.errors import ModelError
from neuroloop.models.base import digest
from neuroloop.models.fitted_settings import RiemannSettings
from neuroloop.models.fitted_state import check_fitted
from neuroloop.models.riemann import Riemann
from neuroloop.models.riemann_fit import fit_riemann
from neuroloop.models.riemannian import geometric_mean, inverse_root, loaded, tangent

CHANNELS, BANDS = 5, 2
FEATURES = BANDS * CHANNELS * (CHANNELS + 1) // 2
CLASSES = ["left", "right", "rest"]
ROWS, COLUMNS = np.triu_indices(CHANNELS)


def recording(trials=60, samples=80, seed=0, mixing=None):
    """Covariances (trials, bands, channels, channels) of which each class makes another direction louder; labels."""
    generator = np.random.default_rng(seed)
    directions = generator.standard_normal((CHANNELS, CHANNELS)) if mixing is None else mixing
    labels = np.arange(trials) % len(CLASSES)
    gains = np.ones((trials, BANDS, 1, CHANNELS))
    gains[np.arange(trials), 1, 0, labels] = 2.5
    found = generator.standard_normal((trials, BANDS, samples, CHANNELS)) * gains @ directions
    return np.swapaxes(found, 2, 3) @ found / samples, labels


def triangles(covariances):
    return covariances[..., ROWS, COLUMNS].reshape(len(covariances), -1)


def fitted(features, labels, **chosen):
    settings = RiemannSettings(bands=BANDS, **chosen)
    decoder = Riemann(CLASSES, FEATURES, settings)
    known = {"samples": np.bincount(labels, minlength=3).astype(np.int64), "sharpness": np.ones(1)}
    decoder.take(fit_riemann(settings, features, labels, 3) | known)
    return decoder


def answers(decoder, features):
    return [decoder.predict(one).index for one in features]


def test_trials_that_it_was_not_fitted_on_are_told_apart():
    covariances, labels = recording(120)
    decoder = fitted(triangles(covariances[:60]), labels[:60])
    assert np.mean(np.equal(answers(decoder, triangles(covariances[60:])), labels[60:])) > 0.95
    assert decoder.learned() == {"left": 20, "right": 20, "rest": 20}


def test_the_logits_are_linear_in_the_coordinates_at_the_mean_of_each_band():
    covariances, labels = recording()
    decoder = fitted(triangles(covariances), labels, ridge=0.03)
    state = decoder.state_dict()
    raised = loaded(covariances, 0.03)
    whiten = [inverse_root(geometric_mean(raised[:, band])) for band in range(BANDS)]
    np.testing.assert_allclose(state["whiten"], whiten, rtol=1e-6)
    coordinates = np.concatenate([tangent(raised[:, band], whiten[band]) for band in range(BANDS)], axis=1)
    expected = coordinates @ state["matrix"] + state["bias"]
    np.testing.assert_allclose([decoder.predict(one).values for one in triangles(covariances)], expected, atol=1e-9)


def test_mixing_the_channels_changes_no_answer():
    generator = np.random.default_rng(7)
    straight, labels = recording(mixing=np.eye(CHANNELS))
    mixing = generator.standard_normal((CHANNELS, CHANNELS))
    one = fitted(triangles(straight), labels, ridge=1e-9)
    other = fitted(triangles(mixing @ straight @ mixing.T), labels, ridge=1e-9)
    asked, _ = recording(12, seed=3, mixing=np.eye(CHANNELS))
    expected = [one.predict(sample).probability for sample in triangles(asked)]
    mixed = [other.predict(sample).probability for sample in triangles(mixing @ asked @ mixing.T)]
    np.testing.assert_allclose(mixed, expected, atol=1e-3)
    assert np.ptp([probability[0] for probability in expected]) > 0.5


def test_what_is_missing_or_no_covariance_gives_no_answer_and_says_why():
    covariances, labels = recording()
    features = triangles(covariances)
    decoder = fitted(features, labels)
    lost = features[0].copy()
    lost[3] = np.nan
    assert decoder.predict(lost).reason == f"missing: 1 of {FEATURES} features"
    for nothing in (np.zeros(FEATURES), -features[0]):
        scores = decoder.predict(nothing)
        assert (scores.index, scores.probability.tolist()) == (None, [0, 0, 0])
        assert scores.reason.startswith("no evidence: these are no covariances with power in every band")
    with pytest.raises(ModelError, match=r"riemann: geometric mean: expected positive definite .* flat\?"):
        fit_riemann(RiemannSettings(bands=BANDS), np.zeros((6, FEATURES)), labels[:6], 3)


def test_a_decoder_comes_back_from_its_state_as_it_was():
    covariances, labels = recording()
    decoder = fitted(triangles(covariances), labels)
    loaded_one = Riemann(CLASSES, FEATURES, decoder.settings)
    loaded_one.load_state_dict(decoder.state_dict())
    assert digest(loaded_one) == digest(decoder)
    sample = triangles(covariances)[0].astype(np.float32)
    np.testing.assert_array_equal(loaded_one.predict(sample).values, decoder.predict(sample).values)


@pytest.mark.parametrize(
    ("settings", "change", "message"),
    [
        (
            {},
            {"whiten": np.zeros((2, 4, 4))},
            r"expected whiten as floats of shape \(2, 5, 5\), got float64 \(2, 4, 4\)",
        ),
        ({}, {"whiten": None}, "expected whiten as floats"),
        ({}, {"matrix": np.zeros((4, 3))}, r"expected matrix as floats of shape \(30, 3\)"),
        (
            {"bands": None},
            {},
            "settings of 'riemann': bands: expected the number of bands of a decoder that was fitted",
        ),
        ({"bands": 4}, {}, r"riemann: expected the covariance of channels in 4 bands, .*; got 30 features"),
        ({"ridge": 0}, {}, "ridge: Input should be greater than 0"),
    ],
)
def test_a_file_whose_arrays_or_settings_do_not_fit_is_refused(settings, change, message):
    covariances, labels = recording()
    state = fitted(triangles(covariances), labels).state_dict()
    check_fitted("riemann", state["settings"], FEATURES, 3, state)
    with pytest.raises(ModelError, match=message):
        check_fitted("riemann", state["settings"] | settings, FEATURES, 3, state | change)


def test_a_session_needs_no_pytorch_for_it_and_no_scikit_learn():
    program = "import sys, neuroloop.models.riemann; assert not {'torch', 'sklearn'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True)
