"""Whether arrays can be a decoder of kind `lfr`, checked without the decoder, without a compiler and without PyTorch.

mean, std           (units,), what rates are standardised with; std 0 throughout: the backbone was never fitted
chosen              (targets,), numbers of the projectors that the backbone learned to predict; empty from scratch
backbone.*          see `backbones`
head.*              of the linear head: weight (width, classes), bias (classes,), counts (classes,) labelled windows,
                    sharpness (1,), 1 / temperature. Of MaxRate: what its own state has, see `lfr_heads`
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError
from neuroloop.models.lfr_settings import LFRSettings
from neuroloop.models.state_checks import check_class_rates, check_trials

LEAST = np.finfo(np.float32).min  # stands for -inf in a file, which holds finite values only
NUMBERS = ("missing", "trial_count", "signed")  # of MaxRate's state, in the order of `head.numbers`


def backbone_shapes(settings: LFRSettings, units: int) -> dict[str, tuple[int, ...]]:
    """Of the arrays of a backbone, by name."""
    width = settings.width
    if settings.backbone == "gru":
        return {
            "inputs": (units, 3 * width),
            "input_bias": (3 * width,),
            "states": (width, 3 * width),
            "state_bias": (3 * width,),
            "readout": (width, width),
            "readout_bias": (width,),
        }
    found: dict[str, tuple[int, ...]] = {}
    for layer in range(settings.depth):
        found[f"weight{layer}"] = (settings.kernel * (width if layer else units), width)
        found[f"bias{layer}"] = (width,)
    return found


def check_state(state: Mapping[str, Any], settings: LFRSettings, classes: int, units: int) -> None:
    """Raise ModelError, naming the array, unless all are there, of the right shapes, and finite."""
    shapes: dict[str, tuple[int, ...]] = {"mean": (units,), "std": (units,)}
    shapes |= {f"backbone.{name}": shape for name, shape in backbone_shapes(settings, units).items()}
    if settings.head == "linear":
        shapes |= {"head.weight": (settings.width, classes), "head.bias": (classes,)}
        shapes |= {"head.counts": (classes,), "head.sharpness": (1,)}
    for name, shape in shapes.items():
        array(state, name, shape)
    array(state, "chosen", np.shape(state.get("chosen", ()))[:1], kinds="iu")
    std = np.asarray(state["std"])
    if not ((std > 0).all() or (std == 0).all()):
        raise ModelError("decoder state: expected std above 0, or 0 of every unit where nothing was fitted")
    for name in ("head.counts", "head.sharpness") if settings.head == "linear" else ():
        if (np.asarray(state[name]) < 0).any():
            raise ModelError(f"decoder state: expected {name} from 0 on, got {np.asarray(state[name]).min()}")
    if settings.head == "maxrate":
        of_maxrate = maxrate_state(state)
        check_class_rates(of_maxrate, classes, settings.width)
        check_trials(of_maxrate, classes)


def array(state: Mapping[str, Any], name: str, shape: tuple[int, ...], kinds: str = "iuf") -> NDArray[Any]:
    """One of the arrays. Raises ModelError unless it is there, of this shape, of numbers, and finite."""
    if name not in state:
        raise ModelError(f"decoder state: {name} is missing")
    found = np.asarray(state[name])
    if found.shape != shape or found.dtype.kind not in kinds:
        raise ModelError(f"decoder state: expected {name} as numbers of shape {shape}, got {found.dtype} {found.shape}")
    if not np.isfinite(found).all():
        raise ModelError(f"decoder state: {name} holds values that are not finite")
    return found


def maxrate_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """MaxRate's own form of the `head.*` arrays."""
    found = {name.removeprefix("head."): value for name, value in state.items() if name.startswith("head.")}
    numbers = array(state, "head.numbers", (len(NUMBERS),), kinds="iu")
    found |= {name: int(value) for name, value in zip(NUMBERS, numbers, strict=True)}
    found["signed"] = bool(found["signed"])
    found["sharpness"] = float(array(state, "head.sharpness", (1,))[0])
    logits = np.array(found.get("trial_logits", ()), np.float32)
    found["trial_logits"] = np.where(logits > LEAST, logits, -np.inf).astype(np.float32)
    return found


def maxrate_arrays(state: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The `head.*` arrays of MaxRate's state dict."""
    logits = np.maximum(state["trial_logits"], LEAST)
    found = {name: state[name] for name in ("sums", "weights", "counts", "trial_labels")}
    found |= {"trial_logits": logits, "sharpness": np.array([state["sharpness"]], np.float64)}
    found["numbers"] = np.array([int(state[name]) for name in NUMBERS], np.int64)
    return {f"head.{name}": value for name, value in found.items()}
