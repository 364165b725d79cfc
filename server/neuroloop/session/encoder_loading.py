"""From an encoder's file to an encoder that fits a session and is warm. Beside the loop, in a thread of its own."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from neuroloop.errors import ModelError
from neuroloop.models.lnp import LNP
from neuroloop.models.lnp_parameters import LNPSettings
from neuroloop.session.running import Fault, ModelVersion, Role, faults_of
from neuroloop.session.running_encoder import EncoderNeeds, RunningEncoder


@dataclass(frozen=True)
class EncoderRequest:
    """What is to be loaded and where it is to run. alias: the one that is followed.

    name: of the encoder in the session; None for the active one's, or the model's.
    """

    model: ModelVersion
    weights: bytes
    role: Role
    name: str | None
    alias: str | None


def build(request: EncoderRequest, needs: EncoderNeeds, name: str, score_half_life_s: float) -> RunningEncoder:
    """The encoder, asked once. Raises ModelError where the file is damaged, does not fit, or fails."""
    model = request.model
    said = f"model {model.name!r} version {model.version}"
    found = f"sha256:{hashlib.sha256(request.weights).hexdigest()}"
    if found != model.digest:
        raise ModelError(f"{said}: expected weights with digest {model.digest}, got {found}; upload them again")
    try:
        with faults_of("loading"):
            bank = LNP.load(request.weights)
    except Fault as fault:
        raise ModelError(f"{said}: expected an encoder (kind 'lnp'); {fault}") from fault
    running = RunningEncoder(name, request.role, bank, model, request.alias, score_half_life_s)
    running.attach(needs)
    try:
        running.predict(np.zeros(needs.pixels, np.float32))
        running.reset()
    except Fault as fault:
        raise ModelError(f"{said}: {fault}") from fault
    return running


def compile_encoders() -> None:
    """Compile what any encoder needs, so that nothing is compiled, or read from a cache, beside a running loop."""
    bank = LNP(1, (1, 1, 1), LNPSettings(lags=2))
    bank.learn(np.zeros((1, 1, 1), np.float32), np.zeros(1))
