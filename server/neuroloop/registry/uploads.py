"""Weights that someone sends, checked without making the model: what they are, and that they can be it.

A version's file says itself what it is. Where the sender's does not (bare tensors, or rereferencing weights as CSV or
NPZ), it is written anew from the document sent beside it. Decoders of kinds from other packages are checked for form
and finite values only; the rest is decided when a session loads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import entry_points
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from neuroloop.errors import ModelError
from neuroloop.models import decoder_files, lnp_files
from neuroloop.models.base import GROUP, check_settings
from neuroloop.models.continuous_settings import CONTINUOUS
from neuroloop.models.continuous_state import check_continuous
from neuroloop.models.fitted_settings import FITTED
from neuroloop.models.fitted_state import check_fitted
from neuroloop.models.gsnn_state import check_gsnn
from neuroloop.models.lfr_settings import LFRSettings
from neuroloop.models.lfr_state import check_state as check_lfr
from neuroloop.models.lnp_parameters import cell_names, check_frame_size, make_parameters
from neuroloop.models.online_settings import MaxRateSettings, PoissonSettings
from neuroloop.models.state_checks import check_class_rates, check_trials
from neuroloop.registry.blobs import digest_of
from neuroloop.registry.documents import Content, Document
from neuroloop.signal.weight_files import read_weights, write_weights
from neuroloop.signal.weights import weights_from_array

DOCUMENT_LIMIT = 1024 * 1024  # characters
NAME_LIMIT = 256
ON_CLASS_RATES: Mapping[str, type[BaseModel]] = {"maxrate": MaxRateSettings, "poisson": PoissonSettings}
KINDS_IN_FILES = {"lnp": "lnp", "rereference": "lrr"}  # `kind` in the metadata -> kind of model


@dataclass(frozen=True)
class Upload:
    """A file that says what it is, and what that is."""

    weights: bytes
    content: Content


def check(weights: bytes, document: Document) -> Upload:
    """Raises ModelError, naming what is wrong, for anything that is no model, or not the one that the document says."""
    came = digest_of(weights)
    if document.digest is not None and document.digest != came:
        raise ModelError(f"weights: expected {document.digest}, got {came} of {len(weights)} bytes; send them again")
    metadata = _metadata(weights)
    kind = _kind(metadata, document)
    if kind == "lnp":
        upload = _encoder(weights)
    elif kind == "lrr":
        upload = _rereference(weights, document)
    else:
        upload = _decoder(weights, document, bare=decoder_files.KEY not in metadata)
    _agree(upload.content, document)
    for what in ("classes", "targets", "channels", "cells"):
        _check_names(what, getattr(upload.content, what) or [])
    try:
        size = len(json.dumps(upload.content.model_dump(), allow_nan=False))
    except ValueError as error:
        raise ModelError(f"settings: expected finite numbers: {error}") from error
    if size > DOCUMENT_LIMIT:
        raise ModelError(f"metadata: expected at most {DOCUMENT_LIMIT} characters as JSON, got {size}")
    return upload


def _metadata(weights: bytes) -> dict[str, Any]:
    """Of a safetensors file; empty for anything else. Whether it is whole is seen where it is read."""
    if weights[8:9] != b"{":
        return {}
    try:
        header = from_json(weights[8 : 8 + int.from_bytes(weights[:8], "little")])
    except ValueError:
        return {}
    metadata = header.get("__metadata__")
    return metadata if isinstance(metadata, dict) else {}


def _kind(metadata: dict[str, Any], document: Document) -> str:
    if decoder_files.KEY in metadata:
        return "decoder"
    found = KINDS_IN_FILES.get(str(metadata.get("kind")), document.kind)
    if found is None:
        raise ModelError(
            "weights: expected a safetensors file that says its kind in its metadata, or `kind` in a document beside it"
        )
    return found


def _decoder(weights: bytes, document: Document, bare: bool) -> Upload:
    if bare:
        weights = _described(weights, document)
    file = decoder_files.read(weights)
    about = file.about
    known = {point.name for point in entry_points(group=GROUP)}
    if about.kind not in known:
        raise ModelError(f"kind: expected one of {', '.join(sorted(known | {'lnp', 'lrr'}))}, got {about.kind!r}")
    _check_names("classes", about.classes)
    _check_names("targets", about.targets)
    for name, tensor in file.tensors.items():
        allowed = name == "trial_logits" and about.kind in ON_CLASS_RATES
        if np.issubdtype(tensor.dtype, np.inexact) and not allowed and not np.isfinite(tensor).all():
            raise ModelError(f"decoder weights: tensor {name!r} has values that are not finite")
    if about.kind in ON_CLASS_RATES:
        check_settings(about.kind, ON_CLASS_RATES[about.kind], about.settings)
        state = about.values | file.tensors
        check_class_rates(state, len(about.classes), about.features)
        check_trials(state, len(about.classes))
    elif about.kind == "lfr":
        settings = check_settings("lfr", LFRSettings, about.settings)
        assert isinstance(settings, LFRSettings)
        check_lfr(about.values | file.tensors, settings, len(about.classes), about.features)
    elif about.kind == "gsnn":
        check_gsnn(about.settings, about.features, len(about.classes), file.tensors)
    elif about.kind in FITTED:
        check_fitted(about.kind, about.settings, about.features, len(about.classes), file.tensors)
    elif about.kind in CONTINUOUS:
        check_continuous(about.kind, about.settings, about.features, len(about.targets), file.tensors)
    content = Content(
        kind=about.kind,
        settings=about.settings,
        classes=about.classes or None,
        targets=about.targets or None,
        features=about.features,
        channels=about.channels,
    )
    return Upload(weights, content)


def _described(weights: bytes, document: Document) -> bytes:
    """Bare tensors as a decoder's file, by what the document says."""
    try:
        tensors = safetensors.numpy.load(weights)
    except (safetensors.SafetensorError, ValueError, TypeError, KeyError) as error:
        raise ModelError(f"decoder weights: expected a safetensors file, got {len(weights)} bytes: {error}") from error
    said = document.model_dump(include=set(decoder_files.About.model_fields), exclude_none=True)
    try:
        about = decoder_files.About.model_validate(said)
    except ValidationError as error:
        faults = "; ".join(f"{'.'.join(map(str, fault['loc']))}: {fault['msg']}" for fault in error.errors())
        raise ModelError(f"document of weights without metadata of their own: {faults}") from error
    return decoder_files.write(decoder_files.DecoderFile(about, tensors))


def _encoder(weights: bytes) -> Upload:
    cells, frame, settings, arrays = lnp_files.read(weights)
    names = cell_names(cells)
    make_parameters(settings, len(names), check_frame_size(frame), arrays)
    return Upload(weights, Content(kind="lnp", settings=settings.model_dump(mode="json"), cells=list(names)))


def _rereference(weights: bytes, document: Document) -> Upload:
    matrix, labels = read_weights(weights)
    channels = labels or document.channels
    if channels is None:
        raise ModelError("channels: expected the channels' labels in the file or in the document; W names none")
    _check_names("channels", channels)
    matrix = weights_from_array(matrix, channels).matrix
    if labels is None or weights[8:9] != b"{":
        weights = write_weights("safetensors", matrix, channels, 0)
    return Upload(weights, Content(kind="lrr", settings=document.settings or {}, channels=list(channels)))


def _agree(content: Content, document: Document) -> None:
    """What the document repeats must be what the file says."""
    for name in Content.model_fields:
        said, found = getattr(document, name, None), getattr(content, name)
        if said is not None and said != found:
            raise ModelError(f"{name}: the document says {_short(said)}, the file {_short(found)}; send one of them")


def _check_names(what: str, names: Sequence[str]) -> None:
    for name in names:
        if not name or not name.isprintable() or len(name) > NAME_LIMIT:
            raise ModelError(f"{what}: expected printable names of 1 to {NAME_LIMIT} characters, got {_short(name)}")
    if what != "channels" and len(set(names)) < len(names):
        raise ModelError(f"{what}: expected every name once, got {_short(names)}")


def _short(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 200 else text[:200] + "..."
