"""The published forms of our models, for comparison: what `tests/fixtures` holds, ours must give.

LRR as ezmsg-learn computes it: not centred, absolute ridge, no forgetting. MaxRate as inferno computes it: rates are
sums, inputs are not normalised, silent features belong to class 0. Both come out of the code that the sessions run.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models import dpp as dpp_selection
from neuroloop.models import lfr_losses, lnp_batch, lnp_losses
from neuroloop.models.base import check_settings
from neuroloop.models.lnp_parameters import LNPSettings, make_parameters
from neuroloop.models.maxrate import MaxRate
from neuroloop.models.receptive_fields import centre, crop
from neuroloop.signal.covariance import snapshot_of
from neuroloop.signal.regression import solve
from neuroloop.signal.rereference import apply

F64 = NDArray[np.float64]
Pairs = Sequence[tuple[int, int]] | NDArray[np.integer[Any]]


def lrr_fit(
    X: NDArray[Any],
    channel_clusters: Sequence[Sequence[int]] | None = None,
    ridge_lambda: float = 0.0,
    min_regress: int = 2,
) -> F64:
    """W of every channel on the others of its cluster, (channels, channels); `W[r, c]` predicts channel c.

    X: (..., channels); samples with a value that is not finite are left out. channel_clusters: indices, by default one
    cluster of all. ridge_lambda: added to the diagonal of X^T X. min_regress: smaller clusters stay as they are; 2 is
    ezmsg-learn 1.4, 3 is 1.9 and later. Dead channels are left out, and duplicates solved with the minimum norm.
    Raises ModelError where clusters overlap or name a channel that is not there.
    """
    channels = np.shape(X)[-1]
    clusters = [range(channels)] if channel_clusters is None else channel_clusters
    try:
        snapshot = snapshot_of(X, clusters)
    except ValueError as error:
        raise ModelError(f"channel_clusters: {error}") from error
    weights = solve(
        snapshot,
        [str(channel) for channel in range(channels)],
        ridge=0.0,
        ridge_absolute=ridge_lambda,
        min_cluster=min_regress,
        min_samples_per_channel=0.0,
        center=False,
        version=1,
        source="fit",
    )
    return weights.matrix


def lrr_apply(X: NDArray[Any], W: NDArray[Any]) -> F64:
    """`X (I - W)`. X: (..., channels). Raises ModelError unless W is (channels, channels)."""
    return apply(X, W)


def maxrate_logits(rates: NDArray[Any], inputs: NDArray[Any], proportional: bool) -> F64:
    """Logits, (batch, classes). rates: (*shape, classes). inputs: (batch, *shape), or (time, batch, *shape)."""
    *shape, classes = np.shape(rates)
    model = MaxRate.published([str(k) for k in range(classes)], shape, proportional=proportional)
    model.set_rates(rates)
    return model.predict_batch(inputs).values


def maxrate_run(
    batches: Iterable[tuple[NDArray[Any], NDArray[Any]]],
    shape: Sequence[int],
    num_classes: int,
    decay: float = 0.0,
) -> list[dict[str, Any]]:
    """Train on batches in order; per batch the prediction before the update, and the state after it.

    batches: (inputs, labels) each; inputs (batch, *shape), or (time, batch, *shape), which is averaged over time;
    labels (batch,). decay: of a class's rates, per sample of it.
    Returns per batch a dict of pred (batch,), logits (batch, classes), both proportional; rates and proportions
    (*shape, classes); assignments (*shape,); occurrences (classes,).
    Raises ModelError where the inputs have another shape, or a label is no class.
    """
    model = MaxRate.published([str(k) for k in range(num_classes)], shape, decay)
    steps = []
    for inputs, labels in batches:
        logits = model.predict_batch(inputs).values
        model.learn_batch(inputs, labels)
        steps.append(
            {
                "pred": logits.argmax(axis=1),
                "logits": logits,
                "rates": model.rates,
                "proportions": model.proportions,
                "assignments": model.assignments,
                "occurrences": model.occurrences,
            }
        )
    return steps


# LNP, as openretina's SingleCellSeparatedLNP computes it: one cell, no gain, no bias, losses summed.


def lnp_forward(
    x: NDArray[Any],
    space_w: NDArray[Any],
    time_w: NDArray[Any],
    nonlinearity: str = "softplus",
    normalize_weights: bool = True,
    location: tuple[int, int] | None = None,
    **softplus: float,
) -> NDArray[Any]:
    """Rates, (batch, frames - lags + 1, 1).

    x: (batch, channels, frames, height, width), of which the kernel sees the crop at `location` (row, column), by
    default (height // 2, width // 2). space_w: (rank, channels, 1, kh, kw). time_w: (1, rank, lags, 1, 1).
    nonlinearity: "exp", "softplus" or "parametrized_softplus", `w softplus(a x + b)`; softplus: its a, b and w, by
    default 1, 0 and 1. Weights are taken as float32; computed in float64 where x is, in float32 otherwise.
    Raises ModelError where shapes or names do not fit.
    """
    x, space, time = np.asarray(x), np.asarray(space_w), np.asarray(time_w)
    shapes = f"x {x.shape}, space_w {space.shape}, time_w {time.shape}"
    if not (x.ndim == space.ndim == time.ndim == 5 and space.shape[2] == 1 and space.shape[1] == x.shape[1]):
        raise ModelError(f"lnp_forward: expected (B, C, T_in, H, W), (R, C, 1, kh, kw), (1, R, T, 1, 1); got {shapes}")
    if time.shape != (1, len(space), time.shape[2], 1, 1):
        raise ModelError(
            f"lnp_forward: expected time_w (1, {len(space)}, T, 1, 1), as many ranks as space_w; got {shapes}"
        )
    if not set(softplus) <= {"a", "b", "w"}:
        raise ModelError(f"lnp_forward: the parametrised softplus has a, b and w; got {sorted(softplus)}")
    frame = (x.shape[1], x.shape[3], x.shape[4])
    if softplus and nonlinearity == "softplus":
        nonlinearity = "parametrized_softplus"
    given = {
        "lags": time.shape[2],
        "rank": len(space),
        "kernel": space.shape[3:],
        "nonlinearity": nonlinearity,
        "normalize_weights": normalize_weights,
    }
    settings = check_settings("lnp", LNPSettings, given)
    assert isinstance(settings, LNPSettings)
    arrays: dict[str, Any] = {f"softplus_{name}": np.array([value]) for name, value in softplus.items()}
    arrays |= {"space": space[None, :, :, 0], "time": time[:, :, :, 0, 0]}
    arrays["locations"] = np.array([centre(frame) if location is None else location])
    return lnp_batch.forward(make_parameters(settings, 1, frame, arrays), settings, frame, x)


def lnp_poisson_loss(output: NDArray[Any], target: NDArray[Any]) -> float:
    """Summed over (batch, time, cells); the target's leading frames that the output does not have are dropped."""
    return float(lnp_losses.poisson_loss(output, target).sum())


def lnp_correlation(output: NDArray[Any], target: NDArray[Any]) -> float:
    """Pearson's correlation over time, averaged over cells and batches. (batch, time, cells), as for the loss."""
    return float(lnp_losses.correlation(output, target).mean())


def lnp_crop(kernel: tuple[int, int], location: tuple[int, int], size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Rows y0 to y1 and columns x0 to x1 under a kernel (kh, kw) at (row, column) of a frame (height, width)."""
    return crop(kernel, location, size)


def laplace_l2(weights: NDArray[Any], padding: int | None = None) -> float:
    """`sum((K * w)^2) / (sum(w^2) + 1e-6)` with `padding` zeros around, 1 by default.

    Over the last two axes; over time, with K = [-1 2 -1], for temporal kernels (n, rank, T, 1, 1) with T > 1, which no
    stack of spatial ones looks like: theirs have third axis 1.
    """
    array, zeros = np.asarray(weights), 1 if padding is None else padding
    if array.ndim == 5 and array.shape[3:] == (1, 1) and array.shape[2] > 1:
        return lnp_losses.roughness(array[..., 0, 0], zeros, axes=1)
    return lnp_losses.roughness(array, zeros)


# LFR, as minerva's LearnFromRandomnessModel computes it: losses summed over the batch, an absolute threshold.


def batchwise_barlow_twins(
    p: NDArray[Any], z: NDArray[Any], diag_lambda: float = 0.01, normalize: bool = False
) -> float:
    """`sum_i (c_ii - 1)^2 + diag_lambda sum_{i != j} c_ij^2`, c = p z^T with rows at unit norm; p, z: (batch, dim).

    normalize: divided by the batch's size. Raises ModelError where the shapes differ.
    """
    return lfr_losses.barlow_twins(p, z, diag_lambda, normalize)


def lfr_schedule(predictor_training_epochs: int | None, epochs: int) -> list[bool]:
    """Of each epoch, whether the backbone is frozen. None, 0 or less: it never is."""
    return [lfr_losses.backbone_is_frozen(epoch, predictor_training_epochs) for epoch in range(epochs)]


def lfr_kernel(outputs: NDArray[Any]) -> F64:
    """How alike the projectors are, (projectors, projectors). outputs: (projectors, samples, dim)."""
    return dpp_selection.lfr_kernel(outputs)


def dpp(kernel: NDArray[Any], max_length: int) -> list[int]:
    """Indices of the greedy determinantal point process, in the order of choice; stops below a gain of 1e-10.

    kernel: (items, items), symmetric. max_length: how many at most. Raises ModelError unless it is square.
    """
    return dpp_selection.select(kernel, max_length, dpp_selection.LEAST_GAIN).indices


# GSNN, and its pathway regulariser, as published: a node counts towards its own pathway. Both need PyTorch.


def pathway_losses(
    activations: Sequence[Any],
    channels: int | NDArray[Any],
    membership: NDArray[Any],
    dissim_pairs: Pairs | None = None,
    lambda_sim: float = 0.1,
    lambda_dis: float = 0.0,
    phi_weight: NDArray[Any] | None = None,
    eps: float = 1e-6,
) -> tuple[Any, Any]:
    """L_sim and L_dis, times their lambdas: plain numbers, or tensors with gradients where tensors are given.

    activations: of each layer, (batch, functions * channels) or (batch, functions, channels). channels: of each
    function, or the function of each column. membership: (pathways, functions). dissim_pairs: (pairs, 2), pathways to
    be told apart. phi_weight: (channels,) or (1, channels), how channels weigh; by default all the same.
    Raises ModelError where shapes do not fit, or the batch has one sample.
    """
    import torch

    from neuroloop.models.pathway import PathwayRegulariser

    count = channels if np.ndim(channels) == 0 else np.size(channels) // np.asarray(membership).shape[-1]
    regulariser = PathwayRegulariser(
        membership,
        int(count),
        dissimilar=() if dissim_pairs is None else dissim_pairs,
        lambda_sim=lambda_sim,
        lambda_dis=lambda_dis,
        self_inclusive=True,
        learn_phi=phi_weight is not None,
        eps=eps,
    )
    if regulariser.phi is not None:
        given = torch.as_tensor(phi_weight, dtype=torch.float32).ravel()
        if given.shape != regulariser.phi.shape:
            raise ModelError(f"phi_weight: expected {tuple(regulariser.phi.shape)}, got {tuple(given.shape)}")
        regulariser.phi = torch.nn.Parameter(given, requires_grad=False)
    losses: tuple[torch.Tensor, torch.Tensor] = regulariser([torch.as_tensor(activation) for activation in activations])
    if any(isinstance(activation, torch.Tensor) for activation in activations):
        return losses
    return float(losses[0]), float(losses[1])


def gsnn_forward(
    x: NDArray[Any],
    edges: Mapping[Any, Any] | Sequence[Any],
    counts: Mapping[str, Any] | Sequence[Any],
    state_dict: Mapping[str, Any],
    **settings: Any,
) -> tuple[NDArray[Any], list[NDArray[Any]]]:
    """Outputs, (batch, outputs), and the activations of each layer, (batch, functions * channels).

    x: (batch, inputs). edges: (2, edges) of each kind by name, `input_function`, `function_function` and
    `function_output`, or in this order. counts: of nodes, or their names, by name, `input`, `function` and `output`, or
    in this order. state_dict: as published. settings: `norm_first` (true) and `residual` (true), which the state dict
    does not show; `channels`, `layers`, `norm`, `mlp` and `attention` (hidden units) are read from it, and may be given
    where they agree. Raises ModelError where these do not fit.
    """
    import torch

    from neuroloop.models import gsnn_published
    from neuroloop.models.gsnn_torch import GSNNModule

    graph = gsnn_published.read_graph(edges, counts)
    module = GSNNModule(graph, *gsnn_published.read(graph, state_dict, settings))
    with torch.no_grad():
        passed = module(torch.as_tensor(np.asarray(x), dtype=torch.float32))
    return passed.outputs.numpy(), [activation.flatten(1).numpy() for activation in passed.activations]
