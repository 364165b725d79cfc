"""Fits of LDA and logistic regression by scikit-learn: the readout's matrix and bias.

Features are standardised first, so that neither shrinkage nor penalty depends on their units; a feature that never
varies has no say.
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models.fitted_settings import LDASettings, LogisticSettings
from neuroloop.models.fitted_state import Arrays

F64 = NDArray[np.float64]
Indices = NDArray[np.intp]

MOST_ITERATIONS = 2000


def fit_lda(settings: LDASettings, inputs: F64, labels: Indices, classes: int) -> Arrays:
    """matrix (inputs, classes) and bias (classes,) of `fitted_state`. inputs: (samples, inputs), finite."""
    discriminant = sklearn("discriminant_analysis")
    count = len(np.unique(labels))
    model = discriminant.LinearDiscriminantAnalysis(
        solver="lsqr",
        shrinkage=settings.shrinkage,
        priors=np.full(count, 1 / count) if settings.prior == "uniform" else None,
    )
    return _fit(model, inputs, labels, classes)


def fit_logistic(settings: LogisticSettings, inputs: F64, labels: Indices, classes: int) -> Arrays:
    """See `fit_lda`."""
    return _fit(_logistic(settings), inputs, labels, classes)


def fit_logistic_as_it_is(settings: LogisticSettings, inputs: F64, labels: Indices, classes: int) -> Arrays:
    """The same without standardising: for inputs that are in one unit, and about 0."""
    model = _logistic(settings).fit(inputs, labels)
    return _placed(model, np.ones(inputs.shape[1]), labels, classes)


def _logistic(settings: LogisticSettings) -> Any:
    return sklearn("linear_model").LogisticRegression(
        C=1.0 / settings.penalty,
        class_weight="balanced" if settings.prior == "uniform" else None,
        max_iter=MOST_ITERATIONS,
    )


def _fit(model: Any, inputs: F64, labels: Indices, classes: int) -> Arrays:
    standard, per_unit, mean = standardise(inputs)
    model.fit(standard[:, per_unit > 0], labels)
    found = _placed(model, per_unit, labels, classes)
    return found | {"bias": found["bias"] - mean @ found["matrix"]}


def _placed(model: Any, per_unit: F64, labels: Indices, classes: int) -> Arrays:
    """The weights of a fitted model, each in its place. per_unit: factor on each input, 0 of those it was not given."""
    weights, offsets = model.coef_, model.intercept_
    if len(weights) == 1:  # two classes: one logit, of the second against the first
        weights, offsets = np.concatenate([-weights, weights]) / 2, np.concatenate([-offsets, offsets]) / 2
    matrix, bias = np.zeros((len(per_unit), classes)), np.zeros(classes)
    learned, given = np.unique(labels), per_unit > 0
    matrix[np.ix_(given, learned)] = weights.T * per_unit[given, None]
    bias[learned] = offsets
    return {"matrix": matrix, "bias": bias}


def standardise(inputs: F64) -> tuple[F64, F64, F64]:
    """Inputs about their mean in units of their deviation, 0 where they never vary; that factor; the mean."""
    mean, deviation = inputs.mean(axis=0), inputs.std(axis=0)
    per_unit = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0)
    return (inputs - mean) * per_unit, per_unit, mean


def sklearn(module: str) -> Any:
    """A part of scikit-learn. Raises ModelError, naming the extra, where it is not installed."""
    try:
        return importlib.import_module(f"sklearn.{module}")
    except ModuleNotFoundError as error:
        raise ModelError(f"fitting needs {error.name}: install it with pip install 'neuroloop[train]'") from error
