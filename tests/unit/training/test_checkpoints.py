import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors import safe_open

from neuroloop.models.gsnn_fit import fit as fit_network
from neuroloop.models.gsnn_graph import make_graph
from neuroloop.models.gsnn_settings import GSNNFitSettings, GSNNSettings
from neuroloop.training import checkpoints
from neuroloop.training.checkpoints import Checkpoint, digest_of
from neuroloop.training.request import FitRequest

STATE = {
    "parameters": {"weight": torch.arange(6.0).reshape(2, 3).T, "none": torch.zeros(0, 3), "one": torch.tensor(True)},
    "optimizer": {"state": {0: {"step": torch.tensor(3.0), "steps": [None, torch.ones(2, dtype=torch.float64)]}}},
    "order": np.random.default_rng(5).bit_generator.state,
    "generator": torch.Generator().manual_seed(3).get_state(),
    "betas": (0.9, 0.999),
    "least": float("inf"),
}


@pytest.fixture
def clock(monkeypatch):
    """The time that a checkpoint goes by, in a list."""
    now = [100.0]
    monkeypatch.setattr("neuroloop.training.checkpoints.time.monotonic", lambda: now[0])
    return now


def same(one, other):
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return type(one) is type(other) and all(map(same, one, other))
    return one == other


def read(folder, digest="a"):
    checkpoint = Checkpoint(folder, digest)
    return checkpoint if checkpoint.read() else None


def test_states_of_every_stage_and_what_was_told_are_read_back_exactly(tmp_path, clock):
    checkpoint = Checkpoint(tmp_path, "a")
    told = []
    tell = checkpoint.noting(lambda *one: told.append(one))
    tell(0.25, 1.5)
    checkpoint.stage("first").save({"epochs": 7})
    tell(0.5, None)
    clock[0] += checkpoints.EVERY_S
    checkpoint.stage("second").save(STATE)
    back = read(tmp_path)
    assert back.told == told == [(0.25, 1.5), (0.5, None)]
    assert back.stage("first").load() == {"epochs": 7}
    assert same(back.stage("second").load(), STATE)
    assert back.stage("third").load() is None
    assert [path.name for path in tmp_path.iterdir()] == ["checkpoint.safetensors"]


def test_it_is_written_so_often_and_no_more_and_holds_the_last_state_as_it_was_then(tmp_path, clock):
    checkpoint, weight = Checkpoint(tmp_path, "a"), torch.zeros(1)
    kept = checkpoint.stage("loop")
    found = []
    for seconds in (0.0, 1.0, 3.9, 0.2, 4.0):
        clock[0] += seconds
        weight += 1
        kept.save({"weight": weight})
        found.append(read(tmp_path).stage("loop").load()["weight"].item())
    weight += 1
    checkpoint.stage("next").save({})
    assert found == [1, 1, 1, 4, 4]
    clock[0] += checkpoints.EVERY_S
    checkpoint.stage("next").save({})
    assert read(tmp_path).stage("loop").load()["weight"].item() == 5


def test_one_of_other_data_or_settings_or_that_is_spoilt_is_not_used(tmp_path):
    assert read(tmp_path) is None
    Checkpoint(tmp_path, "a").stage("loop").save(STATE)
    assert read(tmp_path) is not None
    assert read(tmp_path, "b") is None
    path = tmp_path / "checkpoint.safetensors"
    content = path.read_bytes()
    for spoilt in (
        b"",
        content[: len(content) // 2],
        content[:-1],
        b"\x80\x04pickle" * 9,
        content.replace(b"map", b"mop"),
    ):
        path.write_bytes(spoilt)
        assert read(tmp_path) is None


def test_where_there_is_none_pytorch_is_not_imported(tmp_path):
    program = f"""
import sys
from pathlib import Path
from neuroloop.training.checkpoints import Checkpoint
assert not Checkpoint(Path({str(tmp_path)!r}), "a").read()
assert "torch" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)


def test_the_digest_tells_requests_and_data_apart():
    document = {"name": "reach", "kind": "lfr", "source": {"arrays": "a.npz"}}
    requests = [FitRequest.model_validate(document | more) for more in ({}, {"seed": 1}, {"settings": {"bins": 9}})]
    digests = {digest_of(request, data) for request in requests for data in ("sha256:a", "sha256:b")}
    assert len(digests) == 6
    assert digest_of(requests[0], "sha256:a") == digest_of(FitRequest.model_validate(document), "sha256:a")


def test_a_folder_that_cannot_be_written_does_not_end_the_fit(tmp_path):
    kept = Checkpoint(tmp_path / "nowhere", "a").stage("loop")
    kept.save({"epochs": 1})
    assert kept.load() == {"epochs": 1}


def test_the_file_is_safetensors_with_what_is_no_tensor_as_json(tmp_path):
    Checkpoint(tmp_path, "a").stage("loop").save(STATE)
    with safe_open(tmp_path / "checkpoint.safetensors", "pt") as file:
        assert len(file.keys()) == 6
        assert json.loads(file.metadata()["neuroloop.checkpoint"])["digest"] == "a"


def test_a_fit_goes_on_from_the_file_to_the_same_end(tmp_path, monkeypatch):
    monkeypatch.setattr(checkpoints, "EVERY_S", 0.0)
    labels = np.arange(60) % 2
    rates = np.random.default_rng(1).poisson(np.array([[2, 5, 9], [9, 5, 2]])[labels]).astype(float)
    settings, training = GSNNSettings(), GSNNFitSettings(epochs=5, patience=5)
    graph = make_graph(settings.graph, 3, ["left", "right"])

    class Killed(Exception):
        pass

    def killed(epoch, _value):
        if epoch == 4:
            raise Killed

    def fit(**more):
        return fit_network(rates, labels, np.arange(60) >= 45, 2, graph, settings, training, **more)

    expected = fit()
    with pytest.raises(Killed):
        fit(on_epoch=killed, kept=Checkpoint(tmp_path, "a").stage("network"))
    back, told = read(tmp_path), []
    resumed = fit(on_epoch=lambda *one: told.append(one), kept=back.stage("network"))
    assert told == list(enumerate(expected.curve, 1))[3:]
    assert resumed.curve == expected.curve
    for name, array in expected.weights.arrays().items():
        assert np.array_equal(array, resumed.weights.arrays()[name]), name
