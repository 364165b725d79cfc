"""Which threads of a session run first."""

import os
import subprocess
import sys
import threading

import pytest

from neuroloop.session.priority import BEHIND_S, Level, Place, run_at, step_back

may_run_first = os.geteuid() == 0


def in_thread(act):
    """What `act` returns in a thread of its own, whose level is nobody else's."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(act()))
    thread.start()
    thread.join()
    return answers[0]


def level():
    return os.sched_getscheduler(0), os.sched_getparam(0).sched_priority


@pytest.mark.skipif(not may_run_first, reason="needs the right to run in real time")
def test_threads_inherit_the_level_and_leave_it_alone():
    def act():
        assert run_at(Level.LOOP)
        inherited = in_thread(level)
        left = in_thread(lambda: (step_back(Level.BESIDE), level()))
        return level(), inherited, left

    first = (os.SCHED_RR, Level.LOOP)
    assert in_thread(act) == (first, first, (Level.LOOP, (os.SCHED_OTHER, 0)))
    assert level()[0] == os.SCHED_OTHER


@pytest.mark.skipif(not may_run_first, reason="needs the right to run in real time")
def test_stepping_back_brings_no_thread_forward():
    assert in_thread(lambda: (step_back(Level.SESSION), level())) == (Level.BESIDE, (os.SCHED_OTHER, 0))


@pytest.mark.skipif(not may_run_first, reason="needs the right to run in real time")
def test_a_loop_that_is_behind_leaves_real_time_until_it_has_caught_up():
    def act():
        run_at(Level.LOOP)
        place, levels = Place(), []
        for now in (0.0, BEHIND_S, BEHIND_S + 0.01, 10.0):
            place.has_more(now)
            levels.append(level()[1])
        for now in (11.0, 11.0 + BEHIND_S):
            place.waits()
            place.has_more(now)
            levels.append(level()[1])
        return levels

    first = Level.LOOP
    assert in_thread(act) == [first, first, Level.BESIDE, Level.BESIDE, first, first]


def test_without_the_right_to_it_threads_stay_as_they_are():
    program = """
import os, resource
from neuroloop.session.priority import Level, run_at
resource.setrlimit(resource.RLIMIT_RTPRIO, (0, 0))
if os.geteuid() == 0:
    os.setuid(65534)
print(run_at(Level.LOOP), os.sched_getscheduler(0) == os.SCHED_OTHER, run_at(Level.BESIDE))
"""
    told = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert told.stdout.split() == ["False", "True", "True"]
