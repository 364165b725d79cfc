"""Whether this GPU, with this driver and this PyTorch, computes what the CPU does: asked each time before it is used.

Half a second of noise with a common mode and spikes goes through both front ends, thresholds known after 50 ms. What
comes of it must agree: spikes but for those within rounding of the threshold, sigma and the covariance within 1e-3.
"""

from __future__ import annotations

import numpy as np

from neuroloop.config import BroadbandSettings, SessionSettings, bin_samples, block_samples
from neuroloop.front_ends import Broadband, FrontEnd
from neuroloop.gpu.front_end import TorchBroadband

SECONDS, CALIBRATION_S = 0.5, 0.05
TOLERANCE = 1e-3


def disagreement(
    session: SessionSettings,
    settings: BroadbandSettings,
    nominal_srate: float,
    channels: tuple[str, ...],
    device: str = "cuda",
) -> str | None:
    """What differs between the device and the CPU, or went wrong there; None where they agree."""
    short = settings.model_copy(update={"calibration_s": CALIBRATION_S})
    try:
        theirs = TorchBroadband(session, short, nominal_srate, channels, device)
        return compare(theirs, Broadband(session, short, nominal_srate, channels), session, nominal_srate)
    except RuntimeError as error:  # what PyTorch raises, out of memory included
        return str(error).splitlines()[0]


def compare(theirs: TorchBroadband, ours: Broadband, session: SessionSettings, nominal_srate: float) -> str | None:
    """Run both on the same blocks."""
    n, per_bin, count = block_samples(session, nominal_srate), bin_samples(session, nominal_srate), len(ours.features)
    random = np.random.default_rng(0)
    front_ends: tuple[FrontEnd, FrontEnd] = (theirs, ours)
    spikes = [np.zeros(count), np.zeros(count)]
    for number in range(1, 1 + round(SECONDS * nominal_srate / per_bin) * (per_bin // n)):
        block = 10 * (random.standard_normal((n, count)) + 2 * random.standard_normal((n, 1)))
        block[random.random((n, count)) < 1e-3] -= 200
        for front_end, total in zip(front_ends, spikes, strict=True):
            front_end.step(block.astype(np.float32), True)
            front_end.accumulate()
            if number % (per_bin // n) == 0:
                total += front_end.finish_bin()
    difference = float(np.abs(spikes[0] - spikes[1]).sum() / max(spikes[1].sum(), 1.0))
    if not difference <= TOLERANCE:
        return f"spikes differ by {difference:.2%}"
    if not np.allclose(theirs.sigma, ours.sigma, rtol=TOLERANCE):
        return f"sigma differs by up to {np.abs(theirs.sigma / ours.sigma - 1).max():.2%}"
    if theirs.rereference is not None and ours.rereference is not None and ours.rereference.learns:
        pairs = zip(
            theirs.rereference.covariance.snapshot().scatter,
            ours.rereference.covariance.snapshot().scatter,
            strict=True,
        )
        if not all(np.allclose(a, b, rtol=TOLERANCE, atol=TOLERANCE * np.abs(b).max()) for a, b in pairs):
            return "the covariance differs"
    return None
