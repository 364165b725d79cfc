"""Fits of LDA and logistic regression by scikit-learn: the readout's matrix and bias.

Features are standardised first, so that neither shrinkage nor penalty depends on their units; a feature that never
varies has no say. Raises ModelError, naming the extra, where scikit-learn is not installed.
"""

from __future__ import annotations

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
    discriminant = _sklearn("discriminant_analysis")
    count = len(np.unique(labels))
    model = discriminant.LinearDiscriminantAnalysis(
        solver="lsqr",
        shrinkage=settings.shrinkage,
        priors=np.full(count, 1 / count) if settings.prior == "uniform" else None,
    )
    return _fit(model, inputs, labels, classes)


def fit_logistic(settings: LogisticSettings, inputs: F64, labels: Indices, classes: int) -> Arrays:
    """See `fit_lda`."""
    model = _sklearn("linear_model").LogisticRegression(
        C=1.0 / settings.penalty,
        class_weight="balanced" if settings.prior == "uniform" else None,
        max_iter=MOST_ITERATIONS,
    )
    return _fit(model, inputs, labels, classes)


def _fit(model: Any, inputs: F64, labels: Indices, classes: int) -> Arrays:
    mean, deviation = inputs.mean(axis=0), inputs.std(axis=0)
    varies = deviation > 0
    per_unit = np.divide(1.0, deviation, out=np.zeros_like(deviation), where=varies)
    model.fit(((inputs - mean) * per_unit)[:, varies], labels)
    weights, offsets = model.coef_, model.intercept_
    if len(weights) == 1:  # two classes: one logit, of the second against the first
        weights, offsets = np.concatenate([-weights, weights]) / 2, np.concatenate([-offsets, offsets]) / 2
    matrix, bias = np.zeros((inputs.shape[1], classes)), np.zeros(classes)
    learned = np.unique(labels)
    matrix[np.ix_(varies, learned)] = weights.T * per_unit[varies, None]
    bias[learned] = offsets
    return {"matrix": matrix, "bias": bias - mean @ matrix}


def _sklearn(module: str) -> Any:
    import importlib

    try:
        return importlib.import_module(f"sklearn.{module}")
    except ModuleNotFoundError as error:
        raise ModelError(f"fitting needs {error.name}: install it with pip install 'neuroloop[train]'") from error
