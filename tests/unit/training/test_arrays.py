import io
import zipfile

import numpy as np
import pytest

from neuroloop.errors import ModelError
from neuroloop.training.arrays import check, read, read_headers

LABELLED = {"rates": np.ones((6, 3), np.float32), "labels": np.array([0, 0, 1, 1, -1, -1])}
MOVIE = {"stimulus": np.ones((6, 4, 4)), "counts": np.ones((6, 2), int)}


@pytest.fixture
def stored(tmp_path):
    def store(arrays):
        np.savez(tmp_path / "data.npz", **arrays)
        return tmp_path / "data.npz"

    return store


@pytest.mark.parametrize(
    ("kind", "arrays"),
    [
        ("maxrate", LABELLED),
        ("poisson", LABELLED | {"labels": np.array(["a", "b", "", "", "a", "b"]), "times": np.arange(6.0)}),
        ("maxrate", {"trials": np.ones((2, 3)), "labels": np.array([0, 1]), "channels": np.array(["x", "y", "z"])}),
        ("lfr", LABELLED | {"usable": np.ones(6, bool), "trial_numbers": np.arange(6)}),
        ("lrr", {"samples": np.ones((10, 2), np.int16)}),
        ("lnp", MOVIE),
        ("lnp", {"stimulus": np.ones(6), "counts": np.ones(6), "cells": np.array(["a"])}),
    ],
)
def test_what_a_fit_needs_is_found_in_the_headers_alone(stored, kind, arrays):
    path = stored(arrays)
    check(kind, read_headers(path))
    assert read(path).keys() == arrays.keys()


@pytest.mark.parametrize(
    ("kind", "arrays", "words"),
    [
        ("maxrate", {"labels": np.array([0])}, "either 'rates' or 'trials', got labels"),
        ("maxrate", {"rates": np.ones((6, 3))}, "'labels' is missing; the file holds rates"),
        ("maxrate", LABELLED | {"label": np.array([1])}, "label: unknown; a fit of kind maxrate takes rates"),
        ("maxrate", LABELLED | {"labels": np.array([0])}, r"'labels': expected the shape \(6\), got \(1,\)"),
        ("maxrate", LABELLED | {"labels": np.ones(6)}, "'labels': expected integers or text, got float64"),
        ("maxrate", LABELLED | {"rates": np.ones((0, 3))}, r"'rates': expected the shape \(at least 1, at least 1\)"),
        ("maxrate", LABELLED | {"rates": np.ones((6, 3), complex)}, "'rates': expected .*floats, got complex128"),
        ("maxrate", LABELLED | {"times": np.arange(5.0)}, "'times'"),
        ("lrr", {"samples": np.ones(10)}, r"'samples': expected the shape \(at least 1, at least 1\), got \(10,\)"),
        ("lrr", {"samples": np.ones((9, 2)), "channels": np.array(["a"])}, r"'channels': expected the shape \(2\)"),
        ("lnp", MOVIE | {"counts": np.ones((5, 2))}, r"'counts': expected the shape \(6, at least 1\)"),
        ("lnp", MOVIE | {"locations": np.ones((3, 2), int)}, r"'locations': expected the shape \(2, 2\)"),
    ],
)
def test_arrays_that_do_not_fit_are_refused_by_name(stored, kind, arrays, words):
    with pytest.raises(ModelError, match=words):
        check(kind, read_headers(stored(arrays)))


def test_a_pickle_is_refused_and_never_read(stored):
    with pytest.raises(ModelError, match="pickled objects, which are never read"):
        read_headers(stored({"rates": np.array([{}], dtype=object)}))


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"\x80\x04", b"rates"])
def test_a_file_that_is_no_npz_is_refused(tmp_path, content):
    path = tmp_path / "data.npz"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="expected an NPZ file"):
        read_headers(path)


def test_a_header_that_claims_more_than_the_file_holds_is_refused(tmp_path):
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**12, 3)})
    with zipfile.ZipFile(tmp_path / "data.npz", "w") as archive:
        archive.writestr("rates.npy", buffer.getvalue())
    with pytest.raises(ModelError, match=r"rates\.npy has 128 bytes; its header says 24000000000128"):
        read_headers(tmp_path / "data.npz")


def test_values_that_are_damaged_are_refused_where_they_are_read(stored):
    path = stored({"samples": np.ones((10_000, 2))})
    content = bytearray(path.read_bytes())
    content[100_000] ^= 1
    path.write_bytes(content)
    check("lrr", read_headers(path))
    with pytest.raises(ModelError, match="the NPZ file is damaged"):
        read(path)
