from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import signal

from neuroloop.signal.tiles import (
    WIDEST,
    WIDTH,
    filter_tile,
    lay_out,
    load_tile,
    multiply_tile,
    outer_tile,
    tile_buffer,
)


@st.composite
def layouts(draw):
    """Clusters of shuffled channels, and the number of channels, some of them in no cluster."""
    sizes = draw(st.lists(st.integers(1, 160), max_size=8))
    count = sum(sizes) + draw(st.integers(0, 40))
    order = np.random.default_rng(draw(st.integers(0, 99))).permutation(count) if draw(st.booleans()) else range(count)
    cuts = np.cumsum([0, *sizes])
    return [[int(c) for c in order[a:b]] for a, b in pairwise(cuts)], count


@given(layouts())
@settings(max_examples=60)
def test_every_channel_has_one_lane_beside_the_rest_of_its_cluster(layout):
    clusters, count = layout
    tiles = lay_out(clusters, count)
    large = [c for cluster in clusters if len(cluster) > WIDEST for c in cluster]
    lanes = tiles.order[tiles.order >= 0].tolist()
    assert sorted(lanes + large) == list(range(count))
    for cluster, (tile, lane) in zip(clusters, tiles.places, strict=True):
        if tile >= 0:
            start = tiles.first[tile] + lane
            assert tiles.order[start : start + len(cluster)].tolist() == cluster
            assert lane + len(cluster) <= tiles.first[tile + 1] - tiles.first[tile]
    assert all(width % WIDTH == 0 for width in np.diff(tiles.first))
    for tile in range(tiles.count):
        channels = tiles.order[tiles.first[tile] : tiles.first[tile + 1]]
        channels = channels[channels >= 0]
        assert tiles.runs[tile] == (np.diff(channels) == 1).all()


@given(layouts(), st.sampled_from([np.float32, np.float64]), st.integers(0, 20))
@settings(max_examples=40)
def test_a_tile_holds_its_channels_and_zeros_in_empty_lanes(layout, dtype, samples):
    clusters, count = layout
    tiles = lay_out(clusters, count)
    source = np.random.default_rng(0).standard_normal((samples, count)).astype(np.float32)
    for number in range(tiles.count):
        order = tiles.order[tiles.first[number] : tiles.first[number + 1]]
        tile = np.full_like(tile_buffer(samples, len(order), dtype), 7)
        load_tile(source, order, tiles.runs[number], tile)
        expected = np.where(order >= 0, source[:, np.maximum(order, 0)], 0) if samples else np.empty((0, len(order)))
        assert np.array_equal(tile[:samples], expected)


@pytest.mark.parametrize(("dtype", "tolerance"), [(np.float32, 1e-5), (np.float64, 1e-13)])
@pytest.mark.parametrize("width", [32, 64, 128])
@pytest.mark.parametrize("samples", [1, 7, 60])
def test_products_of_tiles_are_those_of_matrices(width, samples, dtype, tolerance):
    random = np.random.default_rng(0)
    tile, out = tile_buffer(samples, width, dtype), tile_buffer(samples, width, dtype)
    tile[:samples] = random.standard_normal((samples, width))
    matrix = random.standard_normal((width, width)).astype(dtype)
    multiply_tile(tile, samples, matrix, out)
    np.testing.assert_allclose(out[:samples], tile[:samples] @ matrix, atol=tolerance * width)
    product = np.zeros((width, width), dtype)
    outer_tile(tile, samples, product)
    np.testing.assert_allclose(np.triu(product), np.triu(tile[:samples].T @ tile[:samples]), atol=tolerance * samples)


@pytest.mark.parametrize("sections", [0, 1, 2, 3, 5])
def test_any_number_of_sections_filters_in_order(sections):
    sos = np.tile(signal.butter(2, 0.2, output="sos"), (sections, 1)) if sections else np.empty((0, 6))
    tile = tile_buffer(50, WIDTH, np.float64)
    tile[:50] = np.random.default_rng(0).standard_normal((50, WIDTH))
    expected = signal.sosfilt(sos, tile[:50], axis=0) if sections else tile[:50].copy()
    filter_tile(tile, 50, sos, np.zeros((2 * sections + 2, WIDTH)))
    np.testing.assert_allclose(tile[:50], expected, atol=1e-12)
