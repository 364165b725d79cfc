"""Ridge regression as scikit-learn has it, and the Kalman filter against its textbook recursion."""

import numpy as np
import pytest
from sklearn.linear_model import Ridge as TheirRidge

from neuroloop.errors import ModelError
from neuroloop.models import decoder_files
from neuroloop.models.base import Remembering, digest
from neuroloop.models.continuous import Kalman, Ridge
from neuroloop.models.continuous_fit import fit_kalman, fit_ridge
from neuroloop.models.continuous_settings import KalmanSettings, RidgeSettings

FEATURES = 12


def movement(bins=1500, seed=0):
    """A cursor that drifts smoothly in two dimensions, and features that see it through much noise."""
    rng = np.random.default_rng(seed)
    targets = np.zeros((bins, 2))
    velocity = np.zeros(2)
    for t in range(1, bins):
        velocity = 0.95 * velocity + 0.3 * rng.standard_normal(2)
        targets[t] = 0.98 * targets[t - 1] + velocity
    features = 20 + targets @ rng.standard_normal((2, FEATURES)) + 12 * rng.standard_normal((bins, FEATURES))
    return features, targets + np.array([3.0, -1.0])


def follows(bins):
    return np.arange(bins) > 0


def fitted(model, fit, features, targets, settings):
    decoder = model(["x", "y"], FEATURES, settings)
    weights = fit(settings, features, targets, follows(len(targets)))
    decoder.take(weights | {"samples": np.array([len(targets)])})
    return decoder


def test_ridge_answers_as_scikit_learn_does_on_standardised_features():
    features, targets = movement()
    decoder = fitted(Ridge, fit_ridge, features, targets, RidgeSettings(penalty=30.0))
    standard = (features - features.mean(axis=0)) / features.std(axis=0)
    expected = TheirRidge(alpha=30.0).fit(standard, targets).predict(standard)
    np.testing.assert_allclose([decoder.predict(row).values for row in features], expected, rtol=1e-9, atol=1e-9)


def test_the_penalty_is_chosen_by_what_predicts_left_out_bins():
    rng = np.random.default_rng(3)
    features = rng.standard_normal((60, FEATURES))
    targets = np.stack([features[:, 0], -features[:, 0]], axis=1) + 3 * rng.standard_normal((60, 2))
    chosen = fitted(Ridge, fit_ridge, features, targets, RidgeSettings())
    loose = fitted(Ridge, fit_ridge, features, targets, RidgeSettings(penalty=0.01))
    norms = [np.linalg.norm(decoder.state_dict()["matrix"]) for decoder in (chosen, loose)]
    assert norms[0] < 0.7 * norms[1]


@pytest.mark.parametrize("velocity", [True, False])
def test_a_kalman_filter_is_the_textbook_recursion_once_that_has_settled(velocity):
    features, targets = movement()
    decoder = fitted(Kalman, fit_kalman, features, targets, KalmanSettings(velocity=velocity, shrinkage=0.1))
    ours = np.array([decoder.predict(row).values for row in features])

    x = (features - features.mean(axis=0)) / features.std(axis=0)
    z = targets - targets.mean(axis=0)
    if velocity:
        z = np.concatenate([z, np.diff(z, axis=0, prepend=z[:1])], axis=1)
    first = 1 if velocity else 0
    a = np.linalg.lstsq(z[first:-1], z[first + 1 :], rcond=None)[0].T
    w = (e := z[first + 1 :] - z[first:-1] @ a.T).T @ e / len(e)
    w += 1e-6 * np.trace(w) / len(w) * np.eye(len(w))
    h = np.linalg.lstsq(z[first:], x[first:], rcond=None)[0].T
    q = (e := x[first:] - z[first:] @ h.T).T @ e / len(e)
    q = 0.9 * q + 0.1 * np.trace(q) / FEATURES * np.eye(FEATURES)
    q += 1e-6 * np.trace(q) / FEATURES * np.eye(FEATURES)
    state, covariance, theirs = np.zeros(len(a)), np.eye(len(a)), []
    for row in x:
        state, covariance = a @ state, a @ covariance @ a.T + w
        gain = covariance @ h.T @ np.linalg.inv(h @ covariance @ h.T + q)
        state = state + gain @ (row - h @ state)
        covariance = (np.eye(len(a)) - gain @ h) @ covariance
        theirs.append(state[:2] + targets.mean(axis=0))
    np.testing.assert_allclose(ours[500:], np.array(theirs)[500:], rtol=1e-5, atol=1e-5)


def test_a_filter_follows_a_movement_better_than_bins_by_themselves():
    features, targets = movement()
    errors = []
    for model, fit, settings in ((Ridge, fit_ridge, RidgeSettings()), (Kalman, fit_kalman, KalmanSettings())):
        decoder = fitted(model, fit, features[:1000], targets[:1000], settings)
        estimates = np.array([decoder.predict(row).values for row in features[1000:]])
        errors.append(np.mean((estimates - targets[1000:]) ** 2))
    assert errors[1] < 0.7 * errors[0]


@pytest.fixture
def kalman():
    return fitted(Kalman, fit_kalman, *movement(), KalmanSettings())


def test_an_answer_has_targets_and_neither_class_nor_reason(kalman):
    answer = kalman.predict(np.full(FEATURES, 20, np.float32))
    assert (answer.values.shape, answer.index, answer.reason, answer.probability.shape) == ((2,), None, None, (0,))
    assert (kalman.classes, kalman.targets, kalman.learned()) == ((), ("x", "y"), {})


def test_a_reset_restarts_the_filter(kalman):
    features, _ = movement()
    first = [kalman.predict(row).values for row in features[:5]]
    assert not np.allclose(kalman.predict(features[0]).values, first[0])
    kalman.reset()
    np.testing.assert_array_equal([kalman.predict(row).values for row in features[:5]], first)


def test_with_its_memory_another_filter_goes_on_to_the_bit(kalman):
    features, _ = movement()
    other = fitted(Kalman, fit_kalman, *movement(), KalmanSettings())
    for row in features[:9]:
        kalman.predict(row)
    assert isinstance(kalman, Remembering)
    other.recall(kalman.memory())
    for row in features[9:30]:
        assert kalman.predict(row).values.tobytes() == other.predict(row).values.tobytes()


def test_a_missing_feature_makes_it_abstain_while_the_filter_moves_on(kalman):
    features, _ = movement()
    for row in features[:50]:
        kalman.predict(row)
    holey = features[50].copy()
    holey[2] = np.nan
    answer = kalman.predict(holey)
    assert (answer.index, answer.reason) == (None, "missing: 1 of 12 features")
    assert not answer.values.any()
    assert np.isfinite(kalman.predict(features[51]).values).all()


def test_before_a_fit_it_says_what_to_do_and_no_label_teaches_it():
    fresh = Ridge(["x"], FEATURES)
    assert fresh.predict(np.ones(FEATURES)).reason == "untrained: load a version that a fit of kind ridge has made"
    with pytest.raises(ModelError, match="POST /v1/fits"):
        fresh.learn(np.ones(FEATURES), 0)


def test_it_comes_back_from_its_file_as_it_was(kalman):
    file = decoder_files.read(decoder_files.write(decoder_files.of(kalman, FEATURES)))
    assert (file.about.targets, file.about.classes) == (["x", "y"], [])
    loaded = Kalman(["x", "y"], FEATURES)
    loaded.load_state_dict({"kind": "kalman", "targets": file.about.targets} | file.tensors)
    assert digest(loaded) == digest(kalman)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"matrix": np.zeros((12, 2))}, r"matrix as floats of shape \(12, 4\), got float64 \(12, 2\)"),
        ({"correct": np.eye(4)}, "eigenvalues below 1; this filter never settles"),
        ({"mean": np.array([np.inf, 0])}, "mean holds values that are not finite"),
        ({"samples": np.array([-1])}, "samples from 0 on"),
        ({"targets": ["x", "z"]}, "expected targets"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(kalman, change, words):
    before = digest(kalman)
    with pytest.raises(ModelError, match=words):
        kalman.load_state_dict(kalman.state_dict() | change)
    assert digest(kalman) == before


def test_too_few_bins_that_follow_each_other_make_no_filter():
    features, targets = movement(40)
    with pytest.raises(ModelError, match="8 bins or more that follow on another one, got 0"):
        fit_kalman(KalmanSettings(), features, targets, np.zeros(40, bool))
