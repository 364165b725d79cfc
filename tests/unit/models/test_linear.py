"""LDA and logistic regression answer as scikit-learn does, and are files like any other decoder."""

import numpy as np
import pytest
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression

from neuroloop.errors import ModelError
from neuroloop.models import decoder_files
from neuroloop.models.base import digest
from neuroloop.models.fitted_settings import LDASettings, LogisticSettings
from neuroloop.models.linear import LDA, Logistic
from neuroloop.models.linear_fit import fit_lda, fit_logistic

CLASSES = ("left", "right", "up")


def trials(classes, samples=90, features=6, seed=0):
    """Features of very different units, the last one constant, of classes that differ in their means."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, samples)
    means = rng.standard_normal((classes, features))
    inputs = (means[labels] + rng.standard_normal((samples, features))) * np.geomspace(1e-2, 1e3, features)
    inputs[:, -1] = 7.0
    return inputs, labels


def standardised(inputs):
    return (inputs - inputs.mean(axis=0))[:, :-1] / inputs.std(axis=0)[:-1]


def fitted(decoder, fit, inputs, labels):
    counts = np.bincount(labels, minlength=len(decoder.classes)).astype(np.int64)
    weights = fit(decoder.settings, inputs, labels, len(decoder.classes))
    decoder.take(weights | {"samples": counts, "sharpness": np.ones(1)})
    return decoder


@pytest.mark.parametrize("classes", [2, 3])
@pytest.mark.parametrize("shrinkage", ["auto", 0.3])
def test_lda_gives_the_posterior_of_scikit_learn(classes, shrinkage):
    inputs, labels = trials(classes)
    settings = LDASettings(shrinkage=shrinkage, prior="frequency")
    decoder = fitted(LDA(CLASSES[:classes], 6, settings), fit_lda, inputs, labels)
    theirs = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=shrinkage).fit(standardised(inputs), labels)
    expected = theirs.predict_proba(standardised(inputs))
    ours = [decoder.predict(sample) for sample in inputs]
    np.testing.assert_allclose([one.probability for one in ours], expected, rtol=1e-6, atol=1e-9)
    assert [one.index for one in ours] == expected.argmax(axis=1).tolist()


@pytest.mark.parametrize("classes", [2, 3])
def test_logistic_regression_gives_the_probabilities_of_scikit_learn(classes):
    inputs, labels = trials(classes)
    settings = LogisticSettings(penalty=4.0, prior="frequency")
    decoder = fitted(Logistic(CLASSES[:classes], 6, settings), fit_logistic, inputs, labels)
    theirs = LogisticRegression(C=0.25, max_iter=2000).fit(standardised(inputs), labels)
    ours = [decoder.predict(sample).probability for sample in inputs]
    np.testing.assert_allclose(ours, theirs.predict_proba(standardised(inputs)), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("model", "fit"), [(LDA, fit_lda), (Logistic, fit_logistic)])
def test_classes_count_the_same_however_often_they_came(model, fit):
    rng = np.random.default_rng(1)
    labels = (np.arange(400) < 20).astype(int)
    inputs = rng.standard_normal((400, 2)) + labels[:, None]
    decoder = fitted(model(CLASSES[:2], 2), fit, inputs, labels)
    between = (inputs[labels == 0].mean(axis=0) + inputs[labels == 1].mean(axis=0)) / 2
    assert decoder.predict(between).probability[1] == pytest.approx(0.5, abs=0.1)


@pytest.fixture
def decoder():
    inputs, labels = trials(2)
    return fitted(LDA(CLASSES, 6), fit_lda, inputs, labels)


def test_a_class_that_was_never_seen_is_never_the_answer(decoder):
    answer = decoder.predict(np.zeros(6))
    assert answer.probability[2] == 0
    assert answer.index in (0, 1)
    assert decoder.learned()["up"] == 0


def test_a_missing_feature_makes_it_abstain(decoder):
    rates = np.ones(6, np.float32)
    rates[[1, 4]] = np.nan, np.inf
    answer = decoder.predict(rates)
    assert (answer.index, answer.reason) == (None, "missing: 2 of 6 features")
    assert not answer.values.any()
    assert not answer.probability.any()


def test_an_answer_below_the_threshold_is_none():
    inputs, labels = trials(2)
    sure = fitted(LDA(CLASSES[:2], 6, LDASettings(threshold=1.0)), fit_lda, inputs, labels)
    answer = sure.predict(inputs.mean(axis=0))
    assert answer.index is None
    assert answer.reason.startswith("below threshold: ")


def test_before_a_fit_it_says_what_to_do_and_no_label_teaches_it():
    fresh = LDA(CLASSES, 6)
    assert fresh.predict(np.ones(6)).reason == "untrained: load a version that a fit of kind lda has made"
    with pytest.raises(ModelError, match="POST /v1/fits"):
        fresh.learn(np.ones(6), 0)
    other = LDA(CLASSES, 6)
    other.load_state_dict(fresh.state_dict())
    assert digest(other) == digest(fresh)


def test_it_comes_back_from_its_file_as_it_was(decoder):
    loaded = LDA(CLASSES, 6)
    file = decoder_files.read(decoder_files.write(decoder_files.of(decoder, 6)))
    loaded.load_state_dict({"kind": "lda", "classes": file.about.classes} | file.tensors)
    assert digest(loaded) == digest(decoder)
    np.testing.assert_array_equal(loaded.predict(np.ones(6)).values, decoder.predict(np.ones(6)).values)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"matrix": np.zeros((5, 3))}, r"matrix as floats of shape \(6, 3\), got float64 \(5, 3\)"),
        ({"bias": np.array([0.0, np.nan, 0.0])}, "bias holds values that are not finite"),
        ({"samples": np.array([1, -1, 0])}, "samples from 0 on, got -1"),
        ({"sharpness": np.array([-1.0])}, "sharpness from 0 on"),
        ({"classes": ["left", "right", "down"]}, "expected classes"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(decoder, change, words):
    before = digest(decoder)
    with pytest.raises(ModelError, match=words):
        decoder.load_state_dict(decoder.state_dict() | change)
    assert digest(decoder) == before
