"""What a fit made, put to use in a session: a decoder or encoder at the next bin, rereferencing weights at a block."""

from __future__ import annotations

from typing import Any

import numpy as np
from starlette.concurrency import run_in_threadpool

from neuroloop.api.live import LiveSession, LiveSessions
from neuroloop.api.loading import LOAD_TIMEOUT_S, DecoderLoad, EncoderLoad, load_version
from neuroloop.errors import ConfigError
from neuroloop.registry.registry import Registry
from neuroloop.signal.weight_files import read_weights
from neuroloop.training.job import Job
from neuroloop.training.jobs import Activate
from neuroloop.training.request import Activation


def check(kind: str, activate: Activation) -> None:
    """Whether a session can use what a fit of this kind makes. Raises ConfigError."""
    if activate == "shadow" and kind == "lrr":
        raise ConfigError("activate: rereferencing weights have no shadow; expected none or active for lrr")


def activate_in(sessions: LiveSessions, registry: Registry) -> Activate:
    """A function for `FitJobs`: has the session of a job use the version that the job made, and says from when on."""

    async def activate(job: Job) -> str:
        assert job.session is not None
        assert job.version is not None
        session = sessions[job.session]
        if job.request.kind == "lrr":
            weights = await run_in_threadpool(registry.weights, job.request.name, job.version)
            receipt = await _load_rereference(session, weights)
        else:
            fitted = {"model": job.request.name, "version": job.version, "role": job.activate}
            if job.request.kind == "lnp":
                load: EncoderLoad | DecoderLoad = EncoderLoad.model_validate(fitted)
            else:  # cold: what was fitted is used as it was measured
                load = DecoderLoad.model_validate(fitted | {"state": "cold"})
            receipt = await load_version(session, registry, load)
        return f"{job.activate} in session {session.name!r} from bin {receipt['bin']} on"

    return activate


async def _load_rereference(session: LiveSession, weights: bytes) -> dict[str, Any]:
    matrix, channels = await run_in_threadpool(read_weights, weights)
    receipt: dict[str, Any] = await session.process.command(
        "rereference_load",
        timeout=LOAD_TIMEOUT_S,
        weights=np.ascontiguousarray(matrix).tobytes(),
        shape=list(matrix.shape),
        channels=channels,
    )
    return receipt
