"""LDA and logistic regression: the two linear decoders that everybody compares with.

    lda        Gaussian classes of one covariance, shrunk towards its diagonal:  logit_k = x S^-1 m_k - m_k S^-1 m_k / 2
    logistic   multinomial, weights penalised by their squares

Both are fitted by scikit-learn on standardised features (`linear_fit`) and answer without it: features x classes
multiplications in one compiled call.
"""

from __future__ import annotations

from neuroloop.models.fitted import FittedDecoder
from neuroloop.models.fitted_settings import LDASettings, LogisticSettings


class LDA(FittedDecoder):
    """Linear discriminant analysis with shrinkage."""

    kind = "lda"
    settings_model = LDASettings
    settings: LDASettings


class Logistic(FittedDecoder):
    """Multinomial logistic regression."""

    kind = "logistic"
    settings_model = LogisticSettings
    settings: LogisticSettings
