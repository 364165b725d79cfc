"""One bin more through a backbone, see `backbones`. Weights are laid out so that inner loops run over outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from neuroloop.compiled import kernel

_ZERO, _ONE = map(np.float32, (0.0, 1.0))  # typed, since an untyped number would make float64 of the float32 it meets


@njit(nogil=True, error_model="numpy")
def _standardise(rates: Any, mean: Any, factor: Any, into: Any) -> None:
    """A rate that is missing is at its mean."""
    for i in range(len(mean)):
        x = (np.float32(rates[i]) - mean[i]) * factor[i]
        into[i] = x if np.isfinite(x) else _ZERO


@njit(nogil=True, error_model="numpy", fastmath={"contract"})
def _add_product(row: Any, matrix: Any, first: int, into: Any) -> None:
    """`into += row @ matrix[first : first + len(row)]`."""
    for i in range(len(row)):
        x, weights = row[i], matrix[first + i]
        for j in range(len(into)):
            into[j] += x * weights[j]


@kernel
def push_conv(
    rates: Any, count: int, mean: Any, factor: Any, weights: Any, biases: Any, rings: Any, pooled: Any, features: Any
) -> None:
    """A rate vector into the rings of the layers, as far as they are full; features once the last ring is.

    count: rate vectors before this one. weights: of each layer, (kernel * inputs, width). rings: of each layer, its
    last inputs, (kernel, inputs). pooled: the last outputs of the last layer, (pooled, width).
    """
    depth, kernel_bins, position = len(rings), len(rings[0]), count
    _standardise(rates, mean, factor, rings[0][position % kernel_bins])
    for layer in range(depth):
        ring = rings[layer]
        if position < kernel_bins - 1:
            return
        position -= kernel_bins - 1  # number of the layer's output
        into = rings[layer + 1][position % kernel_bins] if layer + 1 < depth else pooled[position % len(pooled)]
        into[:] = biases[layer]
        for lag in range(kernel_bins):
            _add_product(ring[(position + lag) % kernel_bins], weights[layer], lag * ring.shape[1], into)
        for j in range(len(into)):
            into[j] = max(into[j], _ZERO)
    if position < len(pooled) - 1:
        return
    features[:] = 0
    for age in range(len(pooled)):  # oldest first, so that where the ring begins changes no bit
        row = pooled[(position + 1 + age) % len(pooled)]
        for j in range(len(features)):
            features[j] += row[j]
    share = _ONE / np.float32(len(pooled))
    for j in range(len(features)):
        features[j] *= share


@kernel
def push_gru(
    rates: Any,
    count: int,
    mean: Any,
    factor: Any,
    inputs: Any,
    input_bias: Any,
    states: Any,
    state_bias: Any,
    readout: Any,
    readout_bias: Any,
    scratch: Any,
    ring: Any,
    features: Any,
) -> None:
    """A rate vector's drive into the ring; features once it is full.

    count: rate vectors before this one. scratch: (units,). ring: (bins, 3 width), what the last rate vectors give to
    the gates, in PyTorch's order: reset, update, new.
    """
    bins, width = len(ring), len(features)
    _standardise(rates, mean, factor, scratch)
    drive = ring[count % bins]
    drive[:] = input_bias
    _add_product(scratch, inputs, 0, drive)
    if count < bins - 1:
        return
    state, recurrent = np.zeros(width, np.float32), np.empty(3 * width, np.float32)
    for age in range(bins):
        drive = ring[(count + 1 + age) % bins]
        recurrent[:] = state_bias
        _add_product(state, states, 0, recurrent)
        for j in range(width):
            reset = _ONE / (_ONE + np.exp(-(drive[j] + recurrent[j])))
            update = _ONE / (_ONE + np.exp(-(drive[width + j] + recurrent[width + j])))
            new = np.tanh(drive[2 * width + j] + reset * recurrent[2 * width + j])
            state[j] = new + update * (state[j] - new)
    features[:] = readout_bias
    _add_product(state, readout, 0, features)
    for j in range(width):
        features[j] = max(features[j], _ZERO)
