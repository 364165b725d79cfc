"""From bins to labelled samples, and from samples to those held out: in time, never shuffled.

A *trial* is a run of bins with one label (and one trial number, where those are known). A *window* is a part of a trial
without a hole in it; its mean is one sample. Neighbouring samples of neural data are alike, so a sample that is held
out must not have come from the trial that a sample of the training came from, nor from in between: the last trials are
held out, whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from neuroloop.errors import ModelError

F64 = NDArray[np.float64]
Indices = NDArray[np.intp]
Bins = NDArray[np.bool_]

HOLE = 1.5  # a bin later than so many bins after the one before follows a hole


@dataclass(frozen=True, eq=False, slots=True)
class Samples:
    """rates: (samples, features), means of windows. labels, trials: (samples,); bins: how many each is the mean of."""

    rates: F64
    labels: Indices
    trials: Indices
    bins: Indices

    def of(self, chosen: Bins) -> Samples:
        return Samples(self.rates[chosen], self.labels[chosen], self.trials[chosen], self.bins[chosen])


def bin_ms(times: NDArray[Any] | None) -> float | None:
    """How long a bin lasts, to the microsecond; None where nothing says when they were. times: seconds, in order."""
    if times is None or len(times) < 2:
        return None
    return round(1000 * float(np.median(np.diff(np.asarray(times, np.float64)))), 3)


def holes(times: NDArray[Any] | None, usable: NDArray[Any] | None, bins: int) -> Bins:
    """Whether a bin does not follow the one before, (bins,).

    times: seconds, in order; None for bins without a hole. usable: which bins can be trusted; all by default.
    Raises ModelError for times that go back.
    """
    breaks = np.zeros(bins, np.bool_)
    if times is not None and bins > 1:
        steps = np.diff(np.asarray(times, np.float64))
        if not np.isfinite(steps).all() or (steps <= 0).any():
            at = int(np.flatnonzero(~(steps > 0))[0])
            raise ModelError(
                f"times: expected seconds that grow, got {times[at + 1]} after {times[at]} at bin {at + 1}"
            )
        breaks[1:] = steps > HOLE * np.median(steps)
    if usable is not None:
        bad = ~np.asarray(usable, np.bool_)
        breaks |= bad
        breaks[1:] |= bad[:-1]
    return breaks


def cut(
    rates: NDArray[Any],
    labels: Indices,
    *,
    breaks: Bins,
    usable: NDArray[Any] | None = None,
    trial_numbers: NDArray[Any] | None = None,
    window: int | None = None,
) -> Samples:
    """The labelled samples in bins.

    rates: (bins, features). labels: (bins,), -1 for none. breaks: as `holes` finds them. window: bins whose mean is a
    sample: a part of n bins gives n // window of them, a shorter one gives one; None: one for each part.
    """
    begins = breaks.copy()
    begins[:1] = True
    begins |= _begins_trial(labels, trial_numbers)
    trial_of = trials_of(labels, trial_numbers)
    taught = labels >= 0 if usable is None else (labels >= 0) & np.asarray(usable, np.bool_)
    means, chosen, lengths = [], [], []
    edges = [*np.flatnonzero(begins).tolist(), len(labels)]
    for first, last in pairwise(edges):
        if not taught[first]:
            continue
        length = last - first if window is None else min(window, last - first)
        for start in range(first, last - length + 1, length):
            means.append(rates[start : start + length].mean(axis=0, dtype=np.float64))
            chosen.append(start)
            lengths.append(length)
    where = np.array(chosen, dtype=np.intp)
    return Samples(
        np.array(means, dtype=np.float64).reshape(len(means), rates.shape[1]),
        labels[where],
        trial_of[where],
        np.array(lengths, dtype=np.intp),
    )


def trials_of(labels: Indices, trial_numbers: NDArray[Any] | None) -> Indices:
    """The trial of each bin, (bins,), as a number; what is between trials has numbers too."""
    if trial_numbers is not None:
        return np.unique(np.where(labels < 0, -1, trial_numbers), return_inverse=True)[1]
    return np.cumsum(_begins_trial(labels, None)).astype(np.intp)


def _begins_trial(labels: Indices, trial_numbers: NDArray[Any] | None) -> Bins:
    """Whether a bin belongs to another trial than the one before, (bins,)."""
    begins = np.zeros(len(labels), np.bool_)
    begins[1:] = labels[1:] != labels[:-1]
    if trial_numbers is not None:
        begins[1:] |= trial_numbers[1:] != trial_numbers[:-1]
    return begins


def bins_since(breaks: Bins) -> Indices:
    """How many bins each follows on without a hole between, (bins,). breaks: as `holes` finds them."""
    numbers = np.arange(len(breaks))
    return numbers - np.maximum.accumulate(np.where(breaks, numbers, 0))


def moving_mean(rates: NDArray[Any], breaks: Bins, window: int) -> NDArray[np.float32]:
    """The rate vectors of a session: the mean over the last `window` bins, over fewer after a hole. (bins, features).

    Values that are not finite are left out; where all are, the mean is NaN.
    """
    values = np.asarray(rates, np.float32)
    if window == 1:
        return values
    known = np.isfinite(values)
    totals = np.zeros((len(values) + 1, values.shape[1]))
    counts = np.zeros(totals.shape, np.int64)
    np.cumsum(np.where(known, values, 0.0), axis=0, out=totals[1:])
    np.cumsum(known, axis=0, out=counts[1:])
    ends = np.arange(1, len(values) + 1)
    starts = ends - 1 - np.minimum(bins_since(breaks), window - 1)
    count = counts[ends] - counts[starts]
    mean: F64 = np.divide(totals[ends] - totals[starts], count, out=np.full(count.shape, np.nan), where=count > 0)
    return mean.astype(np.float32)


def hold_out(trials: Indices, share: float) -> Bins:
    """Which samples are held out: those of the last `share` of the trials, at least one of them; none for share 0.

    trials: (samples,), the trial that each came from. Raises ModelError where nothing would be left to learn from.
    """
    held_out = np.zeros(len(trials), np.bool_)
    if share == 0:
        return held_out
    in_order = list(dict.fromkeys(trials.tolist()))
    count = max(1, round(share * len(in_order)))
    if count >= len(in_order):
        raise ModelError(
            f"held_out: {share:g} of {len(in_order)} trials leaves none to learn from; give more data, or hold out less"
        )
    return np.isin(trials, in_order[-count:])


def whole(breaks: Bins, lead: int) -> Bins:
    """The bins that follow on at least `lead` bins without a hole between, (bins,)."""
    return np.asarray(bins_since(breaks) >= lead)


def last_share(bins: int, share: float) -> Bins:
    """The last share of so many bins, as one block. Raises ModelError where it leaves none to learn from."""
    count = round(share * bins)
    if count >= bins or (share > 0 and count == 0):
        raise ModelError(f"held_out: {share:g} of {bins} bins is {count}; give more data, or another share")
    held_out = np.zeros(bins, np.bool_)
    held_out[bins - count :] = True
    return held_out
