import json

import numpy as np
import pytest
import safetensors.numpy

from neuroloop.errors import ModelError
from neuroloop.session import checkpoint

TREE = {
    "seq": 12,
    "nothing": None,
    "weights": np.arange(6.0).reshape(2, 3),
    "flags": np.array([True, False]),
    "decoders": [{"name": "main", "file": b"\x00\x01", "empty": np.zeros((0, 4), np.float32)}],
}


def content_of(tree):
    return b"".join(checkpoint.pack(tree))


def test_what_was_packed_is_read_back_with_types_and_shapes():
    found = checkpoint.unpack(content_of(TREE))
    assert {key: found[key] for key in ("seq", "nothing")} == {"seq": 12, "nothing": None}
    np.testing.assert_array_equal(found["weights"], TREE["weights"])
    assert found["flags"].dtype == bool
    (decoder,) = found["decoders"]
    assert decoder["file"] == b"\x00\x01"
    assert (decoder["empty"].shape, decoder["empty"].dtype) == ((0, 4), np.float32)


def test_a_file_is_what_safetensors_itself_reads():
    arrays = safetensors.numpy.load(content_of({"weights": np.eye(3), "flags": np.array([True, False])}))
    np.testing.assert_array_equal(arrays["0"], np.eye(3))
    np.testing.assert_array_equal(arrays["1"], [True, False])


def test_another_format_is_refused_and_says_which():
    content = safetensors.numpy.save({}, {checkpoint.KEY: json.dumps({"format": 99, "checksum": 0})})
    with pytest.raises(ModelError, match="expected format 1, got 99"):
        checkpoint.unpack(content)


@pytest.mark.parametrize(
    "keep", [lambda c: c[:-1], lambda c: c[:-9] + b"\xff" + c[-8:], lambda c: b"", lambda c: b"{}"]
)
def test_a_damaged_file_is_refused(keep):
    with pytest.raises(ModelError, match="checkpoint"):
        checkpoint.unpack(keep(content_of({"weights": np.arange(6.0)})))


def test_where_the_newest_is_damaged_the_one_before_is_read_and_the_damage_told(tmp_path):
    path = tmp_path / "demo"
    for seq in (1, 2):
        checkpoint.write(path, checkpoint.pack({"seq": seq}))
    assert checkpoint.read(path) == ({"seq": 2}, [])
    path.write_bytes(path.read_bytes()[:-3])
    tree, (refused,) = checkpoint.read(path)
    assert tree == {"seq": 1}
    assert refused.startswith("demo: checkpoint: expected a file")


def test_a_process_that_ended_between_two_renames_leaves_the_one_before(tmp_path):
    path = tmp_path / "demo"
    checkpoint.write(path, checkpoint.pack({"seq": 1}))
    path.rename(checkpoint.before(path))
    assert checkpoint.read(path) == ({"seq": 1}, [])


def test_none_is_no_error_and_what_is_removed_is_gone(tmp_path):
    path = tmp_path / "demo"
    assert checkpoint.read(path) == (None, [])
    for seq in (1, 2):
        checkpoint.write(path, checkpoint.pack({"seq": seq}))
    checkpoint.remove(path)
    assert list(tmp_path.iterdir()) == []
