"""When weights are solved, and when they come into use."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from tests.processes import wait_until

from neuroloop.config import parse_session
from neuroloop.errors import Conflict, NeuroloopError, NotFound
from neuroloop.front_ends import RereferenceStage
from neuroloop.session import rereferencing
from neuroloop.session.rereferencing import Rereferencing
from neuroloop.signal.lrr import LRR, LRRSettings
from neuroloop.signal.regression import solve

RATE, BLOCK, CHANNELS = 1000.0, 50, 4
LABELS = tuple(f"c{i}" for i in range(CHANNELS))


class Loop:
    """Blocks with a strong common mode, through the stage, as the real loop sends them."""

    def __init__(self, **settings):
        given = {"name": "s", "stream": {"name": "x"}, "classes": ["a", "b"], "rereference": settings}
        session = parse_session(given)
        self.stage = RereferenceStage(session, RATE, LABELS)
        self.scales = []
        self.subject = Rereferencing(
            self.stage, session.rereference, nominal_srate=RATE, block_samples=BLOCK, scale=self.scales.append
        )
        self.random = np.random.default_rng(0)
        self.events, self.texts, self.used = [], [], []

    def block(self):
        common = self.random.standard_normal((BLOCK, 1)) * 10
        return (common + self.random.standard_normal((BLOCK, CHANNELS))).astype(np.float32)

    def run(self, blocks, change=lambda block: block, valid=True):
        for _ in range(blocks):
            block = change(self.block())
            self.out = self.stage(block, valid).copy()
            self.stage.accumulate()
            # The loop is never waited for; a test is, so that every solve ends within its period.
            if self.subject._update is not None:
                self.subject._update.result(10)
            for name, text in self.subject.after_block(len(self.used)):
                self.events.append(name)
                self.texts.append(text)
            self.used.append(self.subject.weights.version)
        return self

    def wait(self, condition):
        deadline = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < deadline
            self.run(1)


@pytest.fixture
def loop():
    made = Loop(update_every_s=0.5)
    yield made
    made.subject.end()


def test_weights_come_into_use_one_period_after_their_snapshot(loop):
    loop.run(31)
    # 10 blocks a period: the snapshot after block 10, its weights after block 20, the next after block 30.
    assert loop.used[:19] == [0] * 19
    assert loop.used[19:29] == [1] * 10
    assert loop.used[29:] == [2, 2]
    assert loop.events == ["rereference_swapped"]
    assert loop.out.std() < 3


def test_the_thresholds_are_told_the_change_of_amplitude(loop):
    loop.run(20)
    (factor,) = loop.scales
    assert factor.shape == (CHANNELS,)
    assert np.all((factor > 0.05) & (factor < 0.3))


def test_too_few_samples_give_no_weights_and_say_so():
    loop = Loop(update_every_s=0.5, min_samples_per_channel=1000).run(40)
    described = loop.subject.describe()
    assert loop.used[-1] == 0
    assert described["ready"] is False
    assert "4000 are needed" in described["warnings"][0]
    loop.subject.end()


def test_uploaded_weights_come_into_use_at_the_next_block_and_freeze_the_mode(loop):
    matrix = np.full((4, 4), 0.25)
    np.fill_diagonal(matrix, 0)
    told = []
    loop.run(5)
    loop.subject.load(matrix, None, told.append)
    loop.wait(lambda: told)
    np.testing.assert_array_equal(loop.subject.weights.matrix, matrix)
    assert loop.subject.describe()["mode"] == "frozen"
    assert loop.subject.describe()["source"] == "upload"
    loop.run(40)
    assert loop.used[-1] == 1


def test_uploaded_weights_in_another_order_of_channels_are_put_in_ours(loop):
    matrix = np.arange(16.0).reshape(4, 4)
    np.fill_diagonal(matrix, 0)
    order = [2, 0, 3, 1]
    told = []
    loop.subject.load(matrix[np.ix_(order, order)], [LABELS[i] for i in order], told.append)
    loop.wait(lambda: told)
    np.testing.assert_array_equal(loop.subject.weights.matrix, matrix)


@pytest.mark.parametrize(
    ("matrix", "channels", "words"),
    [
        (np.zeros((5, 4)), None, r"expected \(4, 4\).*got \(5, 4\); upload W, not the affine form"),
        (np.full((4, 4), np.nan), None, "not finite"),
        (np.eye(4), None, "I - W"),
        (np.zeros((4, 4)), ["c0", "c1", "c2", "other"], "other"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_the_old_ones_stay(loop, matrix, channels, words):
    told = []
    loop.subject.load(matrix, channels, told.append)
    loop.wait(lambda: told)
    assert isinstance(told[0], NeuroloopError)
    with pytest.raises(NeuroloopError, match=words):
        raise told[0]
    assert loop.subject.weights.version == 0
    assert loop.subject.mode == "incremental"


def test_a_fit_gathers_its_own_samples_and_freezes(loop):
    told = []
    loop.subject.set_mode("frozen", None, None)
    assert loop.subject.start_fit(1.0, 0.0, told.append) == "rereference-1"
    with pytest.raises(Conflict, match="one is running"):
        loop.subject.start_fit(1.0, None, told.append)
    loop.run(19)
    assert told == []
    loop.wait(lambda: told)
    assert told[0].report["samples"] == 1000
    assert told[0].version == 1
    assert loop.subject.start_fit(1.0, None, told.append) == "rereference-2"


def test_a_fit_on_too_few_samples_fails_and_keeps_the_weights(loop):
    told = []
    loop.subject.set_mode("frozen", None, None)
    loop.subject.start_fit(0.05, None, told.append)
    loop.wait(lambda: told)
    assert "80 are needed" in str(told[0])
    assert loop.used[-1] == 0


def test_forgetting_sets_the_half_life_and_frozen_stops_updating(loop):
    loop.subject.set_mode("forgetting", 2.0, 0.5)
    assert loop.stage.covariance.half_life_samples == 2000
    assert loop.subject.describe()["ridge"] == 0.5
    loop.run(25)
    version = loop.used[-1]
    loop.subject.set_mode("frozen", None, None)
    samples = loop.stage.covariance.samples
    loop.run(40)
    assert loop.used[-1] == version
    assert loop.stage.covariance.samples == samples


def test_the_weights_of_a_recent_prediction_can_be_fetched(loop):
    loop.run(60)
    assert loop.subject.recent(None).version == loop.used[-1]
    assert loop.subject.recent(2).version == 2
    with pytest.raises(NotFound, match="version 99 is not kept; there are 0 to"):
        loop.subject.recent(99)


def test_the_common_average_is_a_cold_start():
    loop = Loop(initial="car", mode="frozen").run(3)
    assert loop.out.std() < 3
    assert loop.subject.describe()["source"] == "initial"
    loop.subject.end()


def test_whoever_waits_is_told_when_the_session_stops(loop):
    told = []
    loop.subject.start_fit(60.0, None, told.append)
    loop.subject.end()
    assert isinstance(told[0], Conflict)


@pytest.mark.parametrize(
    "chosen",
    [
        {},
        {"ridge": 0.5},
        {"ridge": 0},
        {"ridge_absolute": 1e5},
        {"center": False},
        {"clusters": 2},
        {"clusters": [["c3", "c0"], ["c1"]], "min_samples_per_channel": 1},
        {"clusters": [[0, 1], [2]], "min_cluster": 3},
    ],
    ids=str,
)
def test_a_session_solves_what_the_library_solves_with_the_same_settings(chosen):
    loop = Loop(update_every_s=0.5, **chosen).run(20, change=lambda block: block + np.float32(30))
    library = LRR(LABELS, LRRSettings(**chosen))
    same = Loop()
    for _ in range(10):
        library.partial_fit(same.block() + np.float32(30))
    assert loop.subject.weights.version == 1
    np.testing.assert_allclose(loop.subject.weights.matrix, library.weights.matrix, rtol=1e-4, atol=1e-5)
    report = loop.subject.weights.report
    assert report["samples"] == library.report["samples"] == 500
    for told, expected in zip(report["clusters"], library.report["clusters"], strict=True):
        assert told["condition"] == (expected["condition"] and pytest.approx(expected["condition"], rel=1e-3))
    loop.subject.end()
    same.subject.end()


def test_the_weights_are_solved_in_a_thread_of_their_own(loop, monkeypatch):
    threads = []

    def watched(*args, **options):
        threads.append(threading.current_thread())
        return solve(*args, **options)

    monkeypatch.setattr(rereferencing, "solve", watched)
    loop.run(20)
    assert threads
    assert all(thread is not threading.current_thread() for thread in threads)


def test_a_dead_channel_is_named_to_whoever_asks_and_passes_unchanged(loop):
    def kill(block):
        block[:, 2] = 3.0
        return block

    loop.run(21, kill)
    assert loop.subject.describe()["dead"] == ["c2"]
    assert "near-constant channels, left out and passed through: c2" in loop.texts
    assert (loop.out[:, 2] == 3.0).all()
    assert loop.out[:, [0, 1, 3]].std() < 3


def test_after_a_common_average_reference_the_rank_is_told_to_whoever_asks(loop):
    loop.run(21, lambda block: block - block.mean(axis=1, keepdims=True))
    assert "cluster 0: rank 3 of 4 channels" in loop.subject.describe()["warnings"][0]
    assert np.isfinite(loop.out).all()


def test_blocks_with_missing_samples_are_answered_and_not_learned_from(loop):
    loop.run(10)
    samples = loop.stage.covariance.samples
    loop.run(10, lambda block: np.full_like(block, np.nan), valid=False)
    assert loop.stage.covariance.samples == samples == 500
    loop.run(30)
    assert np.isfinite(loop.subject.weights.matrix).all()
    assert loop.subject.describe()["ready"] is True


def test_condition_and_effective_samples_are_told(loop):
    described = loop.run(21).subject.describe()
    assert described["samples"] == 1050
    assert 10 < described["condition"] < 1e4


def test_nothing_is_compiled_while_the_loop_runs():
    program = """
import numpy as np
from tests.unit.session.test_rereferencing import Loop
from neuroloop.signal import regression
for chosen in ({}, {"center": False}, {"ridge": 0}):
    loop = Loop(update_every_s=0.5, **chosen)
    kernels = (regression._scale_to_unit, regression._weights_in_place)
    before = [len(kernel.signatures) for kernel in kernels]
    loop.run(21)
    assert loop.used[-1] == 1
    assert before == [len(kernel.signatures) for kernel in kernels] == [2, 1], before
    loop.subject.end()
"""
    root = Path(__file__).parents[3]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=root)


@pytest.mark.parametrize("blocks", [0, 3, 9, 10, 25, 30])
def test_another_one_with_its_state_uses_the_same_weights_from_the_same_blocks_on(blocks):
    one, other = Loop(update_every_s=0.5), Loop(update_every_s=0.5)
    one.run(blocks)
    if one.subject._update is not None:
        one.subject._update.result(10)
    assert not one.subject.is_busy
    other.stage.apply.set_weights(one.subject.weights)
    other.subject.load_state_dict(one.subject.state_dict())
    other.random = np.random.default_rng(0)
    for _ in range(blocks):
        other.block()  # those before
    other.used = one.used.copy()
    for _ in range(25):
        np.testing.assert_array_equal(one.run(1).out, other.run(1).out)
        np.testing.assert_array_equal(one.subject.weights.matrix, other.subject.weights.matrix)
    assert one.used == other.used
    assert len(set(one.used[blocks:])) > 1
    for scale, again in zip(reversed(one.scales), reversed(other.scales), strict=False):
        np.testing.assert_array_equal(scale, again)
    one.subject.end()
    other.subject.end()


def test_what_is_being_solved_or_gathered_keeps_it_busy(loop):
    loop.run(12)
    loop.subject.start_fit(0.3, None, lambda outcome: None)
    assert loop.subject.is_busy
    loop.run(40)
    wait_until(lambda: not loop.subject.is_busy)
