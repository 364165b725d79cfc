"""Tiles: channels that go through the stages together, so that their samples and state stay in the first two caches.

A tile is a cluster of up to 128 channels, or several smaller ones side by side up to 32, padded with empty lanes to a
multiple of 32. Channels of no cluster lie in tiles too, as clusters of one. Larger clusters have no tile: their
products are a matter for BLAS.

A tile's samples are copied into a buffer of its own, (samples, width), and so is whatever state its channels have,
(rows, channels) -> (rows, width); both by `load_tile`. Where the channels are neighbours, that is a copy of runs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from neuroloop.compiled import kernel
from neuroloop.signal.lanes import ROWS, WIDTH, center, copy, filter_one, filter_two, lanes, multiply, outer

Indices = NDArray[np.intp]

WIDEST = 128  # channels of a cluster that has a tile


@dataclass(frozen=True, eq=False, slots=True)
class Tiles:
    """order: (lanes of all tiles,) channel of each, -1 for an empty one. first: (tiles + 1,) where each tile begins.

    runs: (tiles,) whether its channels are neighbours in order. at: (tiles + 1,) where the squares of the widths begin.
    places: of each cluster, (tile, first lane), (-1, -1) for one without a tile.
    """

    order: Indices
    first: Indices
    runs: NDArray[np.bool_]
    at: Indices
    places: tuple[tuple[int, int], ...]

    @property
    def count(self) -> int:
        return len(self.runs)

    @property
    def large(self) -> list[int]:
        """The clusters without a tile."""
        return [number for number, (tile, _) in enumerate(self.places) if tile < 0]

    @property
    def widest(self) -> int:
        return int(np.diff(self.first).max(initial=WIDTH))


def tile_buffer(samples: int, width: int, dtype: Any) -> NDArray[Any]:
    """Zeros for so many samples of a tile, and for the rows that `multiply_tile` writes beyond them."""
    return np.zeros((-(-max(samples, 1) // ROWS) * ROWS, width), dtype)


def lay_out(clusters: Sequence[Sequence[int]], channel_count: int) -> Tiles:
    """The tiles of these clusters, which must not overlap, in their order, then of the channels in none."""
    clustered = {channel for cluster in clusters for channel in cluster}
    alone = [[channel] for channel in range(channel_count) if channel not in clustered]
    tiles: list[list[int]] = []
    places: list[tuple[int, int]] = []
    for cluster in [*clusters, *alone]:
        if len(cluster) > WIDEST:
            places.append((-1, -1))
            continue
        if not tiles or len(tiles[-1]) + len(cluster) > WIDTH:
            tiles.append([])
        places.append((len(tiles) - 1, len(tiles[-1])))
        tiles[-1].extend(cluster)
    widths = [-(-max(1, len(tile)) // WIDTH) * WIDTH for tile in tiles]
    first = np.concatenate(([0], np.cumsum(widths))).astype(np.intp)
    order = np.full(first[-1], -1, np.intp)
    for start, tile in zip(first, tiles, strict=False):
        order[start : start + len(tile)] = tile
    runs = np.array([tile == list(range(tile[0], tile[0] + len(tile))) for tile in tiles], np.bool_)
    at = np.concatenate(([0], np.cumsum(np.square(widths)))).astype(np.intp)
    return Tiles(order, first, runs, at, tuple(places[: len(clusters)]))


@njit(inline="always")
def _filled(order: Any) -> int:
    """Lanes that hold a channel."""
    count = len(order)
    while count > 0 and order[count - 1] < 0:
        count -= 1
    return count


@kernel
def load_tile(source: Any, order: Any, run: bool, tile: Any) -> None:
    """source: (rows, channels) float32 or 64; tile: (at least as many rows, width), empty lanes 0.

    order: (width,), run: see `Tiles`.
    """
    rows, width, group, filled = source.shape[0], len(order), lanes(tile), _filled(order)
    column = 0
    if run:
        while column + group <= filled:
            copy(tile, column, rows, source, order[column])
            column += group
    zero = tile.dtype.type(0)
    for row in range(rows):
        for j in range(column, filled):
            tile[row, j] = source[row, order[j]]
        for j in range(filled, width):
            tile[row, j] = zero


@kernel
def store_tile(tile: Any, order: Any, run: bool, target: Any) -> None:
    """The other way: the lanes of channels into (rows, channels)."""
    rows, group, filled = target.shape[0], lanes(target), _filled(order)
    column = 0
    if run:
        while column + group <= filled:
            copy(target, order[column], rows, tile, column)
            column += group
    for row in range(rows):
        for j in range(column, filled):
            target[row, order[j]] = tile[row, j]


@kernel
def filter_tile(tile: Any, samples: int, sos: Any, state: Any) -> None:
    """Filter the tile in place; sos: (sections, 6), of the tile's type like the state.

    state: (2 * sections + 2, width), two rows per section, the offset that is subtracted from the samples, and zeros.
    """
    sections = sos.shape[0]
    for column in range(0, state.shape[1], lanes(tile)):
        section, offset = 0, 2 * sections
        while section + 2 <= sections:
            filter_two(tile, samples, column, sos, section, state, offset)
            section, offset = section + 2, 2 * sections + 1
        if section < sections:
            filter_one(tile, samples, column, sos, section, state, offset)


@kernel
def multiply_tile(tile: Any, samples: int, matrix: Any, out: Any) -> None:
    """`out = tile @ matrix`; matrix: (width, width). Rows up to the next multiple of ROWS are written too."""
    width = matrix.shape[0]
    for column in range(0, width, lanes(tile)):
        for row in range(0, samples, ROWS):
            multiply(tile, row, column, matrix, width, out)


@kernel
def center_tile(tile: Any, samples: int, mean: Any, centered: Any) -> None:
    """The mean of each lane over the samples less the first, (1, width), and the samples about it."""
    for column in range(0, mean.shape[1], lanes(centered)):
        center(centered, samples, column, centered.dtype.type(1.0 / samples), mean, tile)


@kernel
def outer_tile(tile: Any, samples: int, product: Any) -> None:
    """`product = tile.T @ tile`, (width, width); only its upper triangle has meaning."""
    width, group = product.shape[0], lanes(tile)
    for row in range(0, width, ROWS):
        for column in range(row // group * group, width, group):
            outer(tile, samples, row, column, product)
