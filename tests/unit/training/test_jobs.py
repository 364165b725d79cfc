import asyncio
import os
import sys
from pathlib import Path

import pytest

from neuroloop.errors import Conflict, ModelError, NotFound, Unavailable
from neuroloop.training.executor import LocalExecutor
from neuroloop.training.job import Job, load
from neuroloop.training.jobs import FitJobs
from neuroloop.training.request import FitRequest

PROGRAM = (sys.executable, str(Path(__file__).with_name("fake_fit.py")))
PATIENCE_S = 60


def request(**settings):
    return FitRequest.model_validate(
        {"name": "reach", "kind": "maxrate", "source": {"arrays": "a.npz"}, "settings": settings, "min_metric": 0.8}
    )


async def gather(folder):
    (folder / "input.npz").write_bytes(b"data")


class Server:
    """Fit jobs in a folder, with a registry that remembers what it was told."""

    def __init__(self, folder, **options):
        self.registered, self.activated = [], []
        self.folder = folder
        self.jobs = FitJobs(folder, self.register, self.activate, LocalExecutor(PROGRAM), **options)

    def register(self, name, weights, document):
        self.registered.append((name, weights, document))
        return len(self.registered)

    async def activate(self, job):
        self.activated.append(job.id)
        return f"{job.activate} from bin 7 on"

    async def submit(self, activate="none", gather=gather, beforehand=True, **settings):
        return await self.jobs.submit(request(**settings), gather, beforehand=beforehand, activate=activate, by="ann")

    async def until(self, job, *states, progress=0.0):
        async with asyncio.timeout(PATIENCE_S):
            while (now := self.jobs[job.id]).state not in states or now.progress < progress:
                await asyncio.sleep(0.01)
        return now

    async def ended(self, job):
        return await self.until(job, "done", "failed", "cancelled", "interrupted")


def run(test):
    asyncio.run(test)


def test_a_job_goes_from_its_data_to_a_registered_version_with_its_lineage(tmp_path):
    async def test():
        server = Server(tmp_path)
        job = await server.submit()
        assert job.state == "queued"
        job = await server.ended(job)
        assert (job.state, job.version, job.progress, job.metrics) == ("done", 1, 1.0, {"accuracy": 0.61})
        assert job.curve == [(0.25, 0.75), (0.5, 0.5)]
        name, weights, document = server.registered[0]
        assert (name, weights) == ("reach", b"weights")
        assert document["training"]["fit"] == job.id
        assert document["by"] == "ann"
        assert server.activated == []
        await server.jobs.close()
        assert load(tmp_path / job.id) == job
        assert not (tmp_path / job.id / "input.npz").exists()

    run(test())


def test_a_result_below_the_gate_is_registered_but_not_activated(tmp_path):
    async def test():
        server = Server(tmp_path)
        poor = await server.ended(await server.submit(activate="active"))
        good = await server.ended(await server.submit(activate="shadow", metrics={"accuracy": 0.9}))
        assert (poor.state, poor.version, poor.activation) == ("done", 1, "not activated: accuracy 0.61 < 0.8")
        assert (good.state, good.version, good.activation) == ("done", 2, "shadow from bin 7 on")
        assert server.activated == [good.id]

    run(test())


def test_what_the_process_says_is_wrong_and_how_it_broke_are_in_the_detail(tmp_path):
    async def test():
        server = Server(tmp_path)
        refused = await server.ended(await server.submit(refuses="two classes are needed"))
        assert (refused.state, refused.detail) == ("failed", "two classes are needed")
        broke = await server.ended(await server.submit(breaks=True))
        assert broke.state == "failed"
        assert "exit code 1:\nline 1\nno more memory" in broke.detail
        assert server.registered == []

    run(test())


def test_a_program_that_cannot_start_is_a_failed_job(tmp_path):
    async def test():
        server = Server(tmp_path)
        server.jobs = FitJobs(tmp_path, server.register, server.activate, LocalExecutor(("/nowhere/fit",)))
        job = await server.ended(await server.submit())
        assert job.state == "failed"
        assert "can't be started" in job.detail

    run(test())


@pytest.mark.parametrize("stubborn", [False, True])
def test_cancelling_ends_the_process_also_one_that_ignores_it(tmp_path, monkeypatch, stubborn):
    monkeypatch.setattr("neuroloop.training.executor.GRACE_S", 0.1)

    async def test():
        server = Server(tmp_path)
        job = await server.submit(waits=True, stubborn=stubborn)
        await server.until(job, "running", progress=0.75 if stubborn else 0.5)
        pid = job.pid
        assert (await server.jobs.cancel(job.id)).state == "cancelled"
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
        with pytest.raises(Conflict, match="is cancelled already"):
            await server.jobs.cancel(job.id)
        assert load(tmp_path / job.id).state == "cancelled"

    run(test())


def test_a_job_that_is_cancelled_while_it_starts_is_cancelled_on_disk_too(tmp_path):
    async def test():
        server = Server(tmp_path)
        job = await server.until(await server.submit(waits=True), "running")  # which is being written just now
        assert (await server.jobs.cancel(job.id)).state == "cancelled"
        assert load(tmp_path / job.id).state == "cancelled"
        assert sorted(path.name for path in (tmp_path / job.id).iterdir()) == ["job.json", "owner"]

    run(test())


def test_a_folder_that_cannot_be_written_is_told_to_whoever_asks(tmp_path):
    (tmp_path / "fits").write_text("not a folder")

    async def test():
        server = Server(tmp_path / "fits")
        await server.jobs.open()
        with pytest.raises(Unavailable, match="can't be written: Not a directory"):
            await server.submit()

    run(test())


def test_so_many_run_the_next_wait_in_order_and_more_than_that_are_refused(tmp_path):
    async def test():
        server = Server(tmp_path, running=1, waiting=2)
        first, second, third = [await server.submit(waits=True) for _ in range(3)]
        await server.until(first, "running")
        assert [second.state, third.state] == ["queued", "queued"]
        with pytest.raises(Conflict, match="3 fits run or wait already"):
            await server.submit()
        assert len(list(tmp_path.iterdir())) == 3
        await server.jobs.cancel(second.id)
        await server.jobs.cancel(first.id)
        await server.until(third, "running")
        assert second.started is None
        await server.jobs.close()

    run(test())


def test_data_that_are_refused_leave_no_job_and_no_folder(tmp_path):
    async def refuse(_folder):
        raise ModelError("arrays: 'labels' is missing")

    async def test():
        server = Server(tmp_path)
        with pytest.raises(ModelError, match="labels"):
            await server.submit(gather=refuse)
        assert server.jobs.all() == list(tmp_path.iterdir()) == []
        late = await server.ended(await server.submit(gather=refuse, beforehand=False))
        assert (late.state, late.detail) == ("failed", "arrays: 'labels' is missing")
        with pytest.raises(NotFound, match="no fit 'nothing'"):
            server.jobs["nothing"]

    run(test())


def test_a_server_that_ends_interrupts_what_runs_and_what_waits_goes_on_in_the_next(tmp_path):
    async def gather_forever(_folder):
        await asyncio.Event().wait()

    async def test():
        server = Server(tmp_path)
        running = await server.submit(waits=True)
        await server.until(running, "running", progress=0.5)
        waiting = await server.submit()
        await server.submit(gather=gather_forever, beforehand=False)
        await server.jobs.close()
        assert [job.state for job in server.jobs.all()] == ["interrupted", "queued", "interrupted"]
        after = Server(tmp_path)
        await after.jobs.open()
        assert [job.state for job in after.jobs.all()] == ["interrupted", "queued", "interrupted"]
        assert (await after.ended(after.jobs[waiting.id])).state == "done"

    run(test())


def test_a_job_whose_process_was_killed_is_resumed_from_its_checkpoint_and_says_so_in_its_lineage(tmp_path):
    async def test():
        server = Server(tmp_path)
        job = await server.ended(await server.submit(dies=True))
        assert (job.state, job.died, job.resumed) == ("failed", True, [])
        assert "exit code -9" in job.detail
        waiting = await server.jobs.resume(job.id)
        assert (waiting.state, waiting.id, waiting.request, waiting.curve) == ("queued", job.id, job.request, job.curve)
        assert (waiting.detail, waiting.started, waiting.ended, waiting.died) == (None, None, None, False)
        done = await server.ended(waiting)
        assert (done.state, done.version, done.resumed) == ("done", 1, [0.25])
        assert done.curve == [(0.25, 0.75), (0.5, 0.5)]
        assert server.registered[0][2]["training"]["resumed"] == [0.25]
        await server.jobs.close()
        assert load(tmp_path / job.id) == done
        assert not {"input.npz", "checkpoint.safetensors"} & {path.name for path in (tmp_path / job.id).iterdir()}

    run(test())


def test_a_job_that_the_end_of_the_server_interrupted_is_resumed_in_the_next_as_often_as_it_takes(tmp_path):
    async def test():
        server = Server(tmp_path)
        job = await server.submit(waits=True)
        await server.until(job, "running", progress=0.5)
        await server.jobs.close()
        assert load(tmp_path / job.id).detail == "the server ended while the fit was under way; resume it"
        assert (tmp_path / job.id / "input.npz").exists()
        for resumed in ([0.0], [0.0, 0.0]):
            server = Server(tmp_path)
            await server.jobs.open()
            job = await server.until(await server.jobs.resume(job.id), "running", progress=0.5)
            assert job.resumed == resumed
            await server.jobs.close()
        assert load(tmp_path / job.id).resumed == [0.0, 0.0]

    run(test())


def test_only_what_was_interrupted_is_resumed_and_the_refusal_says_why(tmp_path):
    async def never(_folder):
        await asyncio.Event().wait()

    async def test():
        server = Server(tmp_path, running=1, waiting=1)
        done = await server.ended(await server.submit())
        refused = await server.ended(await server.submit(refuses="two classes are needed"))
        broke = await server.ended(await server.submit(breaks=True))
        dead = await server.ended(await server.submit(dies=True))
        running = await server.until(await server.submit(waits=True), "running")
        for job, words in (
            (done, "is done; only one that was interrupted"),
            (running, "is running; only one that was interrupted"),
            (refused, "failed, and would again: two classes are needed; change it"),
            (broke, "failed, and would again: fit: its process ended with exit code 1"),
        ):
            with pytest.raises(Conflict, match=words):
                await server.jobs.resume(job.id)
        with pytest.raises(NotFound):
            await server.jobs.resume("nothing")
        early = await server.submit(gather=never, beforehand=False)
        with pytest.raises(Conflict, match="2 fits run or wait already"):
            await server.jobs.resume(dead.id)
        await server.jobs.close()
        assert load(tmp_path / early.id).detail == "the server ended before the fit had its data; ask for it again"
        after = Server(tmp_path)
        await after.jobs.open()
        with pytest.raises(Conflict, match="has no data any more, or had none yet"):
            await after.jobs.resume(early.id)
        assert [job.state for job in after.jobs.all()][3:] == ["failed", "interrupted", "interrupted"]
        await after.jobs.close()

    run(test())


def test_a_job_is_resumed_once_though_two_servers_are_asked_at_the_same_time(tmp_path):
    async def test():
        first = Server(tmp_path)
        job = await first.ended(await first.submit(dies=True))
        other = Server(tmp_path)
        await other.jobs.open()
        asked = [server.jobs.resume(job.id) for server in (first, first, other)]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        refusals = [answer for answer in answers if isinstance(answer, Conflict)]
        assert (len(refusals), {"just now" in str(one) for one in refusals}) == (2, {True})
        (resumed,) = [answer for answer in answers if isinstance(answer, Job)]
        owner = first if resumed in first.jobs.all() else other
        assert (await owner.ended(resumed)).state == "done"
        with pytest.raises(Conflict, match="is done; only"):
            await (other if owner is first else first).jobs.resume(job.id)

    run(test())


def test_two_servers_on_one_folder_leave_each_other_s_jobs_alone(tmp_path):
    async def test():
        one, other = Server(tmp_path), Server(tmp_path)
        running = await one.submit(waits=True)
        await one.until(running, "running", progress=0.5)
        waiting = await one.submit()
        await other.jobs.open()
        assert other.jobs.all() == []
        assert [running.state, waiting.state] == ["running", "queued"]
        await one.jobs.cancel(running.id)
        await one.ended(waiting)
        after = Server(tmp_path)
        await after.jobs.open()
        assert [job.state for job in after.jobs.all()] == ["cancelled", "done"]

    run(test())


def test_a_job_that_was_running_when_the_server_was_killed_is_interrupted(tmp_path):
    killed = Job(id="20260101T000000-0a", request=request(), state="running", pid=1)
    (tmp_path / killed.id).mkdir()
    killed.save(tmp_path / killed.id)
    (tmp_path / "half a job").mkdir()

    async def test():
        server = Server(tmp_path)
        await server.jobs.open()
        (job,) = server.jobs.all()
        assert (job.id, job.state, job.pid) == (killed.id, "interrupted", None)
        assert load(tmp_path / killed.id).state == "interrupted"

    run(test())
