import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloop.errors import ModelError
from neuroloop.models import lnp_kernels
from neuroloop.models.base import Encoder
from neuroloop.models.lnp import LNP
from neuroloop.models.lnp_parameters import LNPSettings, unit_norm
from neuroloop.models.nonlinearities import drive_of, rate, slope
from neuroloop.models.receptive_fields import lay_out

NONLINEARITIES = ("exp", "softplus", "parametrized_softplus")


def make_bank(seed=0, cells=3, frame=(1, 5, 6), scattered=False, **chosen):
    """A bank of random parameters."""
    generator = np.random.default_rng(seed)
    made = LNPSettings(**{"lags": 4, "rank": 2} | chosen)
    normal = generator.standard_normal
    given = {
        "space": normal((cells, made.rank, frame[0], *made.kernel_on(frame))),
        "time": normal((cells, made.rank, made.lags)),
        "gain": normal(cells),
        "bias": normal(cells),
        "softplus_a": generator.uniform(0.5, 2, cells),
        "softplus_b": normal(cells),
        "softplus_w": generator.uniform(0.5, 2, cells),
        "history": 0.3 * normal((cells, made.history)),
        "coupling": 0.1 * normal((cells, cells, made.coupling)) * (1 - np.eye(cells))[..., None],
        "mean": normal(frame[0]),
        "scale": generator.uniform(0.5, 2, frame[0]),
    }
    if scattered:
        given["locations"] = np.stack([generator.integers(0, size, cells) for size in frame[1:]], axis=1)
    return LNP(cells, frame, made, **given)


def make_stimulus(bank, frames=12, seed=1):
    generator = np.random.default_rng(seed)
    stimulus = generator.standard_normal((frames, *bank.frame)).astype(np.float32)
    return stimulus, generator.poisson(0.5, (frames, len(bank.cells))).astype(np.float32)


def stream(bank, stimulus, counts=None):
    """The rates of every frame, one at a time."""
    rates = []
    for t, frame in enumerate(stimulus):
        rates.append(bank.predict(frame).copy())
        if counts is not None:
            bank.observe(counts[t])
    return np.array(rates)


banks = st.builds(
    make_bank,
    seed=st.integers(0, 2**32 - 1),
    cells=st.integers(1, 9),
    frame=st.tuples(st.integers(1, 2), st.integers(1, 6), st.integers(1, 6)),
    scattered=st.booleans(),
    lags=st.integers(1, 9),
    rank=st.integers(1, 3),
    kernel=st.sampled_from([None, (3, 3), (4, 1)]),
    nonlinearity=st.sampled_from(NONLINEARITIES),
    normalize_weights=st.booleans(),
    history=st.sampled_from([0, 3]),
    coupling=st.sampled_from([0, 2]),
)


def test_a_bank_is_an_encoder():
    assert isinstance(make_bank(), Encoder)


@given(bank=banks, seed=st.integers(0, 99))
@settings(max_examples=60)
def test_frame_by_frame_gives_the_rates_of_the_whole_recording(bank, seed):
    stimulus, counts = make_stimulus(bank, seed=seed)
    whole = bank.run(stimulus, counts)
    np.testing.assert_allclose(stream(bank, stimulus, counts), whole, rtol=1e-4, atol=1e-5)
    lags = bank.settings.lags
    batch = bank.forward(stimulus.swapaxes(0, 1)[None], counts[None])[0]
    # Of the earliest spikes, the batch knows no less: both look back to its first frame.
    np.testing.assert_allclose(whole[lags - 1 :], batch, rtol=1e-5, atol=1e-6)


@given(bank=banks)
@settings(max_examples=40)
def test_single_precision_is_within_a_ten_thousandth_of_double(bank):
    stimulus, counts = make_stimulus(bank)
    single, double = bank.run(stimulus, counts), bank.run(stimulus.astype(np.float64), counts)
    assert single.dtype == np.float32
    assert double.dtype == np.float64
    assert (np.abs(single - double) <= 1e-4 * np.abs(double).max()).all()


@given(bank=banks, seed=st.integers(0, 99))
@settings(max_examples=30)
def test_the_state_comes_back_bit_for_bit_in_the_middle_of_a_stream(bank, seed):
    stimulus, counts = make_stimulus(bank, seed=seed)
    for t in range(5):
        bank.predict(stimulus[t])
        bank.adapt(counts[t])
    bank.predict(stimulus[5])
    other = LNP(bank.cells, bank.frame, bank.settings)
    other.load_state_dict(bank.state_dict())
    for name, value in bank.state_dict().items():
        assert np.array_equal(other.state_dict()[name], value), name
    for t in range(5, 11):
        bank.adapt(counts[t])
        other.adapt(counts[t])
        assert np.array_equal(bank.predict(stimulus[t + 1]), other.predict(stimulus[t + 1]))


@given(bank=banks)
@settings(max_examples=20)
def test_a_file_holds_the_bank_bit_for_bit(bank):
    back = LNP.load(bank.save())
    assert (back.cells, back.frame, back.settings) == (bank.cells, bank.frame, bank.settings)
    for name, array in bank.parameters.arrays().items():
        assert np.array_equal(getattr(back.parameters, name), array), name


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_kernels_of_zeros_give_the_rate_at_rest(nonlinearity):
    bank = LNP(2, (1, 3, 3), LNPSettings(lags=3, nonlinearity=nonlinearity), bias=[0.0, 1.0])
    bank.predict(np.ones((1, 3, 3), np.float32))
    bank.adapt([1, 0])
    rates = bank.predict(np.ones((1, 3, 3), np.float32))
    assert np.isfinite(rates).all()
    assert np.isfinite(bank.run(np.ones((4, 3, 3)))).all()


def test_a_runaway_cell_stays_finite():
    bank = LNP.for_series(1, LNPSettings(lags=1, nonlinearity="exp"), space=np.ones((1, 1, 1, 1, 1)), time=[[[1.0]]])
    assert np.isfinite(bank.predict(1e6)).all()


def test_scattered_cells_and_cells_side_by_side_take_different_ways_to_the_same_rates():
    frame, kernel, shared = (1, 40, 40), (5, 5), ("mean", "scale", "history", "coupling")
    bank = make_bank(cells=4, frame=frame, scattered=True, kernel=kernel)
    alone = [
        LNP(
            1, frame, bank.settings, **{n: a[c : c + 1] for n, a in bank.parameters.arrays().items() if n not in shared}
        )
        for c in range(4)
    ]
    assert bank._state._index.size > 0  # gathered
    assert all(cell._state._index.size == 0 for cell in alone)  # the box itself
    plain = {"mean": [0.0], "scale": [1.0]}
    bank = LNP(4, frame, bank.settings, **bank.parameters.arrays() | plain)
    stimulus, _ = make_stimulus(bank)
    together = stream(bank, stimulus)
    for c, cell in enumerate(alone):
        np.testing.assert_allclose(stream(cell, stimulus)[:, 0], together[:, c], rtol=1e-5, atol=1e-6)


def test_the_box_is_no_larger_than_what_the_kernels_see():
    layout = lay_out(np.array([[0, 0], [2, 3]]), (3, 3), (2, 10, 10))
    assert (layout.top, layout.left, layout.height, layout.width) == (0, 0, 4, 5)
    assert layout.pixels == 40
    assert (layout.index[0] == 40).sum() == 2 * 5  # beyond the border, in both channels


def test_a_window_of_frames_is_the_frames_one_after_the_other():
    bank, other = make_bank(), make_bank()
    stimulus, _ = make_stimulus(bank)
    expected = stream(bank, stimulus)[-1]
    assert np.array_equal(other.predict(stimulus), expected)


@pytest.mark.parametrize("shape", [(1, 5, 6), (5, 6)])
def test_a_frame_may_leave_out_its_axis_of_one_channel(shape):
    bank, other = make_bank(), make_bank()
    frame = make_stimulus(bank)[0][0]
    assert np.array_equal(bank.predict(frame), other.predict(frame.astype(np.float64).reshape(shape)))


def test_a_series_is_a_number_per_bin():
    given = {"space": np.ones((2, 1, 1, 1, 1)), "time": [[[1.0, 2.0]], [[0.0, -1.0]]]}
    bank = LNP.for_series(["a", "b"], LNPSettings(lags=2, normalize_weights=False, nonlinearity="exp"), **given)
    series = np.array([0.1, 0.2, 0.3])
    expected = np.exp([[0.2, -0.1], [0.1 + 0.4, -0.2], [0.2 + 0.6, -0.3]])
    np.testing.assert_allclose([bank.predict(value).copy() for value in series], expected, rtol=1e-6)
    np.testing.assert_allclose(bank.run(series), expected, rtol=1e-6)
    np.testing.assert_allclose(bank.run(series[:, None]), expected, rtol=1e-6)
    bank.reset()
    np.testing.assert_allclose(bank.predict(series), expected[-1], rtol=1e-6)


def test_a_missing_pixel_keeps_its_last_value_and_is_counted():
    bank, other = make_bank(), make_bank()
    stimulus, _ = make_stimulus(bank)
    holes, held = stimulus.copy(), stimulus.copy()
    holes[3:5, 0, 2, 2], holes[6, 0, 1, 1] = np.nan, np.inf
    held[3:5, 0, 2, 2], held[6, 0, 1, 1] = stimulus[2, 0, 2, 2], stimulus[5, 0, 1, 1]
    rates = stream(bank, holes)
    assert np.array_equal(rates, stream(other, held))
    assert bank.missing == 3
    np.testing.assert_allclose(bank.run(holes), rates, rtol=1e-4)


def test_a_pixel_missing_from_the_start_counts_as_the_mean_stimulus():
    bank, other = make_bank(), make_bank()
    frame = make_stimulus(bank)[0][0]
    holes, filled = frame.copy(), frame.copy()
    holes[0, 0, 0], filled[0, 0, 0] = np.nan, bank.parameters.mean[0]
    np.testing.assert_allclose(bank.predict(holes), other.predict(filled), rtol=1e-6)


@pytest.mark.parametrize("shape", [(1, 6, 5), (30,), (2, 5, 6, 1), (2, 1, 5, 5), ()])
def test_a_frame_of_another_shape_is_refused_and_nothing_is_taken_in(shape):
    bank = make_bank()
    before = bank.state_dict()
    with pytest.raises(ModelError, match=r"expected frames \(channels, rows, columns\) of \(1, 5, 6\).*got \("):
        bank.predict(np.zeros(shape))
    assert all(np.array_equal(value, before[name]) for name, value in bank.state_dict().items())


@pytest.mark.parametrize("kind", ["read-only", "strided", "double", "integer"])
def test_a_frame_of_another_kind_of_array_compiles_nothing(kind):
    bank, other = make_bank(), make_bank()
    frame = np.round(10 * make_stimulus(bank)[0][0])
    expected = other.predict(frame)
    compiled = len(lnp_kernels.step.signatures)
    if kind == "read-only":
        frame.setflags(write=False)
    elif kind == "strided":
        frame = np.repeat(frame, 2, axis=2)[:, :, ::2]
    else:
        frame = frame.astype(np.float64 if kind == "double" else np.int16)
    assert np.array_equal(bank.predict(frame), expected)
    assert len(lnp_kernels.step.signatures) == compiled


def test_a_stimulus_that_is_no_number_is_refused():
    with pytest.raises(ModelError, match="expected real numbers"):
        make_bank().predict(np.full((1, 5, 6), "x"))


def test_reset_forgets_the_stimulus_and_keeps_what_was_learned():
    bank = make_bank(history=2)
    stimulus, counts = make_stimulus(bank)
    for frame, spikes in zip(stimulus, counts, strict=True):
        bank.predict(frame)
        bank.adapt(spikes)
    learned = bank.parameters.arrays()
    bank.reset()
    fresh = LNP(bank.cells, bank.frame, bank.settings, **learned)
    assert np.array_equal(stream(bank, stimulus, counts), stream(fresh, stimulus, counts))


def test_a_frame_whose_spikes_nobody_reports_counts_as_silent():
    bank, other = make_bank(history=3), make_bank(history=3)
    stimulus, counts = make_stimulus(bank)
    counts[4] = 0
    for t, frame in enumerate(stimulus):
        assert np.array_equal(bank.predict(frame), other.predict(frame))
        bank.observe(counts[t])
        if t != 4:
            other.observe(counts[t])


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
@pytest.mark.parametrize("normalize", [True, False])
def test_a_learning_step_goes_down_the_gradient_of_the_poisson_loss(nonlinearity, normalize):
    chosen = {"nonlinearity": nonlinearity, "normalize_weights": normalize, "learning_rate": 1e-5}
    loud = make_bank(history=2, coupling=1, **chosen)
    # At moderate rates, so that the bound on the step, which is none of the gradient's, stays out of it.
    bank = LNP(3, loud.frame, loud.settings, **loud.parameters.arrays() | {"gain": 0.1 * loud.parameters.gain})
    stimulus, counts = make_stimulus(bank)
    stream(bank, stimulus[:-1], counts[:-1])
    before = {name: array.astype(np.float64) for name, array in bank.parameters.arrays().items()}
    bank.predict(stimulus[-1])
    bank.adapt(counts[-1])
    after = bank.parameters.arrays()

    def loss(**change):
        moved = LNP(bank.cells, bank.frame, bank.settings, **before | change)
        rates = moved.run(stimulus.astype(np.float64), counts)[-1]
        return (rates - counts[-1] * np.log(rates)).sum()

    for name, place in (
        ("gain", (0,)),
        ("bias", (1,)),
        ("time", (2, 1, 3)),
        ("history", (0, 1)),
        ("coupling", (0, 2, 0)),
    ):
        step = 1e-2
        up, down = before[name].copy(), before[name].copy()
        up[place] += step
        down[place] -= step
        gradient = (loss(**{name: up}) - loss(**{name: down})) / (2 * step)
        moved = after[name][place] - before[name][place]
        assert moved == pytest.approx(-1e-5 * gradient, rel=2e-2, abs=2e-7), name


def test_learning_online_finds_the_rates_of_a_cell_from_scratch():
    generator = np.random.default_rng(0)
    truth = LNP.for_series(
        1,
        LNPSettings(lags=5, nonlinearity="exp", normalize_weights=False),
        space=np.ones((1, 1, 1, 1, 1)), time=[[[0.0, 0.1, 0.5, -0.6, 0.3]]], bias=[-1.0],
    )  # fmt: skip
    stimulus = generator.standard_normal(6000).astype(np.float32)
    rates = truth.run(stimulus)
    counts = generator.poisson(rates)
    bank = LNP.for_series(
        1,
        LNPSettings(lags=5, nonlinearity="exp", learning_rate=0.03),
        space=np.ones((1, 1, 1, 1, 1)), time=np.ones((1, 1, 5)), gain=[0.1],
    )  # fmt: skip
    for value, count in zip(stimulus, counts, strict=True):
        bank.predict(value)
        bank.adapt(count)
    assert np.corrcoef(bank.run(stimulus)[-1000:, 0], rates[-1000:, 0])[0, 1] > 0.97


def test_no_learning_rate_and_no_size_of_stimulus_makes_learning_diverge():
    bank = make_bank(nonlinearity="exp", learning_rate=100.0)
    stimulus, counts = make_stimulus(bank, frames=200)
    for frame, spikes in zip(1e4 * stimulus, counts, strict=True):
        assert np.isfinite(bank.predict(frame)).all()
        bank.adapt(spikes)


def test_a_frame_beyond_single_precision_spoils_nothing_that_was_learned():
    bank = make_bank()
    stimulus, counts = make_stimulus(bank)
    bank.predict(np.full(bank.frame, 3e38, np.float32))
    bank.adapt(counts[0])
    for frame, spikes in zip(stimulus, counts, strict=True):
        bank.predict(frame)
        bank.adapt(spikes)
    assert all(np.isfinite(array).all() for array in bank.parameters.arrays().values())
    assert np.isfinite(bank.predict(stimulus[0])).all()


def test_a_cell_whose_count_is_unknown_learns_nothing():
    bank = make_bank()
    before = bank.parameters
    bank.predict(make_stimulus(bank)[0][0])
    bank.adapt([np.nan, 5, 5])
    assert bank.parameters.bias[0] == before.bias[0]
    assert np.array_equal(bank.parameters.time[0], before.time[0])
    assert bank.parameters.bias[1] != before.bias[1]


@pytest.mark.parametrize(
    ("counts", "message"),
    [
        ([1, 2], "expected one for each of 3 cells, got 2"),
        ([1, -2, 0], "expected numbers from 0 on"),
        ([1, np.inf, 0], "expected numbers from 0 on"),
    ],
)
def test_counts_that_cannot_be_are_refused(counts, message):
    bank = make_bank()
    bank.predict(make_stimulus(bank)[0][0])
    with pytest.raises(ModelError, match=message):
        bank.adapt(counts)


def test_counts_without_a_frame_are_refused():
    bank = make_bank()
    with pytest.raises(ModelError, match="call predict first"):
        bank.adapt([0, 0, 0])
    bank.predict(make_stimulus(bank)[0][0])
    bank.adapt([0, 0, 0])
    with pytest.raises(ModelError, match="call predict first"):
        bank.adapt([0, 0, 0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"gain": np.ones(2)}, r"LNP parameter gain: expected shape \(3,\), got \(2,\)"),
        ({"time": np.full((3, 2, 4), np.nan)}, "LNP parameter time: expected finite numbers"),
        ({"gain": np.full(3, 1e300)}, "gain: expected finite numbers within the range of float32"),
        ({"scale": np.zeros(1)}, r"scale: expected values above 0, got \[0.0\]"),
        ({"locations": np.full((3, 2), 9)}, r"cell 0: expected a pixel of a frame of 5 x 6, got \(9, 9\)"),
        ({"speed": np.ones(3)}, "speed is none; there are: space, time"),
        ({"coupling": np.ones((3, 3, 1))}, "expected 0 from a cell to itself"),
    ],
)
def test_parameters_that_do_not_fit_are_refused_by_name(change, message):
    with pytest.raises(ModelError, match=message):
        LNP(3, (1, 5, 6), LNPSettings(lags=4, rank=2, coupling=1), **change)


@pytest.mark.parametrize("cells", [0, [], ["a", "a"]])
def test_cells_need_different_names(cells):
    with pytest.raises(ModelError, match="expected one or more different names"):
        LNP(cells, (1, 1, 1))


@pytest.mark.parametrize("frame", [(1, 1), (0, 1, 1)])
def test_a_frame_needs_three_sizes(frame):
    with pytest.raises(ModelError, match=r"expected \(channels, rows, columns\)"):
        LNP(1, frame)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "maxrate"}, "expected kind 'lnp', got 'maxrate'"),
        ({"cells": ["x"]}, "expected cells"),
        ({"ring": np.zeros((2, 2, 8), np.float32)}, "expected finite ring of shape"),
        ({"newest": 99}, "outside their rings"),
        ({"gain": np.ones(7)}, "gain: expected shape"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_and_changes_nothing(change, message):
    bank = make_bank()
    before = bank.state_dict()
    with pytest.raises(ModelError, match=message):
        bank.load_state_dict(make_bank(seed=5).state_dict() | change)
    assert all(np.array_equal(value, before[name]) for name, value in bank.state_dict().items())


def test_a_state_that_lacks_something_says_what():
    state = make_bank().state_dict()
    del state["held"]
    with pytest.raises(ModelError, match="held is missing"):
        make_bank().load_state_dict(state)


def test_bytes_that_are_no_bank_are_refused():
    good = make_bank().save()
    for bad in (b"", b"\x80\x04pickle", good[:100], good[:-1], good.replace(b'"lnp"', b'"gnp"')):
        with pytest.raises(ModelError, match="LNP weights"):
            LNP.load(bad)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("frame", "[1, 1000000000, 1000000000]", "expected at most 16777216 values"),
        ("settings", '{"lags": 1000000000000, "rank": 2, "kernel": [3, 3]}', "time: expected shape"),
        ("settings", '{"lags": 0}', "settings: .*lags"),
        ("cells", '["a", 3]', "expected a list of names"),
        ("cells", "[]", "expected one or more different names"),
    ],
)
def test_a_file_that_claims_what_it_does_not_hold_is_refused(key, value, message):
    bank = make_bank(kernel=(3, 3))
    metadata = {
        "kind": "lnp",
        "cells": json.dumps(bank.cells),
        "frame": "[1, 5, 6]",
        "settings": bank.settings.model_dump_json(),
    }
    data = safetensors.numpy.save(bank.parameters.arrays(), metadata | {key: value})
    with pytest.raises(ModelError, match=message):
        LNP.load(data)


@given(st.binary(max_size=64))
@settings(max_examples=50)
def test_any_bytes_give_a_model_error(data):
    with pytest.raises(ModelError, match="LNP weights"):
        LNP.load(data)


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
def test_each_nonlinearity_has_its_inverse_and_its_slope(nonlinearity):
    drive, shape = np.linspace(-5, 5, 21), (1.5, -0.5, 2.0)
    rates = rate(nonlinearity, drive, *shape)
    np.testing.assert_allclose(drive_of(nonlinearity, rates, *shape), drive, atol=1e-9)
    moved = (rate(nonlinearity, drive + 1e-6, *shape) - rate(nonlinearity, drive - 1e-6, *shape)) / 2e-6
    np.testing.assert_allclose(slope(nonlinearity, drive, *shape), moved, rtol=1e-6)


def test_unit_norm_is_over_all_of_a_cells_weights():
    weights = np.stack([np.full((2, 2), 3.0), np.zeros((2, 2))])
    assert unit_norm(weights)[0].tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert not unit_norm(weights)[1].any()


def test_streaming_imports_no_torch():
    program = "import sys, neuroloop.models.lnp; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)


def test_a_frame_with_its_spikes_teaches_as_its_prediction_and_then_the_spikes_do():
    one, other = LNP(3, (1, 4, 4), LNPSettings(lags=3)), LNP(3, (1, 4, 4), LNPSettings(lags=3))
    for frame, counts in zip(np.random.default_rng(0).standard_normal((5, 4, 4)), [[0, 1, 2]] * 5, strict=True):
        one.predict(frame)
        one.adapt(counts)
        other.learn(frame, counts)
    state, same = one.state_dict(), other.state_dict()
    assert all(np.array_equal(state[name], same[name]) for name in state)
    assert one.parameters.bias[2] != one.parameters.bias[0]
