"""The compiled step of a GSNN: one rate vector in, the logits of the classes and their probabilities out.

Edges lie in the order of the nodes that they lead to, functions first and then outputs, so that what a node reads is
contiguous. What it writes is gathered: every edge takes the dot product with the channels of the node that it leaves.
An edge that leaves an input has weights of 0.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np

from neuroloop.compiled import kernel

NORMS: Final = ("none", "layer", "rms", "softmax")
LAYER_EPS: Final = np.float32(0.1)
RMS_EPS: Final = np.float32(1e-6)
LAYER_NORM_EPS: Final = np.float32(1e-5)  # of the networks within a node
ZERO, ONE = np.float32(0), np.float32(1)


@kernel
def _elu(x: Any) -> Any:
    return x if x > ZERO else np.exp(x) - ONE


@kernel
def _take_in(rates: Any, mean: Any, inverse: Any, feature: Any, place: Any, edges: Any) -> int:
    """Standardise the rates onto the edges that leave inputs; a missing one is taken as its mean, and counted."""
    missing = 0
    for i in range(len(rates)):
        missing += 0 if abs(rates[i]) < np.float32(np.inf) else 1
    edges[:] = ZERO
    for n in range(len(place)):
        i = feature[n]
        value = (rates[i] - mean[i]) * inverse[i]
        edges[place[n]] = value if abs(value) < np.float32(np.inf) else ZERO
    return missing


@kernel
def _read(edges: Any, begin: Any, weight: Any, bias: Any, h: Any) -> None:
    """h, (functions, channels), from the edges that lead to each function."""
    functions, channels = h.shape
    for f in range(functions):
        for j in range(channels):
            h[f, j] = bias[f, j]
        for e in range(begin[f], begin[f + 1]):
            value = edges[e]
            for j in range(channels):
                h[f, j] += value * weight[e, j]


@kernel
def _write(h: Any, source: Any, weight: Any, bias: Any, kept: Any, first: int, edges: Any) -> None:
    """The edges from `first` on, from the function that each leaves and what it carried."""
    channels = h.shape[1]
    for e in range(first, len(edges)):
        f = source[e]
        total = bias[e] + kept * edges[e]
        for j in range(channels):
            total += h[f, j] * weight[e, j]
        edges[e] = total


@kernel
def _norm(norm: int, gain: Any, shift: Any, h: Any) -> None:
    """In place, per function; norm: its place in NORMS."""
    functions, channels = h.shape
    for f in range(functions):
        if norm == 3:
            largest = h[f].max()
            total = ZERO
            for j in range(channels):
                h[f, j] = np.exp(h[f, j] - largest)
                total += h[f, j]
            for j in range(channels):
                h[f, j] /= total
            continue
        mean, square = ZERO, ZERO
        if norm == 1:
            for j in range(channels):
                mean += h[f, j]
            mean /= np.float32(channels)
        for j in range(channels):
            square += (h[f, j] - mean) * (h[f, j] - mean)
        if norm == 1:
            scale, offset = gain[f] / (np.sqrt(square / np.float32(channels - 1)) + LAYER_EPS), shift[f]
        else:
            scale, offset = gain[f] / np.sqrt(square / np.float32(channels) + RMS_EPS), ZERO
        for j in range(channels):
            h[f, j] = (h[f, j] - mean) * scale + offset


@kernel
def _activate(h: Any) -> None:
    for f in range(h.shape[0]):
        for j in range(h.shape[1]):
            h[f, j] = _elu(h[f, j])


@kernel
def _hide(one: Any, weight: Any, bias: Any, hidden: Any) -> None:
    """hidden = weight @ one + bias."""
    for k in range(len(hidden)):
        total = bias[k]
        for j in range(len(one)):
            total += weight[k, j] * one[j]
        hidden[k] = total


@kernel
def _layer_norm(gain: Any, shift: Any, hidden: Any) -> None:
    count = np.float32(len(hidden))
    mean, square = ZERO, ZERO
    for k in range(len(hidden)):
        mean += hidden[k]
    mean /= count
    for k in range(len(hidden)):
        square += (hidden[k] - mean) * (hidden[k] - mean)
    scale = ONE / np.sqrt(square / count + LAYER_NORM_EPS)
    for k in range(len(hidden)):
        hidden[k] = (hidden[k] - mean) * scale * gain[k] + shift[k]


@kernel
def _mlp(weight: Any, bias: Any, gain: Any, shift: Any, out: Any, out_bias: Any, hidden: Any, h: Any) -> None:
    """The network in every node, in place."""
    for f in range(h.shape[0]):
        _hide(h[f], weight, bias, hidden)
        _layer_norm(gain, shift, hidden)
        for k in range(len(hidden)):
            hidden[k] = _elu(hidden[k])
        for j in range(h.shape[1]):
            total = out_bias[j]
            for k in range(len(hidden)):
                total += out[j, k] * hidden[k]
            h[f, j] = total


@kernel
def _gate(weight: Any, bias: Any, gain: Any, shift: Any, out: Any, out_bias: Any, hidden: Any, h: Any) -> None:
    """Weigh the nodes by their attention, in place."""
    for f in range(h.shape[0]):
        _hide(h[f], weight, bias, hidden)
        for k in range(len(hidden)):
            hidden[k] = _elu(hidden[k])
        _layer_norm(gain, shift, hidden)
        total = out_bias
        for k in range(len(hidden)):
            total += out[k] * hidden[k]
        attention = ONE / (ONE + np.exp(-total))
        for j in range(h.shape[1]):
            h[f, j] *= attention


@kernel
def _softmax(values: Any, sharpness: float, probability: Any) -> int:
    """Returns the best class, the first where several are."""
    best = 0
    for k in range(len(values)):
        if values[k] > values[best]:
            best = k
    total = 0.0
    for k in range(len(values)):
        probability[k] = np.exp((values[k] - values[best]) * sharpness)
        total += probability[k]
    for k in range(len(values)):
        probability[k] /= total
    return best


@kernel
def answer(
    rates: Any, mean: Any, inverse: Any, feature: Any, place: Any, begin: Any, source: Any,
    norm: int, norm_first: bool, has_residual: bool,
    residual: Any, in_weight: Any, in_bias: Any, out_weight: Any, out_bias: Any, norm_gain: Any, norm_shift: Any,
    mlp_in: Any, mlp_in_bias: Any, mlp_gain: Any, mlp_shift: Any, mlp_out: Any, mlp_out_bias: Any,
    attention_in: Any, attention_in_bias: Any, attention_gain: Any, attention_shift: Any, attention_out: Any,
    attention_out_bias: Any,
    edges: Any, h: Any, mlp_hidden: Any, attention_hidden: Any,
    sharpness: float, values: Any, probability: Any,
) -> tuple[int, int]:  # fmt: skip
    """Logits into values, (outputs,) float64, and their softmax into probability.

    Returns the best class and how many rates are missing. begin: (functions + outputs + 1,), of the edges that lead to
    each. edges: (edges,); h: (functions, channels); mlp_hidden, attention_hidden: scratch.
    """
    missing: int = _take_in(rates, mean, inverse, feature, place, edges)
    layers, functions = len(residual), h.shape[0]
    for layer in range(layers):
        _read(edges, begin, in_weight[layer], in_bias[layer], h)
        if not norm_first:
            _activate(h)
        if norm > 0:
            _norm(norm, norm_gain[layer], norm_shift[layer], h)
        if norm_first:
            _activate(h)
        if len(mlp_hidden) > 0:
            _mlp(
                mlp_in[layer], mlp_in_bias[layer], mlp_gain[layer], mlp_shift[layer], mlp_out[layer],
                mlp_out_bias[layer], mlp_hidden, h,
            )  # fmt: skip
        if len(attention_hidden) > 0:
            _gate(
                attention_in[layer], attention_in_bias[layer], attention_gain[layer], attention_shift[layer],
                attention_out[layer], attention_out_bias[layer, 0], attention_hidden, h,
            )  # fmt: skip
        kept = max(residual[layer], ZERO) if has_residual else ZERO
        first = begin[functions] if layer == layers - 1 else 0
        _write(h, source, out_weight[layer], out_bias[layer], kept, first, edges)
    for k in range(len(values)):
        total = 0.0
        for e in range(begin[functions + k], begin[functions + k + 1]):
            total += edges[e]
        count = begin[functions + k + 1] - begin[functions + k]
        values[k] = total / np.sqrt(count * layers if has_residual else count)
    return _softmax(values, sharpness, probability), missing
