"""What decoders of the kinds `lda`, `logistic`, `csp`, `riemann` know, as arrays: checked without one, or a compiler.

matrix, bias   (inputs, classes), (classes,) float64: logits are `inputs @ matrix + bias`
sharpness      (1,), 1 / temperature of the softmax
samples        (classes,) int64, of each class that it was fitted on; a class with none is never the answer
spatial        of csp: (bands, filters, channels) float64; its inputs are the log-powers behind these filters, band by
               band. The inputs of lda and logistic are the features.
whiten         of riemann: (bands, channels, channels) float64, M^-1/2 of the mean M in each band; its inputs are the
               coordinates in the tangent space there, band by band, as many as the features

The registry asks before it stores a file, a decoder before it takes a state over: the same function.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models.base import check_settings
from neuroloop.models.fitted_settings import FITTED, CSPSettings, FittedSettings, RiemannSettings

Arrays = dict[str, NDArray[Any]]


def channel_count(features: int, bands: int, kind: str) -> int:
    """Channels whose covariance in so many bands has so many features. Raises ModelError where there are none."""
    pairs, rest = divmod(features, bands)
    channels = (isqrt(8 * pairs + 1) - 1) // 2
    if rest or channels < 1 or channels * (channels + 1) // 2 != pairs:
        raise ModelError(
            f"{kind}: expected the covariance of channels in {bands} bands, channels (channels + 1) / 2 features each "
            f"(front_end: {{kind: covariance}}); got {features} features"
        )
    return channels


def read_fitted(settings: FittedSettings, features: int, classes: int, state: Mapping[str, Any]) -> Arrays | None:
    """The arrays of a fitted decoder out of a state dict; None of one that was never fitted.

    Raises ModelError, naming the array, where they are not those of such settings, features and classes.
    """
    samples = read_array(state, "samples", (classes,), "iu")
    if (samples < 0).any():
        raise ModelError(f"decoder state: expected samples from 0 on, got {samples.min()}")
    if not samples.any():
        return None
    found: Arrays = {"samples": samples.astype(np.int64)}
    inputs = features
    if isinstance(settings, CSPSettings):
        found["spatial"] = _spatial(settings, features, state)
        inputs = found["spatial"].shape[0] * found["spatial"].shape[1]
    elif isinstance(settings, RiemannSettings):
        bands, channels = _bands(settings.bands, "riemann", features)
        found["whiten"] = read_array(state, "whiten", (bands, channels, channels), "f").astype(np.float64)
    found["matrix"] = read_array(state, "matrix", (inputs, classes), "f").astype(np.float64)
    found["bias"] = read_array(state, "bias", (classes,), "f").astype(np.float64)
    found["sharpness"] = read_array(state, "sharpness", (1,), "f").astype(np.float64)
    if found["sharpness"][0] < 0:
        raise ModelError(f"decoder state: expected sharpness from 0 on, got {found['sharpness'][0]:g}")
    return found


def _spatial(settings: CSPSettings, features: int, state: Mapping[str, Any]) -> NDArray[np.float64]:
    bands, channels = _bands(settings.bands, "csp", features)
    shape = np.asarray(state.get("spatial")).shape
    filters = shape[1] if len(shape) == 3 else 1
    return read_array(state, "spatial", (bands, filters, channels), "f").astype(np.float64)


def _bands(bands: int | None, kind: str, features: int) -> tuple[int, int]:
    """How many there are, and the channels in each."""
    if bands is None:
        raise ModelError(
            f"settings of {kind!r}: bands: expected the number of bands of a decoder that was fitted, got null"
        )
    return bands, channel_count(features, bands, kind)


def check_fitted(kind: str, settings: Mapping[str, Any], features: int, classes: int, state: Mapping[str, Any]) -> None:
    """Raise ModelError unless settings and arrays are those of a decoder of this kind."""
    checked = check_settings(kind, FITTED[kind], settings)
    assert isinstance(checked, FittedSettings)
    read_fitted(checked, features, classes, state)


def read_array(state: Mapping[str, Any], name: str, shape: tuple[int, ...], kinds: str) -> NDArray[Any]:
    """One of the arrays, of integers or floats. Raises ModelError unless it is there, of this shape, and finite."""
    found = np.asarray(state.get(name))
    if found.shape != shape or found.dtype.kind not in kinds:
        wanted = "integers" if kinds == "iu" else "floats"
        raise ModelError(
            f"decoder state: expected {name} as {wanted} of shape {shape}, got {found.dtype} {found.shape}"
        )
    if not np.isfinite(found).all():
        raise ModelError(f"decoder state: {name} holds values that are not finite")
    return found
