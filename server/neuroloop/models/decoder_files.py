"""Decoders as safetensors files: a tensor for each array of the state dict, everything else as JSON in the metadata.

Reading needs neither the decoder's kind nor a compiler, so that the registry can check a file it only stores. Nothing
is unpickled. Which kinds exist, and whether a state fits one, is decided where a decoder is made of the file (`load`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from neuroloop.errors import ModelError
from neuroloop.models.base import Decoder, make_decoder

KEY = "neuroloop"  # of the metadata's one entry


class About(BaseModel):
    """What a decoder's file says beside its tensors. values: the entries of the state dict that are no arrays."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    kind: str = Field(min_length=1, max_length=64)
    settings: dict[str, Any] = Field(default_factory=dict)
    targets: list[str] = Field(default_factory=list, description="of a continuous decoder, which has no classes")
    classes: list[str] = Field(default_factory=list, validate_default=True)
    features: int = Field(ge=1)
    channels: list[str] | None = Field(None, description="labels of the channels that the features came from")
    values: dict[str, Any] = Field(default_factory=dict)

    @field_validator("classes")
    @classmethod
    def _or_targets(cls, classes: list[str], info: ValidationInfo) -> list[str]:
        if info.data.get("targets"):
            if classes:
                raise ValueError("expected either classes or targets")
        elif len(classes) < 2:
            raise ValueError("expected at least 2 classes, or targets")
        return classes


@dataclass(frozen=True)
class DecoderFile:
    """A decoder at rest: what it is, and the arrays of its state dict by name."""

    about: About
    tensors: dict[str, NDArray[Any]] = field(default_factory=dict)


def of(decoder: Decoder, features: int, channels: Sequence[str] | None = None) -> DecoderFile:
    """What a decoder knows now."""
    state = decoder.state_dict()
    tensors = {key: value for key, value in state.items() if isinstance(value, np.ndarray)}
    values = {key: value for key, value in state.items() if key not in tensors}
    about = About(
        kind=values.pop("kind"),
        classes=values.pop("classes", []),
        targets=values.pop("targets", []),
        settings=values.pop("settings"),
        features=features,
        channels=None if channels is None else list(channels),
        values=values,
    )
    return DecoderFile(about, tensors)


def load(file: DecoderFile) -> Decoder:
    """The decoder. Raises ModelError for a kind or settings that are not known, or a state that does not fit them."""
    about = file.about
    decoder = make_decoder(about.kind, about.targets or about.classes, about.features, about.settings)
    decoder.load_state_dict(state_of(file))
    return decoder


def state_of(file: DecoderFile) -> dict[str, Any]:
    """The state dict that the file was made of."""
    about = file.about
    own: dict[str, Any] = {"kind": about.kind, "settings": about.settings}
    own |= {"targets": about.targets} if about.targets else {"classes": about.classes}
    return own | about.values | file.tensors


def write(file: DecoderFile) -> bytes:
    """A file that `read` reads; equal decoders give equal bytes."""
    tensors = {name: np.ascontiguousarray(value) for name, value in file.tensors.items()}
    about = file.about.model_dump(mode="json", exclude=set() if file.about.targets else {"targets"})
    return safetensors.numpy.save(tensors, {KEY: json.dumps(about, sort_keys=True)})


def read(data: bytes) -> DecoderFile:
    """Raises ModelError for anything that is no such file, or has values that are NaN or infinite.

    -inf passes: in a calibration's trials it marks a class that could not be the answer. `load` knows where it may be.
    """
    try:
        tensors = safetensors.numpy.load(data)
        header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"decoder weights: expected a safetensors file, got {len(data)} bytes: {error}") from error
    document = (header.get("__metadata__") or {}).get(KEY)
    if document is None:
        raise ModelError(f"decoder weights: the file's metadata has no entry {KEY!r}; send its JSON document beside it")
    try:
        about = About.model_validate_json(document)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"]) or KEY
        raise ModelError(f"decoder weights: metadata: {key}: {fault['msg']}; got {fault['input']!r}") from error
    for name, tensor in tensors.items():
        if np.issubdtype(tensor.dtype, np.inexact) and not (tensor < np.inf).all():
            raise ModelError(f"decoder weights: tensor {name!r} has values that are not finite")
    return DecoderFile(about, tensors)
