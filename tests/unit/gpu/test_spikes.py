import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloop.gpu.spikes import PLAN_COLUMNS, TorchCrossings, most_stretches
from neuroloop.gpu.torch_device import TorchDevice
from neuroloop.signal.lanes import ABOVE, KEPT, TOTAL, WAIT
from neuroloop.signal.spikes import ThresholdCrossings

torch.set_num_threads(1)


class Detector:
    """Runs a detector over blocks, as the chain does; the samples are the spikes' alone."""

    def __init__(self, n, channels, srate, **options):
        self.device = TorchDevice("cpu")
        self.crossings = TorchCrossings(self.device, n, channels, srate, **options)
        self.plan = np.zeros((self.crossings.stretches, PLAN_COLUMNS), np.float32)

    def __call__(self, block):
        self.crossings.spikes.zero_()
        self.crossings.plan(self.plan)
        samples = torch.from_numpy(block)
        if not self.crossings.calibrated:
            self.crossings.calibrate(samples)
        self.crossings.step(samples, torch.from_numpy(self.plan))
        return self.crossings.spikes.numpy().copy()


@given(
    st.lists(st.lists(st.sampled_from([0.3, -0.2, 1.0, -9.0]), min_size=40, max_size=40), min_size=3, max_size=3),
    st.integers(0, 15),
    st.sampled_from([1, 4, 5, 8, 10, 20, 40]),
    st.integers(1, 30),
)
@settings(max_examples=80)
def test_any_pattern_of_crossings_is_counted_as_on_the_cpu(patterns, refractory, n, calibration):
    """At 1 kHz a period of sigma is 10 samples, so stretches, tiles and blocks meet in all ways."""
    data = np.array(patterns, np.float32).T
    options = {"refractory_ms": refractory, "calibration_s": calibration / 1000, "half_life_s": 0.05}
    ours, theirs = Detector(n, 3, 1000.0, **options), ThresholdCrossings(3, 1000.0, **options)
    for block in np.ascontiguousarray(data).reshape(-1, n, 3):
        assert ours(block).tolist() == theirs(block).tolist()
    one, other = ours.crossings.state_dict(), theirs.state_dict()
    assert one["seen"] == other["seen"]
    assert one["phase"] == other["phase"]
    rows = {"total": TOTAL, "kept": KEPT, "wait": WAIT, "above": ABOVE}
    np.testing.assert_allclose(one["sigma"], other["sigma"], rtol=1e-5, atol=1e-6)
    for name, row in rows.items():
        np.testing.assert_allclose(one[name], other["channels"][row], rtol=1e-5, atol=1e-6)


@given(st.lists(st.booleans(), min_size=300, max_size=300), st.integers(3, 40))
@settings(max_examples=30)
def test_no_two_spikes_are_nearer_than_the_refractory_period_and_none_is_left_out(below, refractory):
    """A greedy walk through the crossings: the words of the specification."""
    detector = Detector(300, 1, 30_000.0, refractory_ms=refractory / 30, calibration_s=0.01, half_life_s=1e9)
    detector(np.where(np.arange(300) % 2, 1.0, -1.0).astype(np.float32)[:, None])
    counts = detector(np.where(below, -20.0, 1.0).astype(np.float32)[:, None])
    last, expected = -refractory, 0
    for t in range(1, 300):
        if below[t] and not below[t - 1] and t - last >= refractory:
            last, expected = t, expected + 1
    assert counts[0] == expected


@pytest.mark.parametrize(
    ("block_samples", "period", "calibration"), [(300, 300, 30_000), (60, 300, 30_000), (250, 300, 30_000), (7, 10, 13)]
)
def test_no_block_touches_more_stretches_than_planned_and_some_block_that_many(block_samples, period, calibration):
    touched = set()
    for block in range(2 * calibration // block_samples + 2 * period):
        first, last = block * block_samples - calibration, (block + 1) * block_samples - 1 - calibration
        if last >= 0:
            touched.add(last // period - max(first, 0) // period + 1)
    assert max(touched) == most_stretches(block_samples, period, calibration)


def test_a_plan_ends_each_period_once():
    crossings = TorchCrossings(TorchDevice("cpu"), 7, 1, 1000.0, calibration_s=0.013)
    ends, plan = [], np.zeros((crossings.stretches, PLAN_COLUMNS), np.float32)
    for block in range(30):
        crossings.plan(plan)
        ends += [block * 7 + int(stop) for _, stop, complete in plan if complete]
        if not crossings.calibrated:
            crossings.calibrate(torch.zeros(7, 1))
    assert ends == list(range(23, 210, 10))
