"""The log-power behind each spatial filter, once a bin; see `csp`."""

from __future__ import annotations

from typing import Any

import numpy as np

from neuroloop.compiled import kernel


@kernel
def log_powers(features: Any, spatial: Any, out: Any) -> None:
    """log w' C w per band and filter; -inf or NaN where that is not positive or a feature is missing.

    features: (bands * pairs,), upper triangles. spatial: (bands, filters, channels) float64. out: (bands * filters,).
    """
    bands, filters, channels = spatial.shape
    first = 0
    for b in range(bands):
        for f in range(filters):
            out[b * filters + f] = 0.0
        for i in range(channels):
            for f in range(filters):
                along = 0.5 * spatial[b, f, i] * features[first]
                for j in range(i + 1, channels):
                    along += spatial[b, f, j] * features[first + j - i]
                out[b * filters + f] += 2.0 * spatial[b, f, i] * along
            first += channels - i
    for k in range(bands * filters):
        out[k] = np.log(out[k])
