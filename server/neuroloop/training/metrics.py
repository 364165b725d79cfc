"""How good the answers of a decoder are on trials, or bins, that it has not seen."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F64 = NDArray[np.float64]
Indices = NDArray[np.intp]

LEAST = 1e-15  # a probability of 0 for what then happened costs 50 bits, not infinity


def accuracy(answers: Indices, labels: Indices) -> float:
    """Share of right answers; an abstention, -1, is a wrong one."""
    return float(np.mean(answers == labels))


def balanced_accuracy(answers: Indices, labels: Indices) -> float:
    """Mean over the classes that occur of the share of their trials answered right: each counts the same."""
    return float(np.mean([np.mean(answers[labels == label] == label) for label in np.unique(labels)]))


def log_loss(probability: F64, labels: Indices) -> float:
    """Mean of -log p(label), nats. probability: (trials, classes); all 0 where the decoder knew nothing: even then."""
    total = probability.sum(axis=1, keepdims=True)
    known = np.where(total > 0, probability / np.where(total > 0, total, 1.0), 1.0 / probability.shape[1])
    return float(-np.log(np.maximum(known[np.arange(len(labels)), labels], LEAST)).mean())


def score(answers: Indices, probability: F64, labels: Indices) -> dict[str, float]:
    return {
        "accuracy": accuracy(answers, labels),
        "balanced_accuracy": balanced_accuracy(answers, labels),
        "log_loss": log_loss(probability, labels),
    }


def r2(estimates: F64, targets: F64) -> float:
    """Share of the targets' variance that is explained, a mean over the targets that vary. Both: (bins, targets)."""
    residual = ((targets - estimates) ** 2).sum(axis=0)
    total = ((targets - targets.mean(axis=0)) ** 2).sum(axis=0)
    return float(np.mean(1 - residual[total > 0] / total[total > 0])) if (total > 0).any() else np.nan


def correlation(estimates: F64, targets: F64) -> float:
    """Pearson's, a mean over the targets that vary; 0 for estimates that do not. Both: (bins, targets)."""
    ours, theirs = estimates - estimates.mean(axis=0), targets - targets.mean(axis=0)
    varies = (theirs**2).sum(axis=0) > 0
    norm = np.sqrt((ours**2).sum(axis=0) * (theirs**2).sum(axis=0))
    found = np.divide((ours * theirs).sum(axis=0), norm, out=np.zeros_like(norm), where=norm > 0)
    return float(found[varies].mean()) if varies.any() else np.nan
