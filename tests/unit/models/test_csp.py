"""Common spatial patterns against their definition, and against filters over the samples themselves."""

import numpy as np
import pytest
from scipy import linalg

from neuroloop.errors import ModelError
from neuroloop.models.csp import CSP
from neuroloop.models.csp_fit import filters, fit_csp, matrices
from neuroloop.models.fitted_settings import CSPSettings

CHANNELS, BANDS = 5, 2


def recording(classes=2, trials=30, samples=200, seed=0):
    """Samples (trials, bands, samples, channels) of sources of which each class makes one louder, and the labels."""
    rng = np.random.default_rng(seed)
    mixing = rng.standard_normal((CHANNELS, CHANNELS))
    labels = np.arange(trials) % classes
    gains = np.ones((trials, BANDS, 1, CHANNELS))
    gains[np.arange(trials), 1, 0, labels] = 2.5
    return (rng.standard_normal((trials, BANDS, samples, CHANNELS)) * gains) @ mixing, labels


def triangles(samples):
    products = np.einsum("tbsi,tbsj->tbij", samples, samples) / samples.shape[2]
    rows, columns = np.triu_indices(CHANNELS)
    return products[..., rows, columns].reshape(len(samples), -1)


def fitted(features, labels, classes=2, **chosen):
    settings = CSPSettings(bands=BANDS, **chosen)
    decoder = CSP([f"class {k}" for k in range(classes)], features.shape[1], settings)
    counts = np.bincount(labels).astype(np.int64)
    weights = fit_csp(settings, features, labels, classes)
    decoder.take(weights | {"samples": counts, "sharpness": np.ones(1)})
    return decoder


def test_filters_are_the_extreme_generalised_eigenvectors_of_the_classes_covariances():
    samples, labels = recording()
    features = triangles(samples)
    (found,) = filters(matrices(features, BANDS, "csp")[1], labels, CSPSettings(filters=4, ridge=0))
    means = []
    for label in (0, 1):
        trials = [trial[1].T @ trial[1] for trial in samples[labels == label]]
        means.append(np.mean([trial / np.trace(trial) for trial in trials], axis=0))
    values, vectors = linalg.eigh(means[0], means[0] + means[1])
    expected = vectors[:, [4, 0, 3, 1]].T
    np.testing.assert_allclose(np.abs(found @ (means[0] + means[1]) @ expected.T), np.eye(4), atol=1e-9)
    ratio = np.einsum("fi,ij,fj->f", found, means[0], found)
    np.testing.assert_allclose(ratio, values[[4, 0, 3, 1]], rtol=1e-9)


def test_inputs_are_the_log_variance_of_the_filtered_samples():
    samples, labels = recording()
    features = triangles(samples)
    decoder = fitted(features, labels)
    spatial = decoder.state_dict()["spatial"]
    assert spatial.shape == (BANDS, CHANNELS, CHANNELS)  # of six filters asked for, a contrast has as many as channels
    through = np.einsum("bsc,bfc->bfs", samples[3], spatial)
    expected = np.log(np.mean(through**2, axis=2)).ravel()
    np.testing.assert_allclose(decoder.inputs(features[3]), expected, rtol=1e-9)
    np.testing.assert_allclose(decoder.inputs(features[3].astype(np.float32)), expected, rtol=1e-4)


@pytest.mark.parametrize("classes", [2, 3])
def test_new_trials_are_told_apart_one_contrast_for_each_class_beyond_two(classes):
    samples, labels = recording(classes, trials=90)
    features = triangles(samples)
    decoder = fitted(features[:45], labels[:45], classes, filters=2)
    assert decoder.state_dict()["spatial"].shape[1] == (2 if classes == 2 else 6)
    answers = [decoder.predict(trial).index for trial in features[45:]]
    assert np.mean(answers == labels[45:]) > 0.95


def test_a_scale_of_the_amplifier_shared_by_all_channels_and_trials_changes_no_answer():
    samples, labels = recording()
    features = triangles(samples)
    one, other = fitted(features, labels), fitted(features * 1e-6, labels)
    for trial in features:
        np.testing.assert_allclose(one.predict(trial).values, other.predict(trial * 1e-6).values, rtol=1e-6)


def test_channels_that_were_referenced_to_their_mean_have_patterns_too():
    samples, labels = recording()
    samples -= samples.mean(axis=3, keepdims=True)
    features = triangles(samples)
    decoder = fitted(features.astype(np.float32).astype(float), labels)
    assert decoder.state_dict()["spatial"].shape == (BANDS, CHANNELS - 1, CHANNELS)
    assert np.mean([decoder.predict(trial).index for trial in features] == labels) > 0.95
    with pytest.raises(ModelError, match=r"no inverse.*set ridge above 0"):
        fitted(np.tile(triangles(np.ones((4, BANDS, 9, CHANNELS))), (5, 1)), np.arange(20) % 2, ridge=0)


def test_flat_channels_and_missing_features_make_it_abstain():
    samples, labels = recording()
    features = triangles(samples)
    decoder = fitted(features, labels)
    assert decoder.predict(np.zeros(30)).reason.startswith("no evidence: there is no power behind a spatial filter")
    features[0, 7] = np.nan
    answer = decoder.predict(features[0])
    assert (answer.index, answer.reason) == (None, "missing: 1 of 30 features")
    with pytest.raises(ModelError, match="no power in a band; are channels flat"):
        fitted(np.zeros((20, 30)), np.arange(20) % 2)


def test_features_that_are_no_covariance_are_refused():
    with pytest.raises(ModelError, match=r"channels in 2 bands, .*got 31 features"):
        fitted(np.ones((20, 31)), np.arange(20) % 2)
    samples, labels = recording()
    state = fitted(triangles(samples), labels).state_dict()
    with pytest.raises(ModelError, match=r"spatial as floats of shape \(2, 5, 5\), got float64 \(2, 5, 4\)"):
        CSP(["class 0", "class 1"], 30, CSPSettings(bands=2)).load_state_dict(state | {"spatial": np.ones((2, 5, 4))})
    with pytest.raises(ModelError, match="bands: expected the number of bands"):
        CSP(["class 0", "class 1"], 30).load_state_dict(state)
