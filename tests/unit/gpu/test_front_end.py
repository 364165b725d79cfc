"""The broadband front end on a device beside the one on the CPU, through the pipeline and with its weights learned."""

import numpy as np
import pytest
import torch

from neuroloop.config import parse_session
from neuroloop.gpu.front_end import TorchBroadband
from neuroloop.pipeline import Pipeline
from neuroloop.session.rereferencing import Rereferencing

torch.set_num_threads(1)

RATE, CHANNELS = 10_000.0, 6
LABELS = tuple(f"c{i}" for i in range(CHANNELS))


class Loop:
    """A pipeline and what exchanges its weights, as the real loop runs them."""

    def __init__(self, device, **rereference):
        given = {
            "name": "s",
            "stream": {"name": "x"},
            "classes": ["a", "b"],
            "front_end": {"kind": "broadband", "band": [300, 3000], "calibration_s": 0.1},
            "rereference": {"clusters": [["c0", "c2", "c4"], ["c5", "c3", "c1"]], "update_every_s": 0.2} | rereference,
        }
        session = parse_session(given)
        self.pipeline = Pipeline(session, RATE, LABELS)
        if device is not None:
            front_end = TorchBroadband(session, session.front_end, RATE, LABELS, device)
            self.pipeline.front_end = front_end
        self.pipeline.warm_up()
        self.weights = None
        if self.pipeline.front_end.rereference is not None:
            self.weights = Rereferencing(
                self.pipeline.front_end.rereference,
                session.rereference,
                nominal_srate=RATE,
                block_samples=self.pipeline.block_samples,
                scale=self.pipeline.front_end.scale,
            )

    def run(self, samples, missing=()):
        """Rates and reasons of all bins; blocks whose numbers are in `missing` lack samples."""
        pipeline, size, outcomes = self.pipeline, self.pipeline.block_samples, []
        for number, block in enumerate(samples.reshape(-1, size, CHANNELS)):
            pipeline.step(block, number not in missing)
            if (number + 1) * size % pipeline.bin_samples == 0:
                outcome = pipeline.finish_bin()
                outcomes.append((outcome.values.copy(), outcome.rates.copy(), outcome.reason))
            pipeline.accumulate()
            if self.weights is not None:
                if self.weights._update is not None:
                    self.weights._update.result(10)
                list(self.weights.after_block(number))
        return outcomes

    def end(self):
        if self.weights is not None:
            self.weights.end()


def voltage(seconds, seed=0):
    rng = np.random.default_rng(seed)
    samples = int(seconds * RATE)
    data = 2 * rng.standard_normal((samples, 1)) + rng.standard_normal((samples, CHANNELS)) + 200
    data[50::100, 1] -= 40
    return data.astype(np.float32)


@pytest.fixture
def loops():
    made = []

    def make(*arguments, **options):
        made.append(Loop(*arguments, **options))
        return made[-1]

    yield make
    for loop in made:
        loop.end()


def assert_same(ours, theirs):
    assert [reason for *_, reason in ours] == [reason for *_, reason in theirs]
    for (values, rates, _), (expected, expected_rates, _) in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(values, expected)
        np.testing.assert_allclose(rates, expected_rates, rtol=1e-6)


@pytest.mark.parametrize(
    "rereference", [{}, {"mode": "forgetting", "half_life_s": 0.5}, {"mode": "frozen"}, {"enabled": False}]
)
def test_a_session_gives_the_same_bins_on_either_device(loops, device, rereference):
    ours, theirs = loops(device, **rereference), loops(None, **rereference)
    data = voltage(2.0)
    assert_same(ours.run(data, missing=(60, 61, 90)), theirs.run(data, missing=(60, 61, 90)))
    np.testing.assert_allclose(ours.pipeline.front_end.sigma, theirs.pipeline.front_end.sigma, rtol=1e-4)
    if ours.weights is None:
        return
    assert ours.weights.weights.version == theirs.weights.weights.version
    np.testing.assert_allclose(ours.weights.weights.matrix, theirs.weights.weights.matrix, atol=1e-4)


def test_weights_that_are_uploaded_come_into_use_on_either_device(loops, device):
    ours, theirs = loops(device), loops(None)
    data, matrix = voltage(2.0), 0.2 * np.random.default_rng(1).standard_normal((CHANNELS, CHANNELS))
    np.fill_diagonal(matrix, 0)
    results = []
    for loop in (ours, theirs):
        first = loop.run(data[:10_000])
        loop.weights.load(matrix, None, lambda outcome: None)
        loop.weights._jobs[0].result.result(10)
        results.append(first + loop.run(data[10_000:]))
    assert ours.weights.mode == "frozen"
    assert_same(*results)


def test_after_a_reset_the_bins_are_the_same_too(loops, device):
    ours, theirs = loops(device), loops(None)
    results = []
    for loop in (ours, theirs):
        loop.run(voltage(0.5))
        loop.pipeline.reset()
        results.append(loop.run(voltage(0.5, seed=1)))
    assert_same(*results)


def test_a_fit_gathers_on_the_device(loops, device):
    stage = loops(device).pipeline.front_end.rereference
    stage.accumulates = False
    stage.fit_covariance = stage.new_covariance()
    chain = stage._chain
    chain.step(np.zeros((chain.block_samples, CHANNELS), np.float32), True)
    stage.accumulate()
    assert stage.fit_covariance.samples == chain.block_samples
    assert stage.covariance.samples == 0
