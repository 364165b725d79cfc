import pytest
import torch

from neuroloop.config import BroadbandSettings, parse_session
from neuroloop.errors import ConfigError
from neuroloop.front_ends import Broadband, make_front_end
from neuroloop.gpu import check
from neuroloop.gpu.check import compare, disagreement
from neuroloop.gpu.front_end import TorchBroadband

torch.set_num_threads(1)

RATE, CHANNELS = 10_000.0, tuple(f"c{c}" for c in range(24))


def session(**given):
    clusters = {"rereference": {"clusters": 8, "mode": "incremental"}}
    front_end = {"kind": "broadband", "band": [300, 3000]}
    return parse_session(
        {"name": "s", "stream": {"name": "x"}, "classes": ["a", "b"], "front_end": front_end} | clusters | given
    )


def settings(**given):
    return BroadbandSettings(band=(300.0, 3000.0), calibration_s=0.05, **given)


def test_the_same_computation_on_another_device_agrees():
    assert disagreement(session(), settings(), RATE, CHANNELS, "cpu") is None


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (lambda chain: [matrix.mul_(1.01) for matrix in chain._filter._matrices.values()], "differ"),
        (lambda chain: setattr(chain, "accumulates", False), "covariance differs"),
    ],
    ids=["filter", "covariance"],
)
def test_a_device_that_computes_something_else_is_found_out(spoil, words):
    theirs = TorchBroadband(session(), settings(), RATE, CHANNELS, "cpu")
    spoil(theirs.chain)
    assert words in str(compare(theirs, Broadband(session(), settings(), RATE, CHANNELS), session(), RATE))


def test_thresholds_of_another_kind_are_found_out():
    theirs = TorchBroadband(session(), settings(threshold=4.0), RATE, CHANNELS, "cpu")
    assert "spikes differ" in str(compare(theirs, Broadband(session(), settings(), RATE, CHANNELS), session(), RATE))


def test_a_gpu_that_disagrees_is_not_used_and_an_error_where_it_was_asked_for(monkeypatch):
    monkeypatch.setattr("neuroloop.front_ends.choose_device", lambda requested, **size: "cuda")
    monkeypatch.setattr(check, "disagreement", lambda *given: "spikes differ by 3.00%")
    assert make_front_end(session(device="auto"), RATE, CHANNELS).device == "cpu"
    with pytest.raises(ConfigError, match=r"computes what the CPU does: spikes differ by 3\.00%"):
        make_front_end(session(device="cuda"), RATE, CHANNELS)


def test_an_error_of_the_device_is_a_disagreement(monkeypatch):
    def fail(*given):
        raise RuntimeError("CUDA error: out of memory\nmore")

    monkeypatch.setattr(check, "TorchBroadband", fail)
    assert disagreement(session(), settings(), RATE, CHANNELS) == "CUDA error: out of memory"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_an_error_where_it_was_asked_for():
    with pytest.raises(ConfigError, match="device: expected a CUDA GPU, found"):
        make_front_end(session(device="cuda"), RATE, CHANNELS)
