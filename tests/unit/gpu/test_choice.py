import subprocess
import sys

import pytest
import torch

from neuroloop.errors import ConfigError
from neuroloop.gpu.choice import choose_device, cpu_seconds, gpu_seconds


def split(channels, size):
    return [list(range(first, first + size)) for first in range(0, channels, size)]


def size(channels, cluster, block_samples=300):
    return {"block_samples": block_samples, "channels": channels, "clusters": split(channels, cluster)}


@pytest.fixture
def gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)


@pytest.fixture
def no_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


@pytest.mark.usefixtures("gpu")
@pytest.mark.parametrize(
    ("session", "device"),
    [
        (size(32, 32, 10), "cpu"),
        (size(96, 96), "cpu"),
        (size(256, 32), "cpu"),
        (size(1024, 32, 60), "cpu"),
        (size(1024, 32), "cpu"),
        (size(512, 512), "cuda"),
        (size(1024, 1024), "cuda"),
        (size(4096, 32), "cpu"),
        (size(8192, 32), "cuda"),
    ],
)
def test_auto_takes_the_gpu_only_where_it_is_clearly_faster(session, device):
    assert choose_device("auto", **session) == device


@pytest.mark.usefixtures("no_gpu")
def test_auto_takes_the_cpu_where_there_is_no_gpu():
    assert choose_device("auto", **size(1024, 1024)) == "cpu"


@pytest.mark.usefixtures("gpu")
def test_what_is_asked_for_is_taken_at_any_size():
    assert choose_device("cuda", **size(8, 8)) == "cuda"
    assert choose_device("cpu", **size(1024, 1024)) == "cpu"


@pytest.mark.usefixtures("no_gpu")
@pytest.mark.parametrize(("cuda", "found"), [(None, "built without CUDA"), ("12.8", "with CUDA 12.8 can use")])
def test_a_gpu_that_is_not_there_is_an_error_that_says_what_is(monkeypatch, cuda, found):
    monkeypatch.setattr(torch.version, "cuda", cuda)
    with pytest.raises(ConfigError, match=rf"device: expected a CUDA GPU, found .*{found}.* set device to cpu or auto"):
        choose_device("cuda", **size(8, 8))


def test_the_estimate_grows_with_the_work():
    sizes = [(60, 64, split(64, 32)), (300, 64, split(64, 32)), (300, 64, split(64, 64)), (300, 128, split(128, 64))]
    for estimate in (cpu_seconds, gpu_seconds):
        assert sorted(sizes, key=lambda s: estimate(*s)) == sizes


def test_a_headset_does_not_import_pytorch():
    program = (
        "import sys; from neuroloop.gpu.choice import choose_device;"
        "assert choose_device('auto', block_samples=10, channels=32, clusters=[list(range(32))]) == 'cpu';"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60).returncode == 0
