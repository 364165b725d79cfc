"""A GSNN laid out for its compiled step, and how fast that can be.

Cost of a decision, with E edges, n of them into functions and m out of functions, F functions of c channels, L layers:

    2 c L (n + m) flops, c F L exponentials and F L square roots, and 4 c L (E + n) bytes of weights

For the case of the published benchmark, 200 functions, 1000 edges, c = 4, L = 4, that is about 60 000 flops (4 us of
one core at 16 flops a nanosecond), 3200 exponentials (at 5 ns each, 16 us) and 130 KB of weights, which stay in the
second cache (3 us at 40 GB/s). So the floor is near 20 us, and the exponentials are most of it.

Measured on one core of an AMD EPYC, Python's call included, medians of 2000 decisions: 52 us for that case, where the
dense form in PyTorch takes 13 ms; with the defaults (3 layers, 6 neighbours) and 8 classes 34 us for 96 channels, 79 us
for 256, 300 us for 1024.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.models import gsnn_kernels
from neuroloop.models.gsnn_graph import Graph
from neuroloop.models.gsnn_parameters import GSNNParameters
from neuroloop.models.gsnn_settings import NetworkSettings

F32 = NDArray[np.float32]
F64 = NDArray[np.float64]


class GSNNInference:
    """One network at batch 1, with its scratch: for one thread at a time. mean, scale: of the features, (inputs,)."""

    def __init__(
        self,
        graph: Graph,
        settings: NetworkSettings,
        parameters: GSNNParameters,
        mean: NDArray[Any],
        scale: NDArray[Any],
    ) -> None:
        source, target = graph.edge_index
        order = np.argsort(target, kind="stable")
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        nodes = np.concatenate(
            [np.arange(graph.functions), graph.functions + graph.inputs + np.arange(graph.outputs + 1)]
        )
        begin = np.searchsorted(target[order], nodes)
        into, out_of = graph.into_functions, graph.out_of_functions
        written = np.zeros((settings.layers, graph.edge_count, settings.channels), np.float32)
        written[:, out_of] = parameters.out_weight
        arrays = parameters.arrays() | {
            "in_weight": parameters.in_weight[:, np.argsort(target[into], kind="stable")],
            "out_weight": written[:, order],
            "out_bias": parameters.out_bias[:, order],
        }
        self._rates = np.zeros(graph.inputs, np.float32)
        self._fixed: tuple[Any, ...] = (
            np.asarray(mean, np.float32).copy(),
            (1.0 / np.asarray(scale, np.float64)).astype(np.float32),
            source[graph.from_inputs] - graph.functions,
            place[graph.from_inputs],
            begin,
            np.where(source < graph.functions, source, 0)[order],
            gsnn_kernels.NORMS.index(settings.norm),
            settings.norm_first,
            settings.residual,
            *(np.ascontiguousarray(arrays[name]) for name in parameters.arrays()),
            np.zeros(graph.edge_count, np.float32),
            np.zeros((graph.functions, settings.channels), np.float32),
            np.zeros(settings.mlp or 0, np.float32),
            np.zeros(settings.attention or 0, np.float32),
        )

    def answer(self, rates: NDArray[Any], sharpness: float, values: F64, probability: F64) -> tuple[int, int]:
        """Logits into values and their softmax into probability, (outputs,) each.

        rates: (inputs,), of any real type. Returns the best class and how many rates are missing, taken as their means.
        """
        # Copied in: for an array of another type or layout, Numba would compile anew, in the loop.
        self._rates[...] = rates
        outcome: tuple[int, int] = gsnn_kernels.answer(self._rates, *self._fixed, sharpness, values, probability)
        return outcome
