"""Clusters from what a configuration says and what a stream says of its channels."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from neuroloop.signal.clusters import ByElement, Neighbours, resolve_clusters


def grid(columns, rows, pitch=0.4):
    return [(pitch * column, pitch * row, 0.0) for row in range(rows) for column in range(columns)]


def shanks(count, electrodes, apart=0.4):
    """Two columns of electrodes 0.04 mm apart on each of some shanks."""
    return [(apart * shank + 0.04 * (i % 2), 0.04 * (i // 2), 0.0) for shank in range(count) for i in range(electrodes)]


def neighbours(positions, most):
    return resolve_clusters(Neighbours(neighbours=most), len(positions), positions=positions)


def test_a_size_lists_and_nothing_need_no_knowledge_of_the_channels():
    assert resolve_clusters(2, 5) == [[0, 1], [2, 3], [4]]
    assert resolve_clusters(None, 3) == [[0, 1, 2]]
    assert resolve_clusters([[2, 0], [1]], 3) == [[2, 0], [1]]
    assert resolve_clusters([["b", "c"], [0]], 3, ["a", "b", "c"]) == [[1, 2], [0]]


@pytest.mark.parametrize(
    ("clusters", "words"),
    [
        ([[0, 3]], r"clusters\.0: channel 3 is not there; allowed: 0 to 2"),
        ([[0], [-1]], r"clusters\.1: channel -1 is not there"),
        ([["a", 0]], "channel 0 is named twice"),
        ([["z"]], "channel 'z' is not there; the stream has a, b, c"),
    ],
)
def test_channels_that_are_not_there_or_named_twice_are_refused(clusters, words):
    with pytest.raises(ValueError, match=words):
        resolve_clusters(clusters, 3, ["a", "b", "c"])


def test_an_element_of_the_descriptions_makes_one_cluster_for_each_of_its_values():
    metadata = [{"bank": bank, "unit": "uV"} for bank in "BABCA"]
    assert resolve_clusters(ByElement(by="bank"), 5, metadata=metadata) == [[0, 2], [1, 4], [3]]
    assert resolve_clusters(ByElement(by="unit"), 5, metadata=metadata) == [[0, 1, 2, 3, 4]]


def test_channels_without_the_element_are_named_with_what_there_is_instead():
    metadata = [{"label": "a", "bank": "A"}, {"label": "b", "shank": "1"}, {"label": "c", "bank": ""}]
    with pytest.raises(ValueError, match="no <bank> for 2 of 3 channels: b, c; its channels have bank, label, shank"):
        resolve_clusters(ByElement(by="bank"), 3, ["a", "b", "c"], metadata)
    with pytest.raises(ValueError, match=r"no <bank> for 3 of 3 channels: 0, 1, 2; .* nothing but their order"):
        resolve_clusters(ByElement(by="bank"), 3)


@pytest.mark.parametrize("places", [None, [(0, 0, 0), None, (1, 0, 0)], [(0, 0, 0), (np.nan, 0, 0), (1, 0, 0)]])
def test_channels_without_a_position_are_named(places):
    with pytest.raises(ValueError, match=r"no position \(<location> with X, Y, Z\) for .* of 3 channels: .*b"):
        resolve_clusters(Neighbours(neighbours=2), 3, ["a", "b", "c"], positions=places)


def test_an_array_is_cut_into_squares_of_equal_size():
    clusters = neighbours(grid(10, 10), 32)
    assert [len(cluster) for cluster in clusters] == [25] * 4
    for cluster in clusters:
        columns, rows = np.array(cluster) % 10, np.array(cluster) // 10
        assert (np.ptp(columns), np.ptp(rows)) == (4, 4)


@pytest.mark.parametrize(("count", "electrodes", "most"), [(3, 32, 32), (2, 32, 32), (4, 24, 32), (2, 32, 64)])
def test_a_shank_that_fits_is_never_cut_and_never_joined_with_another(count, electrodes, most):
    expected = np.arange(count * electrodes).reshape(count, electrodes).tolist()
    assert neighbours(shanks(count, electrodes), most) == expected


def test_a_long_shank_is_cut_along_its_length():
    assert neighbours(shanks(2, 64), 32) == np.arange(128).reshape(4, 32).tolist()


def test_electrodes_at_one_place_do_not_make_shanks_of_all_others():
    places = [place for place in grid(4, 4) for _ in range(2)]
    assert neighbours(places, 32) == [list(range(32))]


def test_neighbours_do_not_depend_on_the_order_of_the_channels():
    places, order = grid(9, 7), np.random.default_rng(0).permutation(63)
    shuffled = neighbours([places[i] for i in order], 16)
    assert sorted(sorted(int(order[i]) for i in cluster) for cluster in shuffled) == neighbours(places, 16)


@given(
    st.lists(st.tuples(*[st.floats(-100, 100)] * 3), max_size=40),
    st.integers(2, 9),
)
def test_every_electrode_is_in_one_cluster_and_none_is_too_large(places, most):
    clusters = neighbours(places, most)
    assert sorted(channel for cluster in clusters for channel in cluster) == list(range(len(places)))
    assert all(1 <= len(cluster) <= most for cluster in clusters)
    assert neighbours(places, most) == clusters
