"""Session processes that are killed while they record; the long form is `python -m tests.benchmarks kills`."""

import asyncio

import pytest

pytest.importorskip("pyxdf")

from tests.benchmarks.kills import ALLOWED_S, Moment, kill_some


def test_what_killed_sessions_recorded_is_whole_but_for_the_last_moment_and_is_replayed(tmp_path):
    moments = [Moment(0.05, of_first_bin=False), Moment(0.3, of_first_bin=True), Moment(0.9, of_first_bin=True)]
    found = asyncio.run(kill_some(tmp_path, moments, at_once=3, channels=4, rate=15_000))
    assert [one.wrong for one in found] == [[], [], []]
    assert [one.lost_samples_s < ALLOWED_S for one in found[1:]] == [True, True]
    assert [one.samples >= 300 * one.predictions > 0 for one in found[1:]] == [True, True]
    assert [one.replayed >= one.predictions for one in found[1:]] == [True, True]
