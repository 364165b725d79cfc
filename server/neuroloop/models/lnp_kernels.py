"""The compiled steps of a streaming LNP bank: one frame in, one rate per cell out; one count per cell in, one learned.

Cells are innermost everywhere, padded to whole vectors, so that every loop is vector instructions without reordering a
sum: the numbers do not depend on the machine's vector width. Sums run over eight rows of kernels at a time, which
loads and stores the running sum once for eight multiply-adds.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from neuroloop.compiled import kernel
from neuroloop.models.nonlinearities import LARGEST

LANES = 8  # cells are padded to a multiple: whole vectors of 256 bits, without scalar rests

# Rows of `cell`, (rows, cells): what there is once per cell.
GAIN, BIAS, SOFTPLUS_A, SOFTPLUS_B, SOFTPLUS_W = 0, 1, 2, 3, 4
STIMULUS, DRIVE, RATE = 5, 6, 7  # what the kernels make of the stimulus; the drive; the rate
STEP, CELL_ROWS = 8, 9  # scratch of `learn`


@kernel
def _take_in(frame: Any, top: int, left: int, height: int, width: int, mean: Any, inverse: Any, held: Any) -> int:
    """Standardise the box of a frame into held, (pixels + 1,); missing values keep what was there, and are counted."""
    missing, pixel = 0, 0
    largest = np.float32(np.inf)
    for c in range(frame.shape[0]):
        for y in range(top, top + height):
            for x in range(left, left + width):
                value = (frame[c, y, x] - mean[c]) * inverse[c]
                present = abs(value) < largest
                held[pixel] = value if present else held[pixel]
                missing += 0 if present else 1
                pixel += 1
    return missing


@kernel
def _weigh(values: Any, rows: Any, out: Any) -> None:
    """out = values @ rows. values: (rows,). rows: (rows, n). out: (n,)."""
    count, n = rows.shape
    for j in range(n):
        out[j] = np.float32(0)
    for first in range(0, count - count % 8, 8):
        v0, v1, v2, v3 = values[first], values[first + 1], values[first + 2], values[first + 3]
        v4, v5, v6, v7 = values[first + 4], values[first + 5], values[first + 6], values[first + 7]
        for j in range(n):
            low = (v0 * rows[first, j] + v1 * rows[first + 1, j]) + (v2 * rows[first + 2, j] + v3 * rows[first + 3, j])
            high = (v4 * rows[first + 4, j] + v5 * rows[first + 5, j]) + (
                v6 * rows[first + 6, j] + v7 * rows[first + 7, j]
            )
            out[j] += low + high
    for row in range(count - count % 8, count):
        v0 = values[row]
        for j in range(n):
            out[j] += v0 * rows[row, j]


@kernel
def _weigh_own(held: Any, index: Any, space: Any, gathered: Any, out: Any) -> None:
    """As `_weigh` for cells with pixels of their own: index (n, cells), space (n, rank, cells), out (rank, cells)."""
    rank, cells = out.shape
    for r in range(rank):
        for n in range(cells):
            out[r, n] = np.float32(0)
    for q in range(index.shape[0]):
        for n in range(cells):
            gathered[n] = held[index[q, n]]
        for r in range(rank):
            for n in range(cells):
                out[r, n] += gathered[n] * space[q, r, n]


@kernel
def _recall(time: Any, ring: Any, newest: int, total: Any, drive: Any) -> None:
    """The temporal dot products. time, ring: (lags, rank, cells); oldest is the row after the newest of the ring."""
    lags, rank, cells = ring.shape
    for r in range(rank):
        for n in range(cells):
            total[r, n] = np.float32(0)
    row = newest + 1 if newest + 1 < lags else 0
    for lag in range(lags):
        for r in range(rank):
            for n in range(cells):
                total[r, n] += time[lag, r, n] * ring[row, r, n]
        row = row + 1 if row + 1 < lags else 0
    for n in range(cells):
        drive[n] = total[0, n]
    for r in range(1, rank):
        for n in range(cells):
            drive[n] += total[r, n]


@kernel
def _spike_drive(history: Any, coupling: Any, spikes: Any, latest: int, z: Any) -> None:
    """Add what earlier spikes do. history: (lags, cells); coupling: (lags, from, to); spikes: (lags, cells), a ring."""
    depth = spikes.shape[0]
    for lag in range(history.shape[0]):
        row = (latest - lag + depth) % depth
        for n in range(len(z)):
            z[n] += history[lag, n] * spikes[row, n]
    for lag in range(coupling.shape[0]):
        row = (latest - lag + depth) % depth
        for j in range(coupling.shape[1]):
            count = spikes[row, j]
            if count != np.float32(0):
                for n in range(len(z)):
                    z[n] += count * coupling[lag, j, n]


@kernel
def _respond(exponential: bool, drive: Any, a: Any, b: Any, w: Any, rates: Any) -> None:
    """Rates of a bank. All: (cells,) float32; a = w = 1 and b = 0 for the plain softplus."""
    zero, largest = np.float32(0), np.float32(LARGEST)
    if exponential:
        for n in range(len(drive)):
            rates[n] = np.exp(min(drive[n], largest))
        return
    for n in range(len(drive)):
        v = a[n] * drive[n] + b[n]
        tail = np.log1p(np.exp(-abs(v)))
        rates[n] = w[n] * (max(v, zero) + tail)


@kernel
def _slopes(exponential: bool, drive: Any, a: Any, b: Any, w: Any, out: Any) -> None:
    """Derivatives of the rates with respect to the drives. All: (cells,) float32."""
    one, largest = np.float32(1), np.float32(LARGEST)
    for n in range(len(drive)):
        if exponential:
            out[n] = np.exp(min(drive[n], largest))
        else:
            out[n] = w[n] * a[n] / (one + np.exp(-(a[n] * drive[n] + b[n])))


@kernel
def step(
    frame: Any, box: Any, mean: Any, inverse: Any, held: Any,
    index: Any, space: Any, gathered: Any, ring: Any, newest: int, time: Any, total: Any,
    history: Any, coupling: Any, spikes: Any, latest: int,
    exponential: bool, cell: Any,
) -> int:  # fmt: skip
    """Take in a frame; rates into cell[RATE]. Returns how many of its values were missing.

    frame: (channels, height, width). box: (4,) top, left, height, width. space: (pixels, rank, cells).
    index: (pixels, cells), or (0, 0) where all cells read the box itself. ring: (lags, rank, cells), its row
    `newest` is written. cell: (rows, cells), see the constants above.
    """
    missing: int = _take_in(frame, box[0], box[1], box[2], box[3], mean, inverse, held)
    rank, cells = total.shape
    if index.shape[0] == 0:
        _weigh(held, space.reshape(space.shape[0], rank * cells), ring[newest].reshape(rank * cells))
    else:
        _weigh_own(held, index, space, gathered, ring[newest])
    _recall(time, ring, newest, total, cell[STIMULUS])
    drive, gain, bias, stimulus = cell[DRIVE], cell[GAIN], cell[BIAS], cell[STIMULUS]
    for n in range(cells):
        drive[n] = gain[n] * stimulus[n] + bias[n]
    if spikes.shape[0] > 0:
        _spike_drive(history, coupling, spikes, latest, drive)
    _respond(exponential, drive, cell[SOFTPLUS_A], cell[SOFTPLUS_B], cell[SOFTPLUS_W], cell[RATE])
    return missing


@kernel
def scale_time(raw: Any, normalize: bool, norm: Any, time: Any) -> None:
    """Temporal kernels as they are used. raw, time: (lags, rank, cells). norm: (cells,), 1 for kernels of zeros."""
    lags, rank, cells = raw.shape
    for n in range(cells):
        norm[n] = np.float32(0)
    if normalize:
        for lag in range(lags):
            for r in range(rank):
                for n in range(cells):
                    norm[n] += raw[lag, r, n] * raw[lag, r, n]
    for n in range(cells):
        norm[n] = np.sqrt(norm[n]) if norm[n] > 0 else np.float32(1)
    for lag in range(lags):
        for r in range(rank):
            for n in range(cells):
                time[lag, r, n] = raw[lag, r, n] / norm[n]


@kernel
def _finite(change: Any) -> Any:
    """No change where it would be infinite or NaN: one frame beyond float32 must not spoil what was learned."""
    return change if abs(change) < np.float32(np.inf) else np.float32(0)


@kernel
def learn(
    counts: Any, rate: float, ring: Any, newest: int, raw: Any, time: Any, norm: Any, normalize: bool,
    history: Any, coupling: Any, spikes: Any, latest: int, exponential: bool, cell: Any, energy: Any,
) -> None:  # fmt: skip
    """One gradient step of each cell on the Poisson loss of the frame predicted last. counts: (cells,); NaN: no step.

    energy: (cells,), scratch: the squared length of what the drive depends on, which bounds the step; see
    `neuroloop.models.lnp`.
    """
    lags, rank, cells = ring.shape
    gain, stimulus, move = cell[GAIN], cell[STIMULUS], cell[STEP]
    for n in range(cells):
        energy[n] = np.float32(0)
    for lag in range(lags):
        row = (newest + 1 + lag) % lags
        for r in range(rank):
            for n in range(cells):
                energy[n] += ring[row, r, n] * ring[row, r, n]
    for n in range(cells):
        along = stimulus[n] if normalize else np.float32(0)
        scale = gain[n] / norm[n]
        energy[n] = scale * scale * (energy[n] - along * along) + stimulus[n] * stimulus[n] + np.float32(1)
    depth = spikes.shape[0]
    for lag in range(history.shape[0]):
        for n in range(cells):
            energy[n] += spikes[(latest - lag + depth) % depth, n] ** 2
    for lag in range(coupling.shape[0]):
        for j in range(coupling.shape[1]):
            count = spikes[(latest - lag + depth) % depth, j]
            for n in range(cells):
                energy[n] += count * count
    _slopes(exponential, cell[DRIVE], cell[SOFTPLUS_A], cell[SOFTPLUS_B], cell[SOFTPLUS_W], move)
    for n in range(cells):
        expected = cell[RATE, n] + np.float32(1e-16)
        error = move[n] * (np.float32(1) - counts[n] / expected)
        information = move[n] * move[n] / expected
        change = -rate * error / (np.float32(1) + rate * information * energy[n])
        move[n] = _finite(change)
    for lag in range(history.shape[0]):
        for n in range(cells):
            history[lag, n] += move[n] * spikes[(latest - lag + depth) % depth, n]
    for lag in range(coupling.shape[0]):
        for j in range(coupling.shape[1]):
            count = spikes[(latest - lag + depth) % depth, j]
            if count != np.float32(0):
                for n in range(cells):
                    coupling[lag, j, n] += move[n] * count if n != j else np.float32(0)
    for lag in range(lags):
        row = (newest + 1 + lag) % lags
        for r in range(rank):
            for n in range(cells):
                along = time[lag, r, n] * stimulus[n] if normalize else np.float32(0)
                raw[lag, r, n] += _finite(move[n] * gain[n] / norm[n] * (ring[row, r, n] - along))
    for n in range(cells):
        gain[n] += _finite(move[n] * stimulus[n])
        cell[BIAS, n] += move[n]
    scale_time(raw, normalize, norm, time)
