"""Fits that two processes of this machine share."""

import json
import multiprocessing
import os
import runpy
import shutil
import socket
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load
from tests.processes import wait_until
from tests.unit.training.test_lfr import make_sweeps

from neuroloop.errors import ModelError
from neuroloop.training.executor import LocalExecutor
from neuroloop.training.messages import PARTED, parse
from neuroloop.training.request import FitRequest

pytestmark = pytest.mark.slow

PATIENCE_S = 150
FORKED = str(Path(__file__).with_name("forked_fit.py"))
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    [
        "neuroloop.training.__main__",  # first: it sees to it that libraries take one thread
        "neuroloop.training.gsnn",
        "neuroloop.training.lfr",
        "neuroloop.training.meeting",
        "torch._dynamo",  # an optimiser's first step imports it
    ]
)
LFR = {
    "bins": 6,
    "width": 16,
    "kernel": 2,
    "training": {
        "pretrain_epochs": 3,
        "tune_epochs": 3,
        "stride": 2,
        "targets": 4,
        "projectors": {"count": 8, "outputs": 16},
        "head_epochs": 5,
        "batch": 50,
    },
}
GSNN = {
    "graph": {"kind": "clusters", "clusters": [[0, 1, 2, 3], [4, 5, 6, 7]]},
    "training": {"epochs": 4, "batch": 13, "dissimilar": [["0", "1"]], "lambda_dis": 0.1, "learn_phi": True},
}
KINDS = {"lfr": LFR, "gsnn": GSNN, "gsnn_continuous": GSNN}


def make_job(folder, kind, **training):
    folder.mkdir()
    settings = KINDS[kind] | {"training": KINDS[kind]["training"] | training}
    asked = {"name": "m", "kind": kind, "source": {"arrays": "a.npz"}, "settings": settings}
    (folder / "job.json").write_text(json.dumps({"id": folder.name, "request": asked}))
    data = make_sweeps(40)
    if kind == "gsnn_continuous":
        data = {"rates": data["rates"], "targets": data["rates"][:, :2] - data["rates"][:, 2:4]}
    np.savez(folder / "input.npz", **data)
    return folder


class Process:
    """A fit process and what it writes, in files beside its job's folder. It is forked; see `forked_fit`."""

    def __init__(self, folder, *arguments):
        self._said, self._errors = (folder.with_name(f"{folder.name}.{name}") for name in ("out", "err"))
        given = folder.with_name(f"{folder.name}.in")
        for file in (self._said, self._errors):
            file.write_bytes(b"")
        given.unlink(missing_ok=True)
        os.mkfifo(given)
        self._input = given.open("rb+", buffering=0)  # it ends when this is closed, as when the tests are killed
        fit = {"streams": [str(given), str(self._said), str(self._errors)], "arguments": [*arguments, str(folder)]}
        self.process = FORKS.Process(target=runpy.run_path, args=(FORKED, {"fit": fit}))
        self.process.start()

    @property
    def told(self):
        return [message for line in self._said.read_bytes().splitlines() if (message := parse(line))]

    @property
    def errors(self):
        return self._errors.read_text()

    def end(self):
        """The exit code, when it has ended by itself."""
        self.process.join(PATIENCE_S)
        self._input.close()
        return self.process.exitcode

    def kill(self):
        self.process.kill()
        self.end()


def start_shared(folder):
    """Two processes, each with a folder of its own, as on two machines."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
    other = shutil.copytree(folder, folder.with_name(folder.name + "-other"))
    shared = [(one, "--meet", place, "--rank", str(rank), "--of", "2") for rank, one in enumerate((folder, other))]
    return [Process(*one) for one in shared]


@pytest.mark.parametrize("kind", ["lfr"])  # gsnn: below, and on a cluster in test_ray_shared_fits
def test_a_fit_by_two_processes_is_the_fit_by_one_but_for_rounding(tmp_path, kind):
    alone, shared = make_job(tmp_path / "alone", kind), make_job(tmp_path / "shared", kind, workers=2)
    processes = [Process(alone), *start_shared(shared)]
    assert [process.end() for process in processes] == [0, 0, 0], [process.errors for process in processes]
    ours, theirs = (load((folder / "weights.safetensors").read_bytes()) for folder in (alone, shared))
    for name, array in ours.items():
        np.testing.assert_allclose(theirs[name], array, rtol=1e-3, atol=1e-4, err_msg=name)
    ours, theirs = (json.loads((folder / "result.json").read_bytes()) for folder in (alone, shared))
    assert theirs["training"]["settings"]["workers"] == 2
    assert theirs["training"]["seed"] == ours["training"]["seed"] == 0
    assert theirs["metrics"] == pytest.approx(ours["metrics"], abs=1e-3)
    curves = [[(one.progress, one.loss) for one in process.told] for process in processes]
    np.testing.assert_allclose(np.array(curves[1], float), np.array(curves[0], float), rtol=1e-3)
    assert curves[2] == []
    assert not (tmp_path / "shared-other" / "weights.safetensors").exists()
    assert not (tmp_path / "shared-other" / "checkpoint.safetensors").exists()


def test_a_process_that_loses_the_other_ends_and_both_go_on_from_the_checkpoint(tmp_path):
    folder = make_job(tmp_path / "shared", "gsnn", workers=2, epochs=100_000, patience=100_000)
    first, second = start_shared(folder)
    wait_until((folder / "checkpoint.safetensors").exists, "a checkpoint")
    second.kill()
    assert first.end() == PARTED, first.errors
    assert "a process of the fit has gone" in first.errors
    shutil.rmtree(tmp_path / "shared-other")
    again = start_shared(folder)
    wait_until(lambda: len(again[0].told) > 1, "its messages")
    assert again[0].told[0].type == "resumed"
    for process in again:
        process.kill()


def test_a_fit_that_is_to_be_shared_is_refused_on_this_machine_alone(tmp_path):
    asked = {"name": "m", "source": {"arrays": "a.npz"}, "settings": {"training": {"workers": 2}}}
    for kind in KINDS:
        with pytest.raises(ModelError, match=r"training.workers: 2 share a fit on a Ray cluster alone \(engine: ray\)"):
            LocalExecutor().check(FitRequest.model_validate(asked | {"kind": kind}))
    LocalExecutor().check(FitRequest.model_validate(asked | {"kind": "lfr", "settings": {}}))
    process = Process(make_job(tmp_path / "job", "gsnn", workers=2))
    assert process.end() == 1
    (failed,) = process.told
    assert failed.detail == "training.workers: expected 2 processes that share the fit, got 1; engine: ray"
