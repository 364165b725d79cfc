"""The data that ours and the peers are measured on: the same numbers on both sides, float32, from fixed seeds."""

from itertools import cycle

import numpy as np

SRATE = 30_000.0
BLOCK = 300  # samples, 10 ms
RING = 8  # blocks that are repeated
BAND = (300.0, 6000.0)
ORDER = 4
CLUSTER = 32
THRESHOLD = 4.5
REFRACTORY_S = 0.001
BIN_S = 0.02
WARM_UP = 104  # blocks: a second for our calibration, and a little more
COUNTED = 2 * RING  # blocks after that whose spikes are compared

FEATURES, CLASSES = 1024, 10
CELLS, RANK, LAGS, FRAME = 100, 3, 30, (15, 15)


def broadband(channels: int) -> np.ndarray:
    """Microvolts, (RING, BLOCK, channels): a common mode per cluster, noise, spikes at 20 Hz per channel.

    Spikes last half a millisecond and stand 8 sigma high after the rereference, so that both sides find them, however
    each estimates sigma.

    The very first sample is zero, so that a filter that starts from the first sample starts from zero.
    """
    random = np.random.default_rng(0)
    samples = RING * BLOCK
    data = 8 * random.standard_normal((samples, channels), np.float32)
    common = 40 * random.standard_normal((samples, -(-channels // CLUSTER)), np.float32)
    data += np.repeat(common, CLUSTER, axis=1)[:, :channels]
    phase = np.arange(15) / 15
    spike = -np.sin(2 * np.pi * phase) * np.exp(-2 * phase)
    spike = (45 / -spike.min() * spike).astype(np.float32)
    for channel in range(channels):
        for at in random.integers(0, samples - len(spike), random.poisson(20 * samples / SRATE)):
            data[at : at + len(spike), channel] += spike
    data[0] = 0
    return data.reshape(RING, BLOCK, channels)


def in_turn(blocks):
    """A function that gives the next one of them at every call, for ever."""
    endless = cycle(blocks)
    return lambda: next(endless)


def labelled_rates(count: int = 500) -> tuple[np.ndarray, np.ndarray]:
    """Rate vectors (count, FEATURES) and their classes, in turn; every feature prefers a class and is never silent."""
    random = np.random.default_rng(1)
    labels = np.arange(count) % CLASSES
    tuning = random.gamma(4.0, 1.0, (CLASSES, FEATURES)) + 1
    return random.poisson(tuning[labels]).astype(np.float32) + 1, labels


def kernels() -> tuple[np.ndarray, np.ndarray]:
    """Spatial (CELLS, RANK, 1, rows, columns) and temporal (CELLS, RANK, LAGS) kernels of unit norm per cell."""
    random = np.random.default_rng(2)
    space = random.standard_normal((CELLS, RANK, 1, *FRAME), np.float32)
    time = random.standard_normal((CELLS, RANK, LAGS), np.float32)
    space /= np.sqrt((space**2).sum(axis=(1, 2, 3, 4), keepdims=True))
    time /= np.sqrt((time**2).sum(axis=(1, 2), keepdims=True))
    return space, time


def frames(count: int = 64) -> np.ndarray:
    """White noise, (count, 1, rows, columns)."""
    return np.random.default_rng(3).standard_normal((count, 1, *FRAME), np.float32)
