"""Fitting common spatial patterns, from covariances of labelled trials.

Per band, the mean covariance A of a class and B of the others, every trial divided by its trace, so that none counts
for being loud. The filters are generalised eigenvectors,

    A w = lambda (A + B) w,

from both ends of the spectrum in turn, the most extreme first: power that is large in the class, power that is small.
Two classes are one contrast; more are one contrast of each against the rest. LDA on the log-powers behind all filters
follows.

A ridge on A and on B, each e I, makes directions without power (of channels that were referenced to their mean)
indifferent, lambda = 1/2, and those that are mostly ridge give no filter. On A + B alone it would make them look
extreme: imagined fists and feet were then told apart by chance with e = 1e-2 of a channel's mean power, and at 0.96
with it on both.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

from neuroloop.errors import ModelError
from neuroloop.models.csp_kernels import log_powers
from neuroloop.models.fitted_settings import CSPSettings
from neuroloop.models.fitted_state import Arrays, channel_count
from neuroloop.models.linear_fit import fit_lda

F64 = NDArray[np.float64]
Indices = NDArray[np.intp]


def fit_csp(settings: CSPSettings, features: F64, labels: Indices, classes: int) -> Arrays:
    """spatial, matrix and bias of `fitted_state`. features: (trials, bands * pairs), finite; labels of two classes or
    more. Raises ModelError for features that are no covariances, or that leave nothing to filter.
    """
    assert settings.bands is not None
    found = [filters(band, labels, settings) for band in matrices(features, settings.bands, "csp")]
    count = min(len(contrast) for band in found for contrast in band)
    if count == 0:
        raise ModelError("csp: the channels have less power than the ridge; make it smaller")
    spatial = np.stack([np.concatenate([contrast[:count] for contrast in band]) for band in found])
    powers = np.empty((len(features), spatial.shape[0] * spatial.shape[1]))
    for trial, row in zip(features, powers, strict=True):
        log_powers(trial, spatial, row)
    if not np.isfinite(powers).all():
        raise ModelError("csp: some trials have no power behind a spatial filter; are channels flat?")
    return {"spatial": spatial} | fit_lda(settings, powers, labels, classes)


def matrices(features: F64, bands: int, kind: str) -> F64:
    """Of upper triangles: (bands, trials, channels, channels), symmetric. kind: of the decoder, for the error."""
    channels = channel_count(features.shape[1], bands, kind)
    rows, columns = np.triu_indices(channels)
    found = np.zeros((bands, len(features), channels, channels))
    triangles = features.reshape(len(features), bands, -1).swapaxes(0, 1)
    found[..., rows, columns] = found[..., columns, rows] = triangles
    return found


def filters(covariances: F64, labels: Indices, settings: CSPSettings) -> list[F64]:
    """Of one band, for each contrast (filters, channels), the best first. covariances: (trials, channels, channels)."""
    power = np.trace(covariances, axis1=1, axis2=2)
    if not (power > 0).all():
        raise ModelError("csp: some trials have no power in a band; are channels flat?")
    covariances = covariances / power[:, None, None]
    means = {int(label): covariances[labels == label].mean(axis=0) for label in np.unique(labels)}
    contrasts = list(means)[:1] if len(means) == 2 else list(means)
    found = []
    for label in contrasts:
        others = np.mean([mean for other, mean in means.items() if other != label], axis=0)
        found.append(_contrast(means[label], others, settings))
    return found


def _contrast(one: F64, others: F64, settings: CSPSettings) -> F64:
    """Filters, (filters, channels), of two covariances of trace 1."""
    channels = len(one)
    ridge = settings.ridge / channels
    loading = ridge * np.eye(channels)
    try:
        _, vectors = linalg.eigh(one + loading, one + others + 2 * loading)
    except linalg.LinAlgError as error:
        raise ModelError(
            "csp: the channels' covariance has no inverse (a common average, or a channel twice); set ridge above 0"
        ) from error
    mostly_ridge = 2 * ridge * (vectors**2).sum(axis=0) > 0.5  # of a power of 1
    order = [number for number in _from_both_ends(channels) if not mostly_ridge[number]]
    found: F64 = vectors.T[order[: settings.filters]]
    return found


def _from_both_ends(count: int) -> list[int]:
    """The last, the first, the last but one, ..."""
    return [count - 1 - number // 2 if number % 2 == 0 else number // 2 for number in range(count)]
