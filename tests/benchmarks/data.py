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

# A GSNN as in its published benchmark; every function has an edge to itself beside the 1000.
INPUTS, FUNCTIONS, OUTPUTS, SITE_CHANNELS, LAYERS = 100, 200, 10, 4, 4
BETWEEN = 800  # edges between functions; the others lead from inputs and to outputs, 100 each

UNITS, WINDOW, WINDOWS, BATCH, TARGETS = 96, 25, 2560, 128, 8  # of learning from randomness

FIT_BINS, FIT_LAGS, FIT_FRAME, HELD_OUT = 4000, 10, (10, 10), 800  # of an LNP fit


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


def gsnn() -> dict[str, np.ndarray]:
    """A network with norm `layer`. edges: (2, edges) in the numbers of all nodes, functions first, then inputs, then
    outputs; in the order between functions, from inputs, to outputs, own. Weights per layer, as ours has them.
    """
    random = np.random.default_rng(4)
    pairs = random.permutation(FUNCTIONS * (FUNCTIONS - 1))[:BETWEEN]
    source, target = pairs // (FUNCTIONS - 1), pairs % (FUNCTIONS - 1)
    between = np.stack([source, target + (target >= source)])
    lead_in = np.stack([FUNCTIONS + np.arange(INPUTS), random.permutation(FUNCTIONS)[:INPUTS]])
    lead_out = np.stack([random.permutation(FUNCTIONS)[:100], FUNCTIONS + INPUTS + np.arange(100) % OUTPUTS])
    edges = np.concatenate([between, lead_in, lead_out, np.tile(np.arange(FUNCTIONS), (2, 1))], axis=1)
    into, out_of = (np.count_nonzero(edges[end] < FUNCTIONS) for end in (1, 0))
    shapes = {
        "residual": (LAYERS,),
        "in_weight": (LAYERS, into, SITE_CHANNELS),
        "in_bias": (LAYERS, FUNCTIONS, SITE_CHANNELS),
        "out_weight": (LAYERS, out_of, SITE_CHANNELS),
        "out_bias": (LAYERS, edges.shape[1]),
        "norm_gain": (LAYERS, FUNCTIONS),
        "norm_shift": (LAYERS, FUNCTIONS),
    }
    given = {name: 0.3 * random.standard_normal(shape) for name, shape in shapes.items()}
    for name in ("residual", "norm_gain"):
        given[name] += 1
    return {"edges": edges} | {name: array.astype(np.float32) for name, array in given.items()}


def gsnn_inputs() -> np.ndarray:
    """(64, INPUTS), standardised."""
    return np.random.default_rng(5).standard_normal((64, INPUTS), np.float32)


def rate_windows() -> np.ndarray:
    """Standardised rates, (WINDOWS, WINDOW, UNITS), that follow a slow common course."""
    random = np.random.default_rng(6)
    course = random.standard_normal((WINDOWS, 1, 6)) + 0.3 * random.standard_normal((WINDOWS, WINDOW, 6))
    rates = course @ random.standard_normal((6, UNITS)) / 3 + random.standard_normal((WINDOWS, WINDOW, UNITS))
    return rates.astype(np.float32)


def lnp_recording() -> tuple[np.ndarray, np.ndarray]:
    """White noise (FIT_BINS, rows, columns), and the counts (FIT_BINS, CELLS) of cells of rank 1 behind a softplus."""
    random = np.random.default_rng(7)
    frames = random.standard_normal((FIT_BINS, *FIT_FRAME)).astype(np.float32)
    rows, columns = np.mgrid[: FIT_FRAME[0], : FIT_FRAME[1]]
    lag = np.arange(FIT_LAGS)
    time = np.sin(2 * np.pi * lag / FIT_LAGS) * np.exp(-lag / 4)
    counts = []
    for row, column in random.uniform(2, FIT_FRAME[0] - 3, (CELLS, 2)):
        space = np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / 4.5)
        drive = np.convolve(np.tensordot(frames, space / np.linalg.norm(space), 2), time / np.linalg.norm(time))
        counts.append(random.poisson(np.logaddexp(0, 2 * drive[:FIT_BINS])))
    return frames, np.stack(counts, axis=1)
