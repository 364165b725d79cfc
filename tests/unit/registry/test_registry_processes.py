import os
import subprocess
import sys
from pathlib import Path

import pytest

from neuroloop.registry.verify import collect, verify

ROOT = Path(__file__).parents[3]


@pytest.fixture
def start(tmp_path, registry_url):
    """A function that starts a process on the test's registry; all are ended with the test."""
    started = []

    def start_one(what, seed, seconds=0.0):
        arguments = [what, str(tmp_path / "registry"), registry_url or "-", str(seed), str(seconds)]
        path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
        started.append(
            subprocess.Popen(
                [sys.executable, "-m", "tests.unit.registry.registry_program", *arguments],
                stdout=subprocess.PIPE,
                text=True,
                env=os.environ | {"PYTHONPATH": path},
            )
        )
        return started[-1]

    yield start_one
    for process in started:
        process.kill()
        process.wait()
        process.stdout.close()


def test_processes_that_race_get_a_result_or_a_reason_and_leave_the_registry_whole(registry, start):
    racers = [start("race", seed, seconds=2.0) for seed in range(2)]
    answers = [racer.communicate()[0].split() for racer in racers]
    assert [racer.returncode for racer in racers] == [0, 0]
    assert all(int(done) > 20 for done, _ in answers)
    assert verify(registry).faults == []
    for model in registry.models():
        for version in registry.versions(model.name):
            assert len(registry.weights(model.name, version.version)) == version.size


def test_a_version_that_was_acknowledged_survives_the_end_of_its_process(registry, start):
    acknowledged = []
    for seed in range(4):
        process = start("upload", seed)
        acknowledged += [process.stdout.readline().split() for _ in range(10 + seed)]
        process.kill()  # somewhere in the next upload
        acknowledged += [line.split() for line in process.stdout if line.endswith("\n")]
    report = verify(registry)
    assert report.faults == []
    assert {(v.version, v.digest) for v in registry.versions("reach")} >= {(int(n), d) for n, d in acknowledged}
    assert report.versions <= len(acknowledged) + 4
    collect(registry, min_age_s=0)
    assert verify(registry) == type(report)(versions=report.versions)
    assert len(registry.weights("reach", int(acknowledged[-1][0]))) > 0
