"""LRR as a library: what is exact, what does not depend on chunks, types and order, and what is said."""

import doctest
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from neuroloop.config import RereferenceSettings
from neuroloop.errors import ConfigError, ModelError
from neuroloop.signal import lrr as module
from neuroloop.signal.clusters import ByElement, Neighbours
from neuroloop.signal.lrr import LRR, LRRSettings
from neuroloop.signal.weights import weights_from_array

FIXTURES = Path(__file__).parents[2] / "fixtures"
PUBLISHED = {"ridge": 0.0, "center": False, "min_samples_per_channel": 0}
CLUSTERS = [[0, 3], [5, 1, 2]]


def mixed(samples=600, channels=6, seed=0):
    """Noise of its own in every channel, a common mode, and gains of 0.5 to 4."""
    rng = np.random.default_rng(seed)
    common = rng.standard_normal((samples, 1))
    return (rng.standard_normal((samples, channels)) + 2 * common) * np.linspace(0.5, 4, channels)


def relative(actual, expected):
    return np.abs(actual - expected).max() / np.abs(expected).max()


def test_the_example_in_its_description_runs():
    assert doctest.testmod(module).failed == 0


def test_it_is_imported_without_sessions_streams_or_torch():
    program = "import sys; from neuroloop.signal.lrr import LRR; print(sorted(m for m in sys.modules if m in {names}))"
    names = {"neuroloop.session", "neuroloop.api", "neuroloop.config", "pylsl", "torch", "zmq"}
    run = subprocess.run(
        [sys.executable, "-c", program.format(names=names)], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"


def test_a_session_has_the_same_settings_and_adds_its_own():
    own = set(RereferenceSettings.model_fields) - set(LRRSettings.model_fields)
    assert own == {"enabled", "mode", "update_every_s"}
    defaults = RereferenceSettings()
    for name in set(LRRSettings.model_fields) - {"half_life_s"}:
        assert getattr(defaults, name) == getattr(LRRSettings(), name)


# What is published, through the class.


@pytest.fixture(scope="module", params=["lrr_seed", "lrr_latest"])
def published(request):
    return dict(np.load(FIXTURES / f"{request.param}.npz"))


def test_fit_is_what_is_published_without_incremental(published):
    lrr = LRR(12, LRRSettings(**PUBLISHED))
    for number in range(3):
        lrr.fit(published[f"chunk{number}"])
    assert relative(lrr.weights.matrix, published["noninc_W"]) < 1e-9
    assert relative(lrr.transform(published["X_test"]), published["noninc_Y"]) < 1e-9
    assert lrr.weights.version == 3


def test_partial_fit_is_what_is_published_with_incremental(published):
    lrr = LRR(12, LRRSettings(**PUBLISHED))
    for number in range(3):
        lrr.partial_fit(published[f"chunk{number}"])
        assert relative(lrr.weights.matrix, published[f"inc{number}_W"]) < 1e-9
        assert relative(lrr.transform(published["X_test"]), published[f"inc{number}_Y"]) < 1e-9
        assert lrr.report["samples"] == published[f"inc{number}_n"]


@pytest.mark.parametrize(("kind", "ridge"), [("clusters", False), ("clusters_ridge", True)])
def test_clusters_and_ridge_are_as_published(published, kind, ridge):
    sizes = np.cumsum(published["clusters_sizes"])[:-1]
    clusters = [part.tolist() for part in np.split(published["clusters_flat"], sizes)]
    absolute = float(published["ridge_lambda"]) if ridge else 0.0
    least = 2 if published["clusters_W"][clusters[1][0], clusters[1][1]] else 3
    lrr = LRR(12, LRRSettings(**PUBLISHED, clusters=clusters, ridge_absolute=absolute, min_cluster=least))
    lrr.fit(published["X_fit"])
    assert relative(lrr.weights.matrix, published[f"{kind}_W"]) < 1e-9
    assert relative(lrr.transform(published["X_test"]), published[f"{kind}_Y"]) < 1e-9


def test_loaded_weights_are_used_until_a_fit_as_published(published):
    lrr = LRR(12, LRRSettings(**PUBLISHED)).load(FIXTURES / "lrr_weights.csv")
    assert relative(lrr.transform(published["X_test"]), published["csv_Y"]) < 1e-9
    lrr.partial_fit(published["X_fit"])
    assert relative(lrr.transform(published["X_test"]), published["warm_then_fit_Y"]) < 1e-9


def test_the_cold_start_is_as_published():
    data = np.load(FIXTURES / "lrr_latest.npz")
    clusters = [p.tolist() for p in np.split(data["clusters_flat"], np.cumsum(data["clusters_sizes"])[:-1])]
    lrr = LRR(12, LRRSettings(clusters=clusters, initial="car"))
    assert relative(lrr.transform(data["X_test"]), data["coldstart_car_Y"]) < 1e-9
    assert lrr.weights.version == 0


# Properties.


@given(st.integers(0, 10_000), st.integers(2, 12), st.floats(-1e4, 1e4))
@settings(max_examples=40)
def test_a_common_mode_is_removed_exactly_where_nothing_else_is_there(seed, channels, offset):
    """Noise-free, one source, any gains: what is left of the fluctuation is rounding, 1e-7 of the input.

    1e-7 and not 1e-16, for the null space of a covariance is known to the root of its rounding only.
    The offset is not part of what is regressed: it leaves as W passes it on.
    """
    rng = np.random.default_rng(seed)
    source = rng.standard_normal((300, 1)) * rng.uniform(0.5, 4, channels) * rng.choice([-1, 1], channels)
    output = LRR(channels, LRRSettings(ridge=0)).fit(source + offset).transform(source)
    assert np.abs(output).max() < 1e-7 * np.abs(source).max()


@given(st.integers(0, 10_000), st.integers(0, 5), st.floats(-1e3, 1e3))
@settings(max_examples=40)
def test_a_channels_output_depends_on_itself_as_the_identity_does(seed, channel, step):
    lrr, data = LRR(6, LRRSettings(clusters=3)).fit(mixed(seed=seed)), mixed(20, seed=seed + 1)
    changed = data.copy()
    changed[:, channel] += step
    difference = lrr.transform(changed) - lrr.transform(data)
    np.testing.assert_allclose(difference[:, channel], changed[:, channel] - data[:, channel], atol=1e-9)
    assert not np.diagonal(lrr.weights.matrix).any()


@given(st.lists(st.integers(0, 600), max_size=8), st.sampled_from([None, 0.05, 1.0]), st.integers(0, 1000))
@settings(max_examples=40)
def test_chunks_of_any_size_give_what_all_samples_at_once_give(cuts, half_life_s, seed):
    chosen = LRRSettings(half_life_s=half_life_s, clusters=CLUSTERS, min_samples_per_channel=1)
    data = mixed(seed=seed) + 100
    whole, parts = (LRR(6, chosen, nominal_srate=1000) for _ in range(2))
    whole.fit(data)
    for chunk in np.split(data, sorted(cuts)):
        parts.partial_fit(chunk)
    assert parts.report["samples"] == pytest.approx(whole.report["samples"])
    assert relative(parts.weights.matrix, whole.weights.matrix) < 1e-9


@given(st.integers(0, 10_000), st.floats(-1e3, 1e3))
@settings(max_examples=25)
def test_the_output_of_float32_is_that_of_float64_to_four_digits(seed, offset):
    data = mixed(seed=seed) + offset
    single, double = LRR(6).fit(data.astype(np.float32)), LRR(6).fit(data)
    output = single.transform(data.astype(np.float32))
    assert output.dtype == np.float32
    assert np.abs(output - double.transform(data)).max() < 1e-4 * np.abs(data).max()
    assert relative(single.weights.matrix, double.weights.matrix) < 1e-3


@given(st.integers(0, 10_000), st.sampled_from([None, 0.1]), st.booleans())
@settings(max_examples=25)
def test_the_state_comes_back_bit_for_bit(seed, half_life_s, solved):
    chosen = LRRSettings(half_life_s=half_life_s, clusters=CLUSTERS)
    first, second = (LRR(6, chosen, nominal_srate=1000) for _ in range(2))
    first.partial_fit(mixed(seed=seed).astype(np.float32))
    if solved:
        assert first.weights.version == 1
    second.load_state_dict(first.state_dict())
    more = mixed(100, seed=seed + 1)
    for lrr in (first, second):
        lrr.partial_fit(more)
    assert first.transform(more).tobytes() == second.transform(more).tobytes()
    assert first.weights.version == second.weights.version
    one, other = first.state_dict(), second.state_dict()
    for key, value in one.items():
        assert np.array_equal(value, other[key]) if isinstance(value, np.ndarray) else True
    assert [a.tobytes() for a in one["scatter"]] == [b.tobytes() for b in other["scatter"]]
    assert {k: one[k] for k in ("samples", "rejected", "resolution", "version", "report", "pending")} == {
        k: other[k] for k in ("samples", "rejected", "resolution", "version", "report", "pending")
    }


@given(st.permutations(range(6)))
@settings(max_examples=25)
def test_weights_find_their_channels_in_any_order(order):
    labels = [f"c{i}" for i in range(6)]
    data = mixed()
    made = LRR(labels).fit(data)
    other = LRR([labels[i] for i in order])
    for format in ("npz", "safetensors"):
        other.load(made.save(format))
        np.testing.assert_array_equal(other.weights.matrix, made.weights.matrix[np.ix_(order, order)])
    other.load(made.weights)
    assert relative(other.transform(data[:, order]), made.transform(data)[:, order]) < 1e-12


# The table of faults.


def test_integers_of_sixteen_bits_do_not_overflow_in_chunks_of_any_size():
    data = (8000 * mixed(2000) / 4).astype(np.int16)
    expected = LRR(6).fit(data.astype(np.float64)).weights.matrix
    for step in (1, 7, 2000):
        lrr = LRR(6)
        for first in range(0, 2000, step):
            lrr.partial_fit(data[first : first + step])
        assert relative(lrr.weights.matrix, expected) < 1e-9


def test_an_offset_of_ten_thousand_in_float32_costs_what_float32_has_lost_of_the_signal():
    data = mixed(4000)
    weights = LRR(6).fit((data + 1e4).astype(np.float32)).weights.matrix
    assert np.abs(weights - LRR(6).fit(data).weights.matrix).max() < 1e-3


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_one_value_that_is_not_finite_is_counted_and_changes_nothing_else(value):
    data = mixed()
    spoilt = np.insert(data, 77, data[0], axis=0)
    spoilt[77, 4] = value
    for fit in ("fit", "partial_fit"):
        lrr = getattr(LRR(6), fit)(spoilt)
        assert lrr.report["rejected"] == 1
        assert relative(lrr.weights.matrix, LRR(6).fit(data).weights.matrix) < 1e-9
    assert lrr.partial_fit(data).report["rejected"] == 1


def test_a_channel_in_no_cluster_may_be_broken_without_harm():
    data = mixed()
    expected = LRR(6, LRRSettings(clusters=CLUSTERS)).fit(data).transform(data)
    data[:, 4] = np.nan
    lrr = LRR(6, LRRSettings(clusters=CLUSTERS)).fit(data)
    assert lrr.report["rejected"] == 0
    output = lrr.transform(data)
    assert np.isnan(output[:, 4]).all()
    np.testing.assert_array_equal(np.delete(output, 4, 1), np.delete(expected, 4, 1))


def test_a_value_that_is_not_finite_reaches_its_own_cluster_only():
    lrr, data = LRR(6, LRRSettings(clusters=3)).fit(mixed()), mixed(10)
    data[5, 1] = np.inf
    output = lrr.transform(data)
    assert np.isfinite(output[:, 3:]).all()
    assert not np.isfinite(output[5, :3]).any()


def test_dead_channels_are_named_and_pass_unchanged():
    data = mixed()
    data[:, 2] = 5.0
    lrr = LRR(list("abcdef")).fit(data)
    assert lrr.report["dead"] == ["c"]
    assert lrr.weights.report["warnings"] == ["near-constant channels are left out and passed through: c"]
    assert np.array_equal(lrr.transform(data)[:, 2], data[:, 2])


def test_a_rank_lost_to_a_common_average_is_told():
    data = mixed()
    for dtype in (np.float64, np.float32):
        samples = (data + 100).astype(dtype)
        lrr = LRR(6).fit(samples - samples.mean(axis=1, keepdims=True))
        assert lrr.report["clusters"][0]["rank"] == 5
        assert "rank 5 of 6 channels" in lrr.report["warnings"][0]
        assert LRR(6).fit(samples).report["warnings"] == []
        restored = LRR(6)
        restored.load_state_dict(LRR(6).partial_fit(samples - samples.mean(axis=1, keepdims=True)).state_dict())
        assert restored.report == lrr.report


def test_forgetting_follows_a_change_that_accumulation_averages_away():
    before, after = mixed(20_000), mixed(20_000, seed=1) * [1, -1, 1, -1, 1, -1]
    expected = LRR(6).fit(after).weights.matrix
    forgets = LRR(6, LRRSettings(half_life_s=2), nominal_srate=1000).partial_fit(before).partial_fit(after)
    keeps = LRR(6).partial_fit(before).partial_fit(after)
    assert relative(forgets.weights.matrix, expected) < 0.2
    assert relative(keeps.weights.matrix, expected) > 0.8
    assert forgets.report["samples"] == pytest.approx(2000 / np.log(2), rel=0.01)


def test_the_readiness_gate_keeps_the_weights_and_says_what_is_needed():
    lrr = LRR(6, LRRSettings(initial="car")).partial_fit(mixed(100))
    assert (lrr.report["ready"], lrr.weights.version, lrr.weights.source) == (False, 0, "initial")
    assert lrr.report["warnings"] == ["100 samples so far; 120 are needed"]
    with pytest.raises(ModelError, match="100 samples so far; 120 are needed; the weights stay as they were"):
        lrr.fit(mixed(100))
    assert lrr.partial_fit(mixed(20)).weights.version == 1


def test_the_report_tells_condition_rank_and_effective_samples():
    report = LRR(6, LRRSettings(clusters=3)).fit(mixed()).weights.report
    assert (report["samples"], report["rejected"], report["ready"]) == (600, 0, True)
    assert [cluster["rank"] for cluster in report["clusters"]] == [3, 3]
    assert all(1 < cluster["condition"] < 1e4 for cluster in report["clusters"])


@pytest.mark.parametrize("clusters", [[["c0", "c1"], ["c1"]], [[0, 6]], [["c0", 0]], [["nowhere"]]])
def test_clusters_that_overlap_or_reach_outside_are_refused_when_configured(clusters):
    with pytest.raises((ValueError, ConfigError), match=r"clusters[\s\S]*(named twice|is not there)"):
        LRR([f"c{i}" for i in range(6)], LRRSettings(clusters=clusters))


def test_clusters_come_from_descriptions_and_positions():
    banks = [{"bank": "AB"[i % 2]} for i in range(6)]
    assert LRR(6, LRRSettings(clusters=ByElement(by="bank")), metadata=banks).clusters == ((0, 2, 4), (1, 3, 5))
    line = [(0.0, float(i), 0.0) for i in range(6)]
    assert LRR(6, LRRSettings(clusters={"neighbours": 3}), positions=line).clusters == ((0, 1, 2), (3, 4, 5))
    with pytest.raises(ConfigError, match="no position"):
        LRR(6, LRRSettings(clusters=Neighbours(neighbours=3)))


# Shapes, types, files, versions.


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("int8", "f4"),
        ("int16", "f4"),
        ("uint16", "f4"),
        ("int32", "f8"),
        ("float16", "f4"),
        ("float32", "f4"),
        (">f8", "f8"),
    ],
)
def test_every_numeric_type_is_taken(dtype, expected):
    data = (10 * mixed()).astype(dtype)
    lrr = LRR(6, LRRSettings(clusters=CLUSTERS)).fit(data)
    output, values = lrr.transform(data), data.astype(np.float64)
    assert output.dtype == expected
    assert np.abs(output - (values - values @ lrr.weights.matrix)).max() < 1e-5 * np.abs(values).max()
    assert np.array_equal(output[:, 4], data[:, 4])


def test_leading_axes_are_samples():
    data = mixed(600)
    lrr, epochs = LRR(6).fit(data), data.reshape(5, 4, 30, 6)
    assert relative(LRR(6).fit(epochs).weights.matrix, lrr.weights.matrix) < 1e-12
    assert np.array_equal(lrr.transform(epochs), lrr.transform(data).reshape(epochs.shape))
    assert lrr.transform(data[0]).shape == (6,)
    assert lrr.transform(data[:0]).shape == (0, 6)
    strided = np.asfortranarray(np.repeat(data, 2, axis=1))[::2, ::2]
    assert np.array_equal(lrr.transform(strided), lrr.transform(data[::2]))


def test_an_array_is_accumulated_in_slices_with_the_same_result(monkeypatch):
    data = mixed()
    whole = LRR(6).fit(data).weights.matrix
    monkeypatch.setattr(module, "SLICE", 100)
    assert relative(LRR(6).fit(data).weights.matrix, whole) < 1e-12


def test_the_input_is_never_written():
    data = mixed()
    data.flags.writeable = False
    LRR(6).fit(data).partial_fit(data).transform(data)


@pytest.mark.parametrize(
    ("X", "words"),
    [
        (np.zeros((3, 5)), r"expected \(\.\.\., 6\), channels last; got \(3, 5\)"),
        (np.float64(1), "channels last"),
        (np.zeros((3, 6), complex), "expected integers or floats, got complex128"),
        (np.zeros((3, 6), bool), "expected integers or floats, got bool"),
    ],
)
def test_input_of_another_shape_or_type_is_refused(X, words):
    for call in ("fit", "partial_fit", "transform"):
        with pytest.raises(ModelError, match=words):
            getattr(LRR(6), call)(X)


def test_weights_are_versions_bound_to_labels_and_never_change():
    lrr = LRR(list("abcdef")).fit(mixed())
    first = lrr.weights
    kept = first.matrix.copy()
    lrr.fit(mixed(seed=1))
    assert (first.version, lrr.weights.version, first.channels) == (1, 2, tuple("abcdef"))
    assert np.array_equal(first.matrix, kept)
    with pytest.raises(ValueError, match="read-only"):
        first.matrix[0, 1] = 1.0
    assert lrr.weights is lrr.weights


@pytest.mark.parametrize("format", ["csv", "npz", "safetensors"])
def test_weights_survive_a_file_to_the_bit(format, tmp_path):
    lrr = LRR(list("abcdef")).fit(mixed())
    path = tmp_path / f"w.{format}"
    path.write_bytes(lrr.save(format))
    for source in (path, str(path), path.read_bytes()):
        loaded = LRR(list("abcdef")).load(source).weights
        assert loaded.matrix.tobytes() == lrr.weights.matrix.tobytes()
        assert (loaded.source, loaded.channels) == ("upload", tuple("abcdef"))


def test_weights_that_reach_across_clusters_are_honoured():
    matrix, data = np.zeros((6, 6)), mixed(20)
    matrix[0, 4] = matrix[5, 0] = 0.5
    output = LRR(6, LRRSettings(clusters=3)).load(matrix).transform(data)
    np.testing.assert_allclose(output, data - data @ matrix, atol=1e-12)
    assert np.array_equal(output[:, 1:4], data[:, 1:4])


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        (weights_from_array(np.zeros((6, 6)), list("abcdeX")), "expected the channels a, b, c, d, e, f.*differ in X"),
        (weights_from_array(np.zeros((3, 3)), list("abc")), r"expected \(6, 6\) for 6 channels, got \(3, 3\)"),
        (np.zeros((7, 6)), r"got \(7, 6\); upload W, not the affine form"),
        (np.full((6, 6), np.nan), "not finite"),
        (np.eye(6), "I - W"),
        (b"0,1\n1\n", "row 2 has 1 values"),
    ],
)
def test_weights_that_do_not_fit_are_refused_and_the_old_ones_stay(weights, words):
    lrr = LRR(list("abcdef")).fit(mixed())
    before = lrr.weights
    with pytest.raises(ModelError, match=words):
        lrr.load(weights)
    assert lrr.weights is before


def test_an_unknown_format_labels_given_twice_and_a_half_life_without_rate_are_refused():
    with pytest.raises(ModelError, match="expected one of csv, npz, safetensors; got 'hdf5'"):
        LRR(6).save("hdf5")
    with pytest.raises(ConfigError, match="each once"):
        LRR(["a", "a"])
    with pytest.raises(ConfigError, match="30 s need a nominal_srate above 0 Hz, got None"):
        LRR(6, LRRSettings(half_life_s=30))


def test_a_state_of_other_channels_is_refused():
    with pytest.raises(ModelError, match="expected the channels"):
        LRR(list("abc")).load_state_dict(LRR(list("abd")).state_dict())
    with pytest.raises(ModelError, match="expected the clusters"):
        LRR(4, LRRSettings(clusters=2)).load_state_dict(LRR(4).state_dict())
