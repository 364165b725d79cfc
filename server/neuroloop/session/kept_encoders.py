"""Encoders as a checkpoint keeps them: their files, with what they have learned, and where in the session they were."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from neuroloop.models.lnp import LNP
from neuroloop.session.encoding import View
from neuroloop.session.running import ModelVersion
from neuroloop.session.running_encoder import RunningEncoder

Kept = dict[RunningEncoder, tuple[int, dict[str, Any]]]  # with how many bins each had learned from


def kept(view: View, before: Kept) -> Kept:
    """Of everyone who is there, in their thread. before: the last time; the files of what learned nothing stay."""
    placed = [("active", view.active)] if view.active is not None else []
    placed += [("past", past) for past in view.past] + [("shadow", shadow) for shadow in view.shadows]
    return {running: (running.learned, _kept(place, running, before)) for place, running in placed}


def _kept(place: str, running: RunningEncoder, before: Kept) -> dict[str, Any]:
    learned, told = before.get(running, (-1, {}))
    return {
        "place": place,
        "name": running.name,
        "role": running.role,
        "model": asdict(running.model),
        "alias": running.alias,
        "was_shadow": running.was_shadow,
        "learned": running.learned,
        "file": told["file"] if learned == running.learned else running.bank.save(),
    }


def given_back(told: dict[str, Any], score_half_life_s: float) -> RunningEncoder:
    """Raises ModelError."""
    bank, model = LNP.load(told["file"]), ModelVersion(**told["model"])
    running = RunningEncoder(told["name"], told["role"], bank, model, told["alias"], score_half_life_s)
    running.was_shadow, running.learned = told["was_shadow"], told["learned"]
    return running
