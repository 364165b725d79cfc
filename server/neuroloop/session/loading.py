"""From a decoder's file to a decoder that fits a session and is warm. Beside the loop, in a thread of its own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from neuroloop.errors import ModelError
from neuroloop.models import decoder_files
from neuroloop.models.lfr_settings import LFRSettings
from neuroloop.session.running import Fault, Loaded, ModelVersion, Role, RunningDecoder, faults_of


@dataclass(frozen=True)
class LoadRequest:
    """What is to be loaded, where it is to run, and what it is to know of what was before.

    name: of the decoder in the session; None for the active one's, or for a shadow the model's.
    """

    model: ModelVersion
    weights: bytes
    role: Role
    name: str | None
    how: Loaded


SAME_BIN = 0.01  # bins whose lengths differ by less, relative


@dataclass(frozen=True)
class Needs:
    """What a decoder must fit to run in a session on its present stream.

    window: bins whose mean is a rate vector. bin_s: None where it is not known.
    """

    classes: tuple[str, ...]
    channels: tuple[str, ...]
    features: int
    history_bins: int
    targets: tuple[str, ...] = ()
    window: int = 1
    bin_s: float | None = None


def build(request: LoadRequest, needs: Needs, name: str) -> RunningDecoder:
    """The decoder, asked once. Raises ModelError where the file is damaged, does not fit, or fails."""
    model = request.model
    said = f"model {model.name!r} version {model.version}"
    found = f"sha256:{hashlib.sha256(request.weights).hexdigest()}"
    if found != model.digest:
        raise ModelError(f"{said}: expected weights with digest {model.digest}, got {found}; upload them again")
    file = decoder_files.read(request.weights)
    check_fit(said, file.about, needs)
    silence = np.zeros(needs.features, np.float32)
    try:
        with faults_of("loading"):
            decoder = decoder_files.load(file)
        running = RunningDecoder(name, file.about.kind, request.role, decoder, needs.history_bins, model)
        running.replay([silence, silence + 1])
        running.reset()
    except Fault as fault:
        raise ModelError(f"{said}: {fault}") from fault
    running.about, running.loaded = file.about, request.how
    return running


def check_fit(said: str, about: decoder_files.About, needs: Needs) -> None:
    """Raise ModelError for a decoder of other classes or targets, features or channels, or other means of rates."""
    if about.targets:
        if tuple(about.targets) != needs.targets:
            wanted = ", ".join(needs.targets) or "none"
            raise ModelError(f"{said}: expected the targets {wanted}; got {', '.join(about.targets)}")
    elif tuple(about.classes) != needs.classes:
        raise ModelError(f"{said}: expected the classes {', '.join(needs.classes)}; got {', '.join(about.classes)}")
    if about.features != needs.features:
        raise ModelError(
            f"{said}: expected {needs.features} features ({len(needs.channels)} channels), got {about.features}"
        )
    _check_window(said, about, needs)
    if about.channels is None or tuple(about.channels) == needs.channels:
        return
    if len(about.channels) != len(needs.channels):
        raise ModelError(f"{said}: expected {len(needs.channels)} channels, got {len(about.channels)}")
    pairs = zip(needs.channels, about.channels, strict=True)
    number, own, other = next((n, a, b) for n, (a, b) in enumerate(pairs, 1) if a != b)
    raise ModelError(f"{said}: expected the session's channels, in order; number {number} is {own!r}, not {other!r}")


def _check_window(said: str, about: decoder_files.About, needs: Needs) -> None:
    """Raise ModelError where a backbone would see rate vectors that are means of more bins, or fewer, than it learned.

    Others take the mean over a window of any length, with more noise or less; the course of such means is another one.
    """
    if about.kind != "lfr":
        return
    window = about.settings.get("window", LFRSettings.model_fields["window"].default)
    if window != needs.window:
        raise ModelError(
            f"{said}: expected rate vectors that are means of {needs.window} bins, as the session's `window` has them; "
            f"this lfr decoder was fitted to means of {window}; fit it with window {needs.window}, "
            f"or load it in a session with window {window}"
        )
    bin_ms = about.settings.get("bin_ms")
    if bin_ms is not None and needs.bin_s is not None and abs(bin_ms / 1000 - needs.bin_s) > SAME_BIN * needs.bin_s:
        raise ModelError(f"{said}: expected bins of {1000 * needs.bin_s:g} ms, as the session's; got {bin_ms:g} ms")
