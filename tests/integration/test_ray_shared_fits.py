"""Fits that two nodes of a real Ray cluster share."""

import asyncio
import json

import numpy as np
import pytest

from neuroloop.errors import ModelError
from neuroloop.training.executor import Died, LocalExecutor
from neuroloop.training.messages import Parted
from neuroloop.training.request import FitRequest

ray = pytest.importorskip("ray")

from tests.integration.test_ray_fits import ANYWHERE, Job  # noqa: E402

from neuroloop.training.ray_executor import RayExecutor  # noqa: E402
from neuroloop.training.ray_shared import Lost, raise_reason  # noqa: E402

pytestmark = pytest.mark.slow

GRAPH = {"kind": "clusters", "clusters": [[0, 1, 2, 3], [4, 5, 6, 7]]}


def make_job(folder, **training):
    """Of a GSNN with pathways, whose losses look at a batch as a whole."""
    labels = np.arange(120) % 3
    tuning = np.random.default_rng(6).gamma(2.0, 5.0, (3, 8))
    rates = np.random.default_rng(5).poisson(tuning[labels]).astype(np.float32)
    settings = {"graph": GRAPH, "training": {"epochs": 8, "batch": 20, **training}}
    return Job(folder, {"trials": rates, "labels": labels}, kind="gsnn", settings=settings)


def test_a_fit_that_two_nodes_share_is_the_fit_of_one_process_but_for_rounding(cluster, tmp_path):
    alone, shared = make_job(tmp_path / "alone"), make_job(tmp_path / "shared", workers=2)
    ours, theirs = alone.fit(LocalExecutor()), shared.fit(RayExecutor(ANYWHERE))
    for name, array in ours.items():
        np.testing.assert_allclose(theirs[name], array, rtol=1e-3, atol=1e-4, err_msg=name)
    ((_, nodes),) = shared.starts
    assert len(set(nodes.split(", "))) == 2
    assert [one.progress for one in shared.heard] == [one.progress for one in alone.heard]
    result = json.loads((shared.folder / "result.json").read_bytes())
    assert (result["training"]["settings"]["workers"], result["training"]["seed"]) == (2, 0)


def test_a_shared_fit_one_of_whose_nodes_is_killed_goes_on_from_its_checkpoint(cluster, tmp_path):
    job = make_job(tmp_path / "job", workers=2, epochs=100_000, patience=100_000)

    async def test():
        task = asyncio.create_task(job.fitting(RayExecutor(ANYWHERE)))
        await job.until((job.folder / "checkpoint.safetensors").exists, task)
        cluster.kill(job.starts[0][1].split(", ")[1])  # that of the second process
        await job.until(lambda: any(one.type == "resumed" for one in job.heard), task)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    asyncio.run(test())
    assert [one.type for one in job.heard if one.type != "progress"] == ["moved", "resumed"]
    assert len(job.starts) == 2
    assert not ray.util.placement_group_table() or all(
        group["state"] == "REMOVED" for group in ray.util.placement_group_table().values()
    )


@pytest.mark.parametrize(
    ("errors", "expected", "words"),
    [
        ([Parted("no answer"), Lost("node a was lost")], Lost, "node a was lost"),
        ([Parted("no answer"), ModelError("two classes")], ModelError, "two classes"),
        ([Parted("no answer"), Died("exit code -9")], Died, "exit code -9"),
        ([Parted("no answer"), Parted("nor here")], Lost, "lost each other: no answer"),
    ],
)
def test_of_all_that_end_a_shared_fit_the_reason_is_told(errors, expected, words):
    with pytest.raises(expected, match=words):
        raise_reason(errors)


def test_a_fit_for_more_processes_than_the_cluster_has_room_for_is_refused(cluster):
    asked = {"name": "m", "kind": "gsnn", "source": {"arrays": "a.npz"}, "settings": {"training": {"workers": 30}}}
    with pytest.raises(ModelError, match=r"training.workers: 30 of 0.5 CPUs each \(ray.fit.num_cpus\) are more than"):
        RayExecutor(ANYWHERE).check(FitRequest.model_validate(asked))
