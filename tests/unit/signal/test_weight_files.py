import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from neuroloop.errors import ModelError
from neuroloop.signal import weight_files
from neuroloop.signal.weight_files import Format, read_weights, write_weights

FIXTURES = Path(__file__).parents[2] / "fixtures"
W = np.array([[0.0, 0.1, -1e-17], [1 / 3, 0.0, 2.0], [4e30, 5.0, 0.0]])
LABELS = ["C3", "Cz", "C,4"]


def npz(**arrays: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


@pytest.mark.parametrize(("format", "labels"), [("csv", None), ("npz", LABELS), ("safetensors", LABELS)])
def test_weights_survive_a_file_to_the_bit(format: Format, labels: list[str] | None) -> None:
    matrix, channels = read_weights(write_weights(format, W, LABELS, 7))
    assert np.array_equal(matrix, W)
    assert channels == labels


def test_the_csv_of_the_reference_implementation_is_read() -> None:
    matrix, channels = read_weights((FIXTURES / "lrr_weights.csv").read_bytes())
    assert matrix.shape[0] == matrix.shape[1] > 2
    assert np.all(np.diag(matrix) == 0)
    assert channels is None


def test_a_csv_may_begin_with_labels_and_comments() -> None:
    matrix, channels = read_weights(b"# made by hand\nleft, right\n0,0.5\n\n-0.5,0\n")
    assert matrix.tolist() == [[0, 0.5], [-0.5, 0]]
    assert channels == ["left", "right"]


def test_an_npz_with_one_array_of_any_name_and_an_npy_are_read() -> None:
    assert np.array_equal(read_weights(npz(arr_0=W))[0], W)
    assert np.array_equal(read_weights(npy(W.astype(np.float32)))[0], W.astype(np.float32))
    assert read_weights(npz(arr_0=np.eye(2, dtype=np.int8)))[0].dtype == np.float64


def test_values_that_are_not_finite_and_wrong_shapes_are_left_to_the_session() -> None:
    assert np.isnan(read_weights(b"0,nan\n1,0\n")[0][0, 1])
    assert read_weights(b"0,1\n1,0\n1,1\n")[0].shape == (3, 2)


def bomb() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("W.npy", npy(np.zeros((512, 512))))
    return buffer.getvalue()


def huge() -> bytes:
    buffer = io.BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f8", "fortran_order": False, "shape": (10**7, 10**7)})
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no numbers"),
        (b"left,right\n", "no numbers"),
        (huge(), "NPY can't be read"),
        (b"0,1\n1\n", "row 2 has 1 values"),
        (b"0,1\n1,x\n", "row 2: could not convert"),
        (pickle.dumps(W), "pickles are not read"),
        (npy(np.array([object()])), "NPY can't be read"),
        (npz(W=np.array([object()])), "NPZ can't be read"),
        (npz(a=W, b=W), "expected an array 'W'"),
        (npz(W=W)[:-40], "NPZ can't be read"),
        (npy(W.astype(complex)), "real numbers"),
        (safetensors.numpy.save({"V": W}), "expected a tensor 'W'"),
        (safetensors.numpy.save({"W": W}, {"channels": '{"a": 1}'}), "JSON list"),
        (safetensors.numpy.save({"W": W}, {"channels": "a,b"}), "can't be read"),
        (safetensors.numpy.save({"W": W})[:-8], "safetensors file can't be read"),
    ],
)
def test_what_is_no_weights_file_is_refused_with_a_reason(data: bytes, reason: str) -> None:
    with pytest.raises(ModelError, match=reason):
        read_weights(data)


def test_an_npz_that_unpacks_to_too_much_is_refused_unread(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(weight_files, "SIZE_LIMIT", 2**20)
    assert len(bomb()) < 2**14
    with pytest.raises(ModelError, match="unpacks to"):
        read_weights(bomb())


def npy_header(header: str) -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + bytes(64)


def squeezed(data: bytes, method: int) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("W.npy", data)
    return buffer.getvalue()


@pytest.mark.parametrize(
    "data",
    [
        npy_header(f"{{'descr': '<f8', 'fortran_order': False, 'shape': ({10**30},), }}\n"),
        npy_header("{'descr': '<f8', 'fortran_order': False, 'shape': (True, True), }\n"),
        npy_header("{'descr': '<f8'\n"),
        npy_header("(" * 500),
        squeezed(npy(W), zipfile.ZIP_LZMA).replace(b"\x5d\x00\x00", b"\xff\x00\x00"),
    ],
    ids=["overflow", "type", "token", "syntax", "lzma"],
)
def test_a_file_that_is_damaged_or_made_to_harm_is_refused(data: bytes) -> None:
    with pytest.raises(ModelError, match="can't be read"):
        read_weights(data)


BEGINNINGS = [b"", b"PK\x03\x04", b"\x93NUMPY\x01\x00", b"\x08\0\0\0\0\0\0\0{", b"\xff"]


def outcome(data: bytes) -> str:
    try:
        return str(read_weights(data)[0].dtype)
    except ModelError as error:
        return str(error).partition(":")[0]


@given(st.sampled_from(BEGINNINGS), st.binary(max_size=200))
def test_arbitrary_bytes_are_weights_or_a_clear_error(start: bytes, rest: bytes) -> None:
    assert outcome(start + rest) in ("float64", "rereference weights")


@given(st.integers(0, 400), st.integers(0, 255), st.sampled_from(["npz", "safetensors"]))
def test_a_damaged_file_is_weights_or_a_clear_error(at: int, byte: int, format: Format) -> None:
    data = bytearray(write_weights(format, W, LABELS, 1))
    data[at % len(data)] = byte
    assert outcome(bytes(data)) in ("float64", "rereference weights")
