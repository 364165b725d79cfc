"""Fit jobs on a real Ray cluster of two nodes on this machine."""

import asyncio
import io
import json
import os
import re
import signal
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load
from tests.integration.ray_cluster import gone

from neuroloop.errors import ModelError, Unavailable
from neuroloop.server_config import RayFitSettings
from neuroloop.training.executor import LocalExecutor
from neuroloop.training.jobs import FitJobs
from neuroloop.training.request import FitRequest

ray = pytest.importorskip("ray")

from neuroloop.training.ray_executor import RayExecutor  # noqa: E402

pytestmark = pytest.mark.slow

FAKE = (sys.executable, str(Path(__file__).parents[1] / "unit" / "training" / "fake_fit.py"))
PATIENCE_S = 40
ANYWHERE = RayFitSettings(num_cpus=0.5)


class Job:
    """A job's folder, and what was heard of it."""

    def __init__(self, folder, arrays=None, **request):
        folder.mkdir()
        self.folder, self.starts, self.heard = folder, [], []
        asked = {"name": "m", "kind": "maxrate", "source": {"arrays": "a.npz"}, **request}
        (folder / "job.json").write_text(json.dumps({"id": folder.name, "request": asked}))
        np.savez(folder / "input.npz", **arrays or {"rates": np.zeros(1)})

    def fit(self, executor):
        asyncio.run(self.fitting(executor))
        return load((self.folder / "weights.safetensors").read_bytes())

    async def fitting(self, executor):
        await executor.run(self.folder, lambda *placed: self.starts.append(placed), self.heard.append)

    async def until(self, condition, task):
        async with asyncio.timeout(PATIENCE_S):
            while not condition():
                assert not task.done(), task.result()
                await asyncio.sleep(0.02)


def trials():
    labels = np.arange(90) % 3
    rates = np.random.default_rng(5).poisson(np.random.default_rng(6).gamma(2.0, 5.0, (3, 12))[labels])
    return {"trials": rates.astype(np.float32), "labels": labels}


def common_mode():
    generator = np.random.default_rng(1)
    return {"samples": generator.standard_normal((4000, 6)) + 5 * generator.standard_normal((4000, 1))}


@pytest.mark.parametrize(("kind", "arrays"), [("maxrate", trials()), ("lrr", common_mode())])
def test_a_fit_on_the_cluster_equals_the_same_fit_on_this_machine(cluster, tmp_path, kind, arrays):
    here, there = (Job(tmp_path / engine, arrays, kind=kind) for engine in ("local", "ray"))
    ours, theirs = here.fit(LocalExecutor()), there.fit(RayExecutor(ANYWHERE))
    assert sorted(ours) == sorted(theirs)
    for name, array in ours.items():
        np.testing.assert_allclose(theirs[name], array, rtol=1e-9, atol=1e-12)
    local, remote = (json.loads((job.folder / "result.json").read_bytes()) for job in (here, there))
    assert remote == local
    assert there.heard == here.heard
    assert [node for _, node in here.starts] == [None]
    assert there.starts[0][1].startswith("127.0.0.1 (")


def test_what_a_fit_says_is_wrong_comes_back_from_its_node(cluster, tmp_path):
    job = Job(tmp_path / "job", trials() | {"labels": np.zeros(90, np.int64)})
    with pytest.raises(ModelError, match="two classes or more"):
        job.fit(RayExecutor(ANYWHERE))
    broken = Job(tmp_path / "broken", settings={"breaks": True})
    with pytest.raises(ModelError, match="exit code 1:\nline 1\nno more memory"):
        broken.fit(RayExecutor(ANYWHERE, FAKE))


@pytest.mark.parametrize("stubborn", [False, True])
def test_cancelling_ends_the_process_on_its_node_also_one_that_ignores_it(cluster, tmp_path, stubborn):
    async def test():
        jobs = FitJobs(tmp_path, lambda *_: 1, lambda _: None, RayExecutor(ANYWHERE, FAKE))
        asked = {"name": "m", "kind": "maxrate", "source": {"arrays": "a.npz"}}
        request = FitRequest.model_validate(asked | {"settings": {"waits": True, "stubborn": stubborn}})

        async def gather(folder):
            np.savez(folder / "input.npz", labels=np.zeros(1))

        job = await jobs.submit(request, gather, beforehand=True)
        async with asyncio.timeout(PATIENCE_S):
            while job.progress < (0.75 if stubborn else 0.5):
                await asyncio.sleep(0.02)
        assert job.node.startswith("127.0.0.1 (")
        assert os.getpriority(os.PRIO_PROCESS, job.pid) > os.getpriority(os.PRIO_PROCESS, 0)
        assert (await jobs.cancel(job.id)).state == "cancelled"
        assert gone(job.pid)
        await jobs.close()

    asyncio.run(test())


@pytest.mark.parametrize(("max_retries", "goes_on"), [(1, True), (0, False)])
def test_a_fit_whose_node_is_killed_begins_anew_on_another_or_fails_and_names_it(
    cluster, tmp_path, max_retries, goes_on
):
    settings = ANYWHERE.model_copy(update={"max_retries": max_retries})
    executor = RayExecutor(settings, FAKE)
    job = Job(tmp_path / "job", settings={"waits": True})

    async def test():
        task = asyncio.create_task(job.fitting(executor))
        await job.until(lambda: len(job.heard) == 2, task)
        pid, first = job.starts[0]
        cluster.kill(first)
        if not goes_on:
            with pytest.raises(Unavailable, match=re.escape(f"node {first} was lost")):
                await task
            return
        await job.until(lambda: len(job.heard) == 5, task)
        assert [message.type for message in job.heard].index("moved") == 2
        assert gone(pid)
        second, elsewhere = job.starts[1]
        assert elsewhere != first
        os.kill(second, signal.SIGKILL)
        with pytest.raises(ModelError, match="exit code -9"):
            await task

    asyncio.run(test())


def test_a_fit_whose_node_is_killed_goes_on_from_its_checkpoint_to_the_same_weights(cluster, tmp_path):
    epochs = {"pretrain_epochs": 150, "head_epochs": 5, "stride": 2, "targets": 4}
    settings = {"bins": 6, "width": 16, "kernel": 2, "training": epochs}
    arrays = {"rates": np.random.default_rng(5).poisson(5.0, (1120, 8)), "labels": np.arange(1120) // 14 % 2}
    here, there = (Job(tmp_path / engine, arrays, kind="lfr", settings=settings) for engine in ("local", "ray"))

    async def test():
        task = asyncio.create_task(there.fitting(RayExecutor(ANYWHERE)))
        await there.until((there.folder / "checkpoint.safetensors").exists, task)
        cluster.kill(there.starts[0][1])
        await task

    ours = here.fit(LocalExecutor())
    asyncio.run(test())
    theirs = load((there.folder / "weights.safetensors").read_bytes())
    for name, array in ours.items():
        np.testing.assert_array_equal(theirs[name], array)
    moved, resumed = (message for message in there.heard if message.type != "progress")
    assert (moved.type, resumed.type) == ("moved", "resumed")
    assert resumed.progress > 0
    told = there.heard[there.heard.index(resumed) + 1 :]
    assert told == here.heard
    assert len({node for _, node in there.starts}) == 2


def test_weights_from_several_recordings_are_those_of_one_process(cluster, tmp_path):
    generator = np.random.default_rng(1)
    pieces = [
        30 * index + generator.standard_normal((900 + 50 * index, 6)) + 5 * generator.standard_normal((1, 6))
        for index in range(2)
    ]
    names = [f"day{index}.npz" for index in range(2)]
    source = {"recordings": [{"name": name} for name in names]}
    here, there = (Job(tmp_path / engine, kind="lrr", source=source) for engine in ("local", "ray"))
    for index, samples in enumerate(pieces):
        (tmp_path / names[index]).write_bytes(recording_of(samples))
        for job in (here, there):
            (job.folder / f"recording-{index:04}.npz").symlink_to(tmp_path / names[index])
    ours, theirs = here.fit(LocalExecutor()), there.fit(RayExecutor(ANYWHERE))
    for name, array in ours.items():
        np.testing.assert_allclose(theirs[name], array, rtol=1e-9, atol=1e-12)
    local, remote = (json.loads((job.folder / "result.json").read_bytes()) for job in (here, there))
    assert remote["metrics"] == pytest.approx(local["metrics"], rel=1e-9)
    assert remote["training"] == local["training"]
    assert (remote["training"]["recordings"], remote["training"]["training_samples"]) == (2, 1480)
    assert len(there.starts) == 3  # a task for each recording, and the sum
    assert there.heard[-1].progress == 1.0


def test_a_search_over_settings_on_the_cluster_comes_to_what_it_comes_to_on_this_machine(cluster, tmp_path):
    asked = {"search": {"rule": ["sum", "mean"], "normalize": ["none", "deviation"]}}
    here, there = (Job(tmp_path / engine, trials(), **asked) for engine in ("local", "ray"))
    ours, theirs = here.fit(LocalExecutor()), there.fit(RayExecutor(ANYWHERE))
    for name, array in ours.items():
        np.testing.assert_allclose(theirs[name], array, rtol=1e-9, atol=1e-12)
    local, remote = (json.loads((job.folder / "result.json").read_bytes()) for job in (here, there))
    assert remote == local
    assert len(remote["training"]["search"]["candidates"]) == len(there.starts) == 4
    assert len({node for _, node in there.starts}) == 2
    progress = [message.progress for message in there.heard]
    assert progress == sorted(progress)
    assert progress[-1] == 1.0
    assert not list(there.folder.glob("checkpoint*"))


def recording_of(samples):
    """The NPZ file of a recording without markers."""
    file = io.BytesIO()
    one = {"run_start_sample": [0], "event_sample": [0], "event_label": [0], "label_names": ["start"]}
    described = {"fs": 250.0, "ch_names": [f"c{index}" for index in range(samples.shape[1])], **one}
    times = np.arange(len(samples)) / 250
    np.savez(file, data=samples.T, timestamps=times, **{key: np.array(value) for key, value in described.items()})
    return file.getvalue()
