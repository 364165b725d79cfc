import shutil
import time
from types import SimpleNamespace

import pytest
from llvmlite import binding

from neuroloop.doctor.machine import (
    check_clock,
    check_folder,
    check_folders,
    check_gpu,
    check_kernels,
    check_real_time,
)
from neuroloop.gpu.choice import missing_cuda
from neuroloop.server_config import parse


def going(rate=1.0, step=0.0, every=0.0):
    """A clock that goes so fast beside the system's; step: added after a tenth of a second; every: its grain."""
    start = time.monotonic()

    def read():
        passed = time.monotonic() - start
        now = passed * rate + (step if passed > 0.1 else 0.0)
        return now // every * every if every else now

    return read


def test_the_clock_of_this_machine_is_well():
    assert check_clock().state in ("ok", "warning")


@pytest.mark.parametrize(
    ("behaviour", "state", "said"),
    [
        ({"step": -1.0}, "fault", "went back by"),
        ({"step": 2e5}, "fault", "ran 200000"),
        ({"rate": 1.2}, "fault", "while the system's ran"),
        ({"every": 0.004}, "warning", "has steps of 4.00 ms"),
    ],
)
def test_an_lsl_clock_that_steps_drifts_or_is_coarse_is_found_out(behaviour, state, said):
    found = check_clock(read_lsl=going(**behaviour))
    assert (found.state, said in found.found) == (state, True), found
    assert found.advice


def test_a_date_that_steps_is_a_warning():
    since = time.time()
    step = going(step=5.0)
    found = check_clock(read_wall=lambda: since + step())
    assert (found.state, "the date moved +5.0" in found.found) == ("warning", True), found


def test_a_date_before_this_software_is_a_fault():
    found = check_clock(read_wall=going())
    assert (found.state, found.found) == ("fault", "the date is 1970-01-01")


def test_a_clock_source_that_is_slow_to_read_is_named(tmp_path):
    (tmp_path / "source").write_text("hpet\n")
    found = check_clock(source=tmp_path / "source")
    assert (found.state, "hpet" in found.found) == ("warning", True)


@pytest.mark.parametrize(("allowed", "state"), [(True, "ok"), (False, "warning")])
def test_real_time_that_is_not_allowed_is_a_warning_that_says_how_to_allow_it(allowed, state):
    found = check_real_time(lambda level: allowed)
    assert found.state == state
    assert ("--ulimit rtprio=2" in found.advice) is not allowed


def test_every_folder_of_a_server_is_looked_at(tmp_path):
    found = check_folders(parse({"folder": str(tmp_path / "new")}))
    assert [finding.check for finding in found] == ["folder", "registry", "recordings"]
    assert all("can be written" in finding.found for finding in found)
    assert not (tmp_path / "new").exists()


def test_a_folder_that_cannot_be_written_is_a_fault(tmp_path):
    (tmp_path / "file").touch()
    found = check_folder("recordings", tmp_path / "file" / "recordings")
    assert (found.check, found.state) == ("recordings", "fault")
    assert "cannot be written by user" in found.found
    assert "install -d -o" in found.advice


@pytest.mark.parametrize(("free", "state"), [(5e11, "ok"), (5e9, "warning"), (5e8, "fault")])
def test_a_disk_that_is_nearly_full_is_found_out(tmp_path, monkeypatch, free, state):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=free))
    assert check_folder("recordings", tmp_path).state == state


def test_no_gpu_is_a_fault_only_for_a_session_that_asks_for_one():
    if missing_cuda() is None:
        pytest.skip("there is a CUDA GPU here")
    session = {"name": "array", "stream": {"name": "x"}, "classes": ["a", "b"]}
    assert check_gpu(parse({"sessions": [session]})).state == "ok"
    found = check_gpu(parse({"sessions": [session | {"device": "cuda"}]}))
    assert found.state == "fault"
    assert found.found.startswith("array needs a CUDA GPU; found PyTorch")


def test_kernels_for_a_processor_that_this_one_is_not_are_a_fault(monkeypatch):
    monkeypatch.setenv("NUMBA_CPU_NAME", "x86-64-v4")
    monkeypatch.setattr(binding, "get_host_cpu_features", lambda: {"avx2": True})
    found = check_kernels()
    assert found.state == "fault"
    assert "has no avx512f" in found.found
    assert "KERNEL_CPU" in found.advice
