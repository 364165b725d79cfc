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
    model = sklearn("linear_model").LogisticRegression(
        C=1.0 / settings.penalty,
        class_weight="balanced" if settings.prior == "uniform" else None,
        max_iter=MOST_ITERATIONS,
    )
    return _fit(model, inputs, labels, classes)


def _fit(model: Any, inputs: F64, labels: Indices, classes: int) -> Arrays:
    standard, per_unit, mean = standardise(inputs)
    varies = per_unit > 0
    model.fit(standard[:, varies], labels)
    weights, offsets = model.coef_, model.intercept_
    if len(weights) == 1:  # two classes: one logit, of the second against the first
        weights, offsets = np.concatenate([-weights, weights]) / 2, np.concatenate([-offsets, offsets]) / 2
    matrix, bias = np.zeros((inputs.shape[1], classes)), np.zeros(classes)
    learned = np.unique(labels)
    matrix[np.ix_(varies, learned)] = weights.T * per_unit[varies, None]
    bias[learned] = offsets
    return {"matrix": matrix, "bias": bias - mean @ matrix}


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
