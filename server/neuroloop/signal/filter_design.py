"""Filters as second-order sections: Butterworth band-passes and notches, how they rest, and which precision they need.

`scipy.signal` designs the same filters (the tests compare), but takes a second of every session's start to import.

Rows of sections are (b0, b1, b2, 1, a1, a2), float64, as scipy's. Sources: S. Butterworth, Experimental Wireless 7,
1930; bilinear transformation with the edges prewarped, and the second-order notch, as in S. J. Orfanidis, Introduction
to Signal Processing, 1996, chapter 11.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from neuroloop.compiled import kernel

F64 = NDArray[np.float64]
Precision = Literal["single", "double"]

NOTCH_QUALITY = 30.0


def design_bandpass(band: tuple[float, float], order: int, nominal_srate: float, notch: Sequence[float] = ()) -> F64:
    """Second-order sections of the notches, in the order given, then of a Butterworth band-pass.

    band: low and high edge in hertz, at -3 dB. order: of the Butterworth prototype; that many sections.
    notch: frequencies in hertz, one section each, at a quality factor of 30.
    Returns (sections, 6) float64.
    """
    low, high = 2.0 * nominal_srate * np.tan(np.pi * np.array(band) / nominal_srate)
    pairs = sorted(_pole_pairs(order, low, high), key=lambda pair: abs(pair[0] * pair[1]))
    sections = np.empty((order, 6))
    for number, (section, (one, other)) in enumerate(zip(sections, pairs, strict=True)):
        # The numerator ((high - low) s)^order: s^2 goes to the lower half of the poles, so that those are high-passes.
        zeros = 2 if number < order // 2 else 1 if number < (order + 1) // 2 else 0
        gain = (2.0 * nominal_srate) ** zeros * (high - low) ** (2 - zeros)
        gain /= ((2.0 * nominal_srate - one) * (2.0 * nominal_srate - other)).real
        first, second = _bilinear(one, nominal_srate), _bilinear(other, nominal_srate)
        section[:3] = gain * np.array(((1.0, 2.0, 1.0), (1.0, 0.0, -1.0), (1.0, -2.0, 1.0))[zeros])
        section[3:] = 1.0, -(first + second).real, (first * second).real
    # What rings longest comes last, after the others have taken from it what they can.
    sections = sections[np.argsort(sections[:, 5], kind="stable")]
    return np.ascontiguousarray(np.concatenate([design_notch(notch, nominal_srate), sections]))


def design_notch(notch: Sequence[float], nominal_srate: float) -> F64:
    """Second-order sections of notches alone: (len(notch), 6) float64."""
    sections = np.empty((len(notch), 6))
    for section, frequency in zip(sections, notch, strict=True):
        cosine = np.cos(2.0 * np.pi * frequency / nominal_srate)
        gain = 1.0 / (1.0 + np.tan(np.pi * frequency / (NOTCH_QUALITY * nominal_srate)))
        section[:] = gain, -2.0 * gain * cosine, gain, 1.0, -2.0 * gain * cosine, 2.0 * gain - 1.0
    return sections


def settle_seconds(band: tuple[float, float]) -> float:
    """Seconds after which the band-pass has forgotten how it started: three periods of its lower edge."""
    return 3.0 / band[0]


def steady_state(sos: F64) -> F64:
    """(sections, 2): the state s0, s1 of every section (see `filters`) after a constant input of 1 for ever."""
    state, level = np.empty((len(sos), 2)), 1.0
    for rest, (b0, b1, b2, _, a1, a2) in zip(state, sos, strict=True):
        output = level * (b0 + b1 + b2) / (1.0 + a1 + a2)
        rest[1] = b2 * level - a2 * output
        rest[0] = b1 * level - a1 * output + rest[1]
        level = output
    return state


def sufficient_precision(sos: F64) -> Precision:
    """`single` where float32 state stays within 5e-5 of the output's standard deviation on white noise.

    A deterministic trial of up to 100 000 samples, half the tolerance that `filters` has; a few milliseconds.
    """
    slowest = max(float(np.abs(np.roots(section[3:])).max(initial=0.0)) for section in sos)
    if slowest >= 1.0:
        return "double"
    memory = 10.0 / max(1.0 - slowest, 1e-4)
    noise = np.random.default_rng(0).standard_normal(int(min(max(memory, 8192), 100_000))).astype(np.float32)
    exact, rounded = noise.astype(np.float64), noise.copy()
    _filter_one_channel(exact, sos)
    _filter_one_channel(rounded, sos.astype(np.float32))
    return "single" if np.abs(rounded - exact).max() <= 5e-5 * exact.std() else "double"


def _pole_pairs(order: int, low: float, high: float) -> Iterator[tuple[complex, complex]]:
    """Poles of the analog band-pass between two angular frequencies, in pairs whose sum and product are real."""
    for number in range((order + 1) // 2):
        prototype = np.exp(0.5j * np.pi * (2 * number + order + 1) / order)
        middle = 0.5 * (high - low) * prototype
        spread = np.sqrt(middle**2 - low * high + 0j)
        if 2 * number + 1 == order:  # the prototype's real pole becomes one pair
            yield complex(middle + spread), complex(middle - spread)
        else:
            for pole in (middle + spread, middle - spread):
                yield complex(pole), complex(pole.conjugate())


def _bilinear(pole: complex, srate: float) -> complex:
    return (2.0 * srate + pole) / (2.0 * srate - pole)


@kernel
def _filter_one_channel(samples: Any, sos: Any) -> None:
    """In place, in the type of the samples and sections."""
    zero = samples.dtype.type(0)
    for section in range(sos.shape[0]):
        b0, b1, b2 = sos[section, 0], sos[section, 1], sos[section, 2]
        a1, a2 = sos[section, 4], sos[section, 5]
        s0, s1 = zero, zero
        for index in range(samples.shape[0]):
            sample = samples[index]
            output = b0 * sample + s0
            s0 = b1 * sample - a1 * output + s1
            s1 = b2 * sample - a2 * output
            samples[index] = output
