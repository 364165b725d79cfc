"""The pathway regulariser of GSNN: nodes of one pathway should go together, pathways that are told apart should not.

With A (batch, functions, channels) the activations of a layer and M (pathways, functions) the membership, from 0 on:

    s = mean of A over its channels, or weighted by phi     (batch, functions)
    S = s M^T / max(row sums of M, 1)                       (batch, pathways)
    r = correlation over the batch of s_i and S_p, each over its (biased) standard deviation + eps
    L_sim = -lambda_sim  sum of M_pi r_ip / max(sum of M, 1)
    L_dis = lambda_dis  mean over dissimilar pairs (p, q) of (correlation of S_p and S_q)^2

averaged over the layers. In this published form (`self_inclusive`) a node counts towards the pathway that it is
compared with, so that a pathway of one is perfect whatever the node does, and small pathways are rewarded for being
small. By default node i is compared with the mean of the others of its pathway instead,

    S_p without i = (sum over j != i of M_pj s_j) / (sum over j != i of M_pj)

and a pathway of one has nothing to compare with: it is left out of L_sim (`left_out` says which) and keeps its part in
L_dis. That is one column per membership, so the cost is batch x memberships, as small as the published product.

After PathwayLatentRegularizer of GSNN, which gives 0, silently, for a batch of one; here that is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from neuroloop.errors import ModelError

# Of scores, (samples, functions).
Gather = Callable[[Tensor], Tensor]
Pairs = Sequence[tuple[int, int]] | NDArray[np.integer[Any]]


def _own(scores: Tensor) -> Tensor:
    return scores


class PathwayRegulariser(nn.Module):
    """The two losses of a list of activations.

    membership: (pathways, functions), finite, from 0 on; graded where a node belongs to a pathway in part.
    channels: of each function. dissimilar: pairs of pathways. learn_phi: weigh the channels by `phi`, which is learned.
    left_out: the pathways that have nothing to compare with, by number.
    Raises ModelError where the membership is none, or a pair names no two pathways.
    """

    membership: Tensor
    members: Tensor
    pairs: Tensor
    phi: Tensor | None

    def __init__(
        self,
        membership: NDArray[Any],
        channels: int,
        *,
        dissimilar: Pairs = (),
        lambda_sim: float = 0.1,
        lambda_dis: float = 0.0,
        self_inclusive: bool = False,
        learn_phi: bool = False,
        eps: float = 1e-6,
    ) -> None:
        super().__init__()
        matrix = check_membership(membership)
        self.channels, self.eps, self.self_inclusive = channels, eps, self_inclusive
        self.lambda_sim, self.lambda_dis = lambda_sim, lambda_dis
        self.left_out = () if self_inclusive else alone(matrix)
        self.register_buffer("membership", torch.from_numpy(matrix))
        compared = [number for number in range(len(matrix)) if number not in self.left_out]
        rows, nodes = np.nonzero(matrix[compared])
        self.register_buffer("members", torch.from_numpy(np.stack([np.array(compared, np.intp)[rows], nodes])))
        self.register_buffer("pairs", torch.from_numpy(check_pairs(dissimilar, len(matrix))))
        self.phi = nn.Parameter(torch.full((channels,), 1.0 / channels)) if learn_phi else None

    def forward(self, activations: Sequence[Tensor], gather: Gather = _own) -> tuple[Tensor, Tensor]:
        """L_sim and L_dis.

        activations: of each layer, (batch, functions, channels) or (batch, functions * channels), two samples or more.
        gather: makes the scores of the whole batch of those of a part of it, where these are the activations of one.
        """
        if not activations:
            raise ModelError("activations: expected those of one layer or more, got none")
        losses = [self._layer(gather(self._scores(one))) for one in activations]
        sim, dis = (torch.stack(one).mean() for one in zip(*losses, strict=True))
        return self.lambda_sim * sim, self.lambda_dis * dis

    def _scores(self, activation: Tensor) -> Tensor:
        """s, (batch, functions)."""
        functions, shape = self.membership.shape[1], tuple(activation.shape)
        if len(shape) not in (2, 3) or shape[1:] not in ((functions * self.channels,), (functions, self.channels)):
            raise ModelError(
                f"activations: expected (batch, {functions} functions x {self.channels} channels), got {shape}"
            )
        grouped = activation.reshape(shape[0], functions, self.channels)
        return grouped.mean(2) if self.phi is None else grouped @ self.phi.to(grouped.dtype)

    def _layer(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        if len(scores) < 2:
            raise ModelError(
                f"activations: a batch of {len(scores)} has no correlation over the batch; give two samples or more"
            )
        membership = self.membership.to(scores.dtype)
        pathways = scores @ membership.T
        standard = standardise(pathways / membership.sum(1).clamp(min=1.0), self.eps)
        sim = self._inclusive(scores, standard) if self.self_inclusive else self._without_itself(scores, pathways)
        if not len(self.pairs):
            return sim, sim.new_zeros(())
        first, second = standard[:, self.pairs[:, 0]], standard[:, self.pairs[:, 1]]
        return sim, (first * second).mean(0).square().mean()

    def _inclusive(self, scores: Tensor, standard: Tensor) -> Tensor:
        membership = self.membership.to(scores.dtype)
        correlation = standardise(scores, self.eps).T @ standard / len(scores)
        return -(correlation * membership.T).sum() / membership.sum().clamp(min=1.0)

    def _without_itself(self, scores: Tensor, sums: Tensor) -> Tensor:
        """sums: of the scores of each pathway, (batch, pathways), weighted by membership."""
        membership = self.membership.to(scores.dtype)
        pathway, node = self.members
        if not len(node):
            return scores.new_zeros(())
        weight = membership[pathway, node]
        rest = (sums[:, pathway] - weight * scores[:, node]) / (membership.sum(1)[pathway] - weight)
        correlation = (standardise(scores, self.eps)[:, node] * standardise(rest, self.eps)).mean(0)
        return -(correlation * weight).sum() / weight.sum().clamp(min=1.0)


def standardise(values: Tensor, eps: float) -> Tensor:
    """Over the batch, (batch, ...); 0 where a value never changes, with a gradient of 0 through the deviation."""
    return (values - values.mean(0)) / (values.std(0, correction=0) + eps)


def alone(membership: NDArray[np.float32]) -> tuple[int, ...]:
    """The pathways with fewer than two nodes."""
    return tuple(np.flatnonzero((membership > 0).sum(axis=1) < 2).tolist())


def check_membership(membership: Any) -> NDArray[np.float32]:
    """(pathways, functions) float32. Raises ModelError."""
    matrix = np.array(membership, dtype=np.float32)
    if matrix.ndim != 2 or not matrix.size or not np.isfinite(matrix).all() or (matrix < 0).any():
        raise ModelError(
            f"membership: expected (pathways, functions) with finite numbers from 0 on, got shape {matrix.shape}"
            + (f" with values from {matrix.min():g} to {matrix.max():g}" if matrix.size else "")
        )
    return matrix


def check_pairs(pairs: Pairs | None, pathways: int) -> NDArray[np.int64]:
    """(pairs, 2). Raises ModelError for a pair that names no pathway, or one with itself."""
    array = np.array(() if pairs is None else pairs, dtype=np.int64).reshape(-1, 2)
    for first, second in array.tolist():
        if not (0 <= first < pathways and 0 <= second < pathways) or first == second:
            raise ModelError(
                f"dissimilar pairs: expected two different pathways of 0 to {pathways - 1}, got {first} and {second}"
            )
    return array
